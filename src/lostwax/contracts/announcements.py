"""The small REST command by which a channel announces batches of order requests to Orders, and is told how fast it may
publish them. The requests themselves travel by Kafka; Orders creates an order from those alone."""

import hashlib
from collections.abc import Iterable
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from lostwax.contracts.orders import Sha256

MOST = 1000
"""Requests in one announcement."""


class Announcement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requests that a channel has accepted and that Orders will receive. Announcing one twice changes nothing."""

    order_ids: Annotated[list[UUID], Meta(min_length=1, max_length=MOST)]
    count: int
    digest: Sha256


class Granted(msgspec.Struct, frozen=True):
    """How fast this channel may publish requests now: a second's worth, or None for as fast as it can."""

    rate_per_s: float | None = None


def digest_of(order_ids: Iterable[UUID]) -> str:
    """Digest of an announcement: sha-256 over the ids' sixteen bytes each, in ascending order."""
    return hashlib.sha256(b"".join(i.bytes for i in sorted(order_ids))).hexdigest()
