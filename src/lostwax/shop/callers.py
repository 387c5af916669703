"""Who calls, and may they: the one place where a request of a customer is let in, by cookie or bearer token.

A session is looked up once in ten seconds, and anew at once when it is revoked or its customer changes (triggers
notify). Rates are counted by customer, and for strangers by address, in tokens leased from Redis.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request

from lostwax.channel.callers import let_in
from lostwax.kit.auth import BadCredentials, KeyCache
from lostwax.kit.http import ANSWER_HEADERS, Operation, bearer
from lostwax.kit.listening import follow
from lostwax.kit.postgres import OwnConnection
from lostwax.kit.problems import Problem, unauthorized
from lostwax.kit.rate_limit import Limit, RateLimiter
from lostwax.kit.staff import refuse_cross_site
from lostwax.shop import store
from lostwax.shop.domain import Customer, Session
from lostwax.shop.handlers import Entrance, client_of

if TYPE_CHECKING:
    from collections.abc import Callable

AUTH = "session"
COOKIE = "shop"
_CALLER = "lostwax.customer"
_SAFE = ("GET", "HEAD")


def caller(request: Request) -> tuple[Session, Customer]:
    """Who was let in with this request."""
    found: tuple[Session, Customer] = request.scope[_CALLER]
    return found


class Callers:
    """Lets requests in. `limit`: of a customer; `entries`: of an address that comes in."""

    def __init__(
        self,
        entrance: Entrance,
        limiter: RateLimiter,
        limit: Limit,
        entries: Limit,
        *,
        now: "Callable[[], datetime]",
    ) -> None:
        self._entrance, self._limiter, self._limit, self._entries, self._now = entrance, limiter, limit, entries, now
        self._known: KeyCache[tuple[Session, Customer]] = KeyCache(self._look_up)

    def guarded(self, operations: Sequence[Operation]) -> list[Operation]:
        """The same operations; those for customers let only them in, and those for anybody not too many of an
        address."""
        return [
            msgspec.structs.replace(o, admit=partial(self._admit, o.path) if o.auth == AUTH else self._admit_anybody)
            if o.auth in (AUTH, None)
            else o
            for o in operations
        ]

    def forget(self) -> None:
        """A session has just ended here: whoever asks next is looked up, before the notification comes."""
        self._known.forget()

    async def holder(self, request: Request) -> tuple[Session, Customer]:
        """Whose session a request comes with. Raises the 401 or, for a browser's from another page, 403 Problem."""
        token = bearer(request)
        if token is None and (token := request.cookies.get(COOKIE)) is not None and request.method not in _SAFE:
            refuse_cross_site(request)
        if token is None:
            raise unauthorized("Sign in, or come in as a guest: POST /v1/guests.")
        try:
            session, customer = await self._known.holder(token)
        except BadCredentials:
            raise unauthorized("This session has ended. Sign in again.") from None
        if session.expires_at <= self._now():
            raise unauthorized("This session has expired. Sign in again.")
        return session, customer

    async def _admit(self, path: str, request: Request) -> None:
        session, customer = await self.holder(request)
        await self._take(request, str(customer.customer_id), self._limit)
        if path == "/v1/orders" and request.method == "POST" and customer.email is None:
            # Perhaps it was said a moment ago, and not heard here yet.
            self._known.forget()
            session, customer = await self.holder(request)
        if path == "/v1/orders" and request.method == "POST" and customer.email is None:
            raise Problem(409, "no-contact", "Tell us where we reach you", "Say your e-mail address first: PUT /v1/me.")
        request.scope[_CALLER] = (session, customer)
        let_in(request, client_of(customer))

    async def _admit_anybody(self, request: Request) -> None:
        if request.method not in _SAFE:
            refuse_cross_site(request)
            await self.take_entry(request)

    async def take_entry(self, request: Request) -> None:
        """Count one more entry of this address. Raises the 429 Problem."""
        address = request.client.host if request.client is not None else ""
        await self._take(request, f"address:{address}", self._entries)

    async def _take(self, request: Request, name: str, limit: Limit) -> None:
        verdict = await self._limiter.take(name, limit)
        request.scope[ANSWER_HEADERS] = verdict.headers
        if not verdict.allowed:
            raise Problem(
                429,
                "too-many-requests",
                "Too many requests",
                "Nothing was done; wait a moment and send it again.",
                headers={"Retry-After": str(max(1, math.ceil(verdict.retry_in_s)))},
            )

    async def _look_up(self, digest: bytes) -> tuple[Session, Customer] | None:
        async with self._entrance.pool.acquire() as connection:
            return await store.holder_of(connection, digest)

    async def follow_changes(self, dsn: str) -> None:
        """Forget what changes, until cancelled. Unheard changes are known ten seconds later anyhow."""

        async def heard(_: OwnConnection, digests: Sequence[str] | None) -> None:
            if digests is None or "" in digests:
                self._known.forget()
                return
            for digest in digests:
                self._known.forget(bytes.fromhex(digest))

        await follow(dsn, store.CHANNEL, heard)
