"""Who calls, and may they: the one place where a request for partners is let in.

A key is looked up once in ten seconds, and anew at once when its row changes (triggers notify). Rates are counted by
client, in tokens leased from Redis.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

import msgspec
from starlette.requests import Request

from lostwax.channel.callers import let_in
from lostwax.channel.domain import Client
from lostwax.kit.auth import BadCredentials, KeyCache
from lostwax.kit.http import ANSWER_HEADERS, Operation, bearer
from lostwax.kit.listening import follow
from lostwax.kit.postgres import UNREACHABLE, OwnConnection, Pool
from lostwax.kit.problems import Problem, unauthorized
from lostwax.kit.rate_limit import Limit, RateLimiter
from lostwax.partner_api import keys_store
from lostwax.partner_api.domain import Key, why_ended
from lostwax.partner_api.keys import scope_missing
from lostwax.partner_api.keys_store import CHANNEL

log = logging.getLogger(__name__)

AUTH = "api-key"
_CALLER = "lostwax.caller"
_USE_TOLD_EVERY_S = 60.0
_GATHER_S = 1.0
_LOOKED_UP_AT_ONCE = 4
"""A flood of made-up keys, each of them looked up, must leave intake most of the pool's connections."""


class Caller(msgspec.Struct, frozen=True):
    """Who holds a key, and what it may do. `name`: of their bucket. `limit`: None, no limit."""

    client: Client
    key: Key
    name: str
    suspended: bool
    limit: Limit | None


def caller(request: Request) -> Caller:
    """Who was let in with this request."""
    let_in: Caller = request.scope[_CALLER]
    return let_in


class Callers:
    """Lets requests in. `default_limit` holds for clients without one of their own."""

    def __init__(
        self, pool: Pool, limiter: RateLimiter, default_limit: Limit | None, *, now: Callable[[], datetime]
    ) -> None:
        self._pool, self._limiter, self._default, self._now = pool, limiter, default_limit, now
        self._keys: KeyCache[Caller] = KeyCache(self._look_up)
        self._looking_up = asyncio.Semaphore(_LOOKED_UP_AT_ONCE)
        self._use_told: dict[UUID, float] = {}
        self._to_tell: set[UUID] = set()
        self._used = asyncio.Event()

    def guarded(self, operations: Sequence[Operation]) -> list[Operation]:
        """The same operations; those for partners let in only whose key has their scope. Raises ValueError for one
        that names none."""
        guarded = []
        for operation in operations:
            if operation.auth == AUTH:
                if operation.scope is None:
                    raise ValueError(f"{operation.method} {operation.path} needs a scope")
                operation = msgspec.structs.replace(operation, admit=partial(self._admit, operation.scope))
            guarded.append(operation)
        return guarded

    async def _admit(self, scope: str, request: Request) -> None:
        sent = bearer(request)
        if sent is None:
            raise unauthorized("Send your API key: Authorization: Bearer <key>.")
        try:
            found = await self._keys.holder(sent)
        except BadCredentials as error:
            raise unauthorized(str(error)) from None
        key = found.key
        if (key.withdrawn_at is not None or key.expires_at is not None) and (ended := why_ended(key, self._now())):
            raise unauthorized(ended)
        if found.suspended:
            raise Problem(
                403, "client-suspended", "Your account is suspended", "Ask the workshop; your orders are kept."
            )
        if found.limit is not None:
            verdict = await self._limiter.take(found.name, found.limit)
            request.scope[ANSWER_HEADERS] = verdict.headers
            if not verdict.allowed:
                raise _too_many(found.limit, verdict.retry_in_s)
        self._note_use(key.key_id)
        if scope not in key.scopes:
            raise scope_missing(scope, "Your key is not for this")
        request.scope[_CALLER] = found
        let_in(request, found.client)

    async def _look_up(self, digest: bytes) -> Caller | None:
        async with self._looking_up, self._pool.acquire() as connection:
            holder = await keys_store.holder_of_key(connection, digest)
        if holder is None:
            return None
        row = holder.client
        return Caller(
            client=row.client,
            key=holder.key,
            name=str(row.client.client_id),
            suspended=row.suspended_at is not None,
            limit=row.limit if row.own_limit else self._default,
        )

    # -- what changes -------------------------------------------------------------------------------------------------

    async def follow_changes(self, dsn: str) -> None:
        """Forget what changes, until cancelled. Unheard changes are known ten seconds later anyhow."""
        await follow(dsn, CHANNEL, self._heard)

    async def _heard(self, _: OwnConnection, digests: Sequence[str] | None) -> None:
        if digests is None or "" in digests:
            self._keys.forget()
            return
        for digest in digests:
            self._keys.forget(bytes.fromhex(digest))

    # -- when keys were used ------------------------------------------------------------------------------------------

    def _note_use(self, key_id: UUID) -> None:
        now = time.monotonic()
        if now - self._use_told.get(key_id, -math.inf) >= _USE_TOLD_EVERY_S:
            self._use_told[key_id] = now
            self._to_tell.add(key_id)
            self._used.set()

    async def tell_use(self) -> None:
        """Write down when keys were used last, each once a minute, until cancelled."""
        while True:
            await self._used.wait()
            await asyncio.sleep(_GATHER_S)
            self._used.clear()
            used, self._to_tell = sorted(self._to_tell), set()
            now = time.monotonic()
            self._use_told = {k: at for k, at in self._use_told.items() if now - at < _USE_TOLD_EVERY_S}
            try:
                async with self._pool.acquire() as connection:
                    await keys_store.note_used(connection, used)
            except UNREACHABLE as error:
                log.warning("last use of keys was not written", extra={"keys": len(used), "error": repr(error)})


def _too_many(limit: Limit, retry_in_s: float) -> Problem:
    return Problem(
        429,
        "too-many-requests",
        "Too many requests",
        f"You may send {limit.rate_per_s:g} requests a second, {limit.burst} at once. Nothing was done; send it again.",
        headers={"Retry-After": str(max(1, math.ceil(retry_in_s)))},
    )
