"""Clients and their keys: what a key may do, until when it may, and what it may hand on. Pure."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import msgspec

LONGEST_GRACE = timedelta(days=7)


class Scope(StrEnum):
    """What a key may do. Every operation for partners needs one of these."""

    ORDERS_READ = "orders:read"
    ORDERS_WRITE = "orders:write"
    MODELS_READ = "models:read"
    MODELS_WRITE = "models:write"
    QUOTES_READ = "quotes:read"
    QUOTES_WRITE = "quotes:write"
    HOOKS_MANAGE = "hooks:manage"
    KEYS_MANAGE = "keys:manage"


ALL_SCOPES = tuple(Scope)


class Key(msgspec.Struct, frozen=True):
    """A client's key, of which only a digest is kept. `replaced_by`: rotated, it ends soon or has ended."""

    key_id: UUID
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None = None
    withdrawn_at: datetime | None = None
    last_used_at: datetime | None = None
    replaced_by: UUID | None = None


class GrantRefused(Exception):
    """A key may not hand on more than it has. `scope`: what it lacks; None: the other one would outlive it."""

    def __init__(self, scope: str | None) -> None:
        super().__init__(scope or "outlives")
        self.scope = scope


def why_ended(key: Key, now: datetime) -> str | None:
    """Why a key works no more; None: it works."""
    if key.withdrawn_at is not None:
        return f"this key was withdrawn at {_shown(key.withdrawn_at)}"
    if key.expires_at is not None and key.expires_at <= now:
        if key.replaced_by is not None:
            return f"this key was replaced by {key.replaced_by} and ended at {_shown(key.expires_at)}"
        return f"this key expired at {_shown(key.expires_at)}"
    return None


def _shown(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def check_grant(giver: Key, scopes: Iterable[str], expires_at: datetime | None) -> None:
    """Whether `giver` may make a key of these scopes that ends then. Raises GrantRefused."""
    for scope in scopes:
        if scope not in giver.scopes:
            raise GrantRefused(scope)
    if giver.expires_at is not None and (expires_at is None or expires_at > giver.expires_at):
        raise GrantRefused(None)


def end_of_old(key: Key, now: datetime, grace: timedelta) -> datetime:
    """When a key that is replaced now ends: after the grace, and no later than it would have anyhow."""
    end = now + grace
    return end if key.expires_at is None else min(end, key.expires_at)


def leaves_a_manager(keys: Iterable[Key], without: UUID, now: datetime) -> bool:
    """Whether a key that manages keys, and is not about to end by rotation, is left without that one."""
    return any(
        Scope.KEYS_MANAGE in key.scopes
        and key.key_id != without
        and key.replaced_by is None
        and why_ended(key, now) is None
        for key in keys
    )
