"""Identity: one UUIDv7 follows an order from its first click to its last report; its lowest ten bits place it."""

import hashlib
from datetime import datetime
from uuid import UUID

import uuid_utils

BUCKETS = 1024
"""How many buckets orders, quotes and models are spread over; a shard owns a set of whole buckets."""

PARTITIONS = 8
"""Partitions of every topic whose messages belong to a bucket. A power of two, the same for all of them."""

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in _CROCKFORD for second in _CROCKFORD]


def new_id() -> UUID:
    """A fresh UUIDv7. Its high bits are time; only its lowest bits are evenly spread."""
    return UUID(int=uuid_utils.uuid7().int)


def earliest_id(at: datetime) -> UUID:
    """The lowest UUIDv7 of a moment: every id made before it is lower. To the millisecond."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


def bucket_of(id_: UUID) -> int:
    """Bucket of an order, quote or job, 0 .. 1023: the lowest ten bits of its id.

    uuid7 of uuid_utils counts upwards in the high bits of its tail, so only the low bits are evenly spread.
    """
    return id_.int & (BUCKETS - 1)


def bucket_of_digest(sha256: str) -> int:
    """Bucket of a stored model, 0 .. 1023: the lowest ten bits of its sha-256, given as 64 hex digits."""
    return int(sha256[-3:], 16) & (BUCKETS - 1)


def partition_of(bucket: int) -> int:
    """Partition that carries a bucket's messages, in every topic that is partitioned by bucket."""
    return bucket % PARTITIONS


def short_code(id_: UUID) -> str:
    """What people read out on the telephone: the lowest 50 bits in Crockford base32, as `XXXXX-XXXXX`.

    Not unique by constraint: whoever searches by code must be ready for two answers.
    """
    low = id_.int & ((1 << 50) - 1)
    pairs = _PAIRS
    a, b, c = pairs[low >> 40], pairs[(low >> 30) & 1023], pairs[(low >> 20) & 1023]
    return f"{a}{b}{c[0]}-{c[1]}{pairs[(low >> 10) & 1023]}{pairs[low & 1023]}"


def parse_code(text: str) -> int | None:
    """The 50 bits behind a short code as a person typed it (case, dashes, and O/I/L forgiven), or None."""
    cleaned = text.upper().replace("-", "").replace(" ", "").replace("O", "0").replace("I", "1").replace("L", "1")
    if len(cleaned) != 10 or any(c not in _CROCKFORD for c in cleaned):
        return None
    value = 0
    for c in cleaned:
        value = (value << 5) | _CROCKFORD.index(c)
    return value


def derived_id(*parts: str) -> UUID:
    """An id that is a pure function of its parts, so that a message handled twice produces the same one.

    UUIDv8 (RFC 9562, custom layout): sha-256 of the parts joined by NUL.
    """
    digest = bytearray(hashlib.sha256("\0".join(parts).encode()).digest()[:16])
    digest[6] = (digest[6] & 0x0F) | 0x80
    digest[8] = (digest[8] & 0x3F) | 0x80
    return UUID(bytes=bytes(digest))
