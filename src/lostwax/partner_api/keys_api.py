"""HTTP of partners' keys: make, list, rotate, withdraw. A key itself is shown only in the answer that makes it."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from lostwax.kit.http import Operation, answer, path_uuid
from lostwax.kit.postgres import Pool
from lostwax.partner_api import keys, keys_store
from lostwax.partner_api.callers import AUTH, caller
from lostwax.partner_api.domain import LONGEST_GRACE, Key, Scope

Name = Annotated[str, Meta(min_length=1, max_length=100, description="for you, to tell your keys apart")]


class MakeKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key that may do at most what the calling key may; without `scopes`: the same. It ends no later than that."""

    name: Name
    scopes: Annotated[list[Scope], Meta(min_length=1)] | None = None
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None


class RotateKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The old key goes on for `grace_s` seconds (a day unless you say otherwise), so that nothing is cut off."""

    grace_s: Annotated[int, Meta(ge=0, le=int(LONGEST_GRACE.total_seconds()))] = 86_400


class KeyView(msgspec.Struct, frozen=True):
    """A key of yours, without the key. `last_used_at` is right within a minute. `calling`: the one you use now."""

    key_id: UUID
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    withdrawn_at: datetime | None
    last_used_at: datetime | None
    replaced_by: UUID | None
    calling: bool


class KeysView(msgspec.Struct, frozen=True):
    """Oldest first, without those that ended more than 30 days ago."""

    keys: list[KeyView]


class NewKey(msgspec.Struct, frozen=True):
    """`key` is shown this once."""

    key_id: UUID
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    key: str


class RotatedKey(msgspec.Struct, frozen=True):
    """The new key, and when the old one ends."""

    old_key_id: UUID
    old_ends_at: datetime
    new: NewKey


def operations(pool: Pool, now: Callable[[], datetime]) -> list[Operation]:
    async def make_key(request: Request, body: MakeKey) -> Response:
        calling = caller(request)
        scopes = calling.key.scopes if body.scopes is None else tuple(dict.fromkeys(body.scopes))
        expires_at = calling.key.expires_at if body.expires_at is None else body.expires_at
        may_grant = keys.as_holder_of(calling.key)
        async with pool.acquire() as connection:
            row, key = await keys.add_key(
                connection, calling.client.client_id, body.name, scopes, expires_at, now(), may_grant
            )
        return answer(_new_view(row, key), 201)

    async def list_keys(request: Request) -> Response:
        calling = caller(request)
        async with pool.acquire() as connection:
            rows = await keys_store.keys_of(connection, calling.client.client_id)
        return answer(KeysView([_view(row, calling.key) for row in rows]))

    async def rotate_key(request: Request, body: RotateKey) -> Response:
        calling = caller(request)
        key_id = path_uuid(request, "key_id", "key")
        async with pool.acquire() as connection:
            old, new, key = await keys.rotate_key(
                connection,
                calling.client.client_id,
                key_id,
                timedelta(seconds=body.grace_s),
                now(),
                keys.as_holder_of(calling.key),
            )
        assert old.expires_at is not None
        return answer(RotatedKey(old.key_id, old.expires_at, _new_view(new, key)), 201)

    async def withdraw_key(request: Request) -> Response:
        calling = caller(request)
        key_id = path_uuid(request, "key_id", "key")
        async with pool.acquire() as connection:
            await keys.withdraw_key(connection, calling.client.client_id, key_id, now())
        return Response(status_code=204)

    no_key = {404: "no such key"}
    too_much = {403: "keys:manage is missing, or the new key would do more or last longer than yours"}
    return [
        Operation(
            "POST",
            "/v1/keys",
            make_key,
            "Make one more key, for at most what yours may do",
            {201: NewKey},
            {**too_much, 409: "too many keys"},
            body=MakeKey,
            auth=AUTH,
            scope=Scope.KEYS_MANAGE,
        ),
        Operation("GET", "/v1/keys", list_keys, "Your keys", {200: KeysView}, auth=AUTH, scope=Scope.KEYS_MANAGE),
        Operation(
            "POST",
            "/v1/keys/{key_id}/rotate",
            rotate_key,
            "A new key in place of this one, which ends after a while",
            {201: RotatedKey},
            {**no_key, **too_much, 409: "the key has ended or is being replaced already"},
            body=RotateKey,
            auth=AUTH,
            scope=Scope.KEYS_MANAGE,
        ),
        Operation(
            "DELETE",
            "/v1/keys/{key_id}",
            withdraw_key,
            "End a key at once",
            {204: None},
            {**no_key, 409: "your last key that manages keys"},
            auth=AUTH,
            scope=Scope.KEYS_MANAGE,
        ),
    ]


def _view(key: Key, calling: Key) -> KeyView:
    return KeyView(
        key_id=key.key_id,
        name=key.name,
        scopes=list(key.scopes),
        created_at=key.created_at,
        expires_at=key.expires_at,
        withdrawn_at=key.withdrawn_at,
        last_used_at=key.last_used_at,
        replaced_by=key.replaced_by,
        calling=key.key_id == calling.key_id,
    )


def _new_view(row: Key, key: str) -> NewKey:
    return NewKey(row.key_id, row.name, list(row.scopes), row.created_at, row.expires_at, key)
