"""Use cases of clients and their keys, each one transaction. A key is shown once, when it is made."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from lostwax.channel.domain import Client
from lostwax.contracts.ids import new_id
from lostwax.kit.auth import digest_of_key, new_api_key
from lostwax.kit.postgres import Connection
from lostwax.kit.problems import Problem, not_found
from lostwax.partner_api import keys_store
from lostwax.partner_api.domain import (
    ALL_SCOPES,
    GrantRefused,
    Key,
    check_grant,
    end_of_old,
    leaves_a_manager,
    why_ended,
)

MOST_KEYS = 50
PREFIX = "lwp"

MayGrant = Callable[[Sequence[str], datetime | None], None]
"""Whether whoever asks may have a key of these scopes that ends then; raises the Problem."""


def anything(_: Sequence[str], __: datetime | None) -> None:
    """MayGrant of the workshop itself."""


def as_holder_of(giver: Key) -> MayGrant:
    """MayGrant of a caller: no more than their own key has."""

    def check(scopes: Sequence[str], expires_at: datetime | None) -> None:
        try:
            check_grant(giver, scopes, expires_at)
        except GrantRefused as refused:
            if refused.scope is None:
                raise Problem(
                    403,
                    "key-outlives",
                    "Your key ends before that",
                    f"This key ends at {giver.expires_at}; what it makes must not end later. Set `expires_at`.",
                ) from None
            raise scope_missing(refused.scope, "Your key can hand on only what it may do itself") from None

    return check


def scope_missing(scope: str, title: str) -> Problem:
    return Problem(
        403,
        "scope-missing",
        title,
        f"The scope {scope} is missing. Use a key that has it.",
        headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'},
        scope=scope,
    )


async def add_client(connection: Connection, name: str, *, unlimited: bool = False) -> tuple[Client, str]:
    """A new client and its first key, which may do everything."""
    client = Client(new_id(), name)
    async with connection.transaction():
        await keys_store.add_client(connection, client, unlimited=unlimited)
        _, key = await _new_key(connection, client.client_id, "first key", ALL_SCOPES, None)
    return client, key


async def _new_key(
    connection: Connection, client_id: UUID, name: str, scopes: Sequence[str], expires_at: datetime | None
) -> tuple[Key, str]:
    key = new_api_key(PREFIX)
    row = await keys_store.add_key(connection, digest_of_key(key), client_id, new_id(), name, scopes, expires_at)
    return row, key


async def add_key(
    connection: Connection,
    client_id: UUID,
    name: str,
    scopes: Sequence[str],
    expires_at: datetime | None,
    now: datetime,
    may_grant: MayGrant,
) -> tuple[Key, str]:
    """One more key of a client."""
    if expires_at is not None and expires_at <= now:
        raise Problem(422, "out-of-range", "That has passed", "expires_at must be in the future.")
    may_grant(scopes, expires_at)
    async with connection.transaction():
        await keys_store.lock_client(connection, client_id)
        working = [k for k in await keys_store.keys_of(connection, client_id) if why_ended(k, now) is None]
        if len(working) >= MOST_KEYS:
            raise Problem(409, "too-many-keys", "That would be too many", f"At most {MOST_KEYS}; withdraw one first.")
        return await _new_key(connection, client_id, name, scopes, expires_at)


async def rotate_key(
    connection: Connection, client_id: UUID, key_id: UUID, grace: timedelta, now: datetime, may_grant: MayGrant
) -> tuple[Key, Key, str]:
    """A new key like this one, which ends after the grace: the old one, the new one, and the new one itself."""
    async with connection.transaction():
        await keys_store.lock_client(connection, client_id)
        old = await _own_key(connection, client_id, key_id)
        if (ended := why_ended(old, now)) is not None:
            raise Problem(409, "key-ended", "This key works no more", f"Make a new one: {ended}.")
        if old.replaced_by is not None:
            raise Problem(
                409,
                "key-replaced",
                "This key is being replaced already",
                f"By {old.replaced_by}, see GET /v1/keys. If that one was lost, withdraw it and make a new one.",
            )
        may_grant(old.scopes, old.expires_at)
        new, key = await _new_key(connection, client_id, old.name, old.scopes, old.expires_at)
        await keys_store.replace_key(connection, key_id, new.key_id, end_of_old(old, now, grace))
        return await _own_key(connection, client_id, key_id), new, key


async def withdraw_key(
    connection: Connection, client_id: UUID, key_id: UUID, now: datetime, *, even_last: bool = False
) -> None:
    """End a key at once. 409 when nobody could manage the client's keys afterwards, but for `even_last`. Idempotent."""
    async with connection.transaction():
        await keys_store.lock_client(connection, client_id)
        key = await _own_key(connection, client_id, key_id)
        if why_ended(key, now) is None and not even_last:
            keys = await keys_store.keys_of(connection, client_id)
            if leaves_a_manager(keys, UUID(int=0), now) and not leaves_a_manager(keys, key_id, now):
                raise Problem(
                    409,
                    "last-managing-key",
                    "This is your last key that manages keys",
                    "Make or rotate one with keys:manage first, then withdraw this one.",
                )
        await keys_store.withdraw_key(connection, key_id)


async def _own_key(connection: Connection, client_id: UUID, key_id: UUID) -> Key:
    key = await keys_store.key(connection, client_id, key_id)
    if key is None:
        raise not_found("key")
    return key
