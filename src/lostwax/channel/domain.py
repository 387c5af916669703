"""Who orders, and what may be asked for. Pure."""

from enum import StrEnum
from uuid import UUID

import msgspec


class Client(msgspec.Struct, frozen=True):
    """Whose orders they are: a partner, or somebody who buys in the shop. `name` is shown to operators and travels with
    commands, so a person's name is none."""

    client_id: UUID
    name: str


class Scope(StrEnum):
    """What a credential permits; every operation here needs one of these."""

    ORDERS_READ = "orders:read"
    ORDERS_WRITE = "orders:write"
    MODELS_READ = "models:read"
    MODELS_WRITE = "models:write"
    QUOTES_READ = "quotes:read"
    QUOTES_WRITE = "quotes:write"
