"""Who works here, as services tell each other. Credentials never leave the service that owns the accounts."""

from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta


class Role(StrEnum):
    """What somebody of the staff may do. Each is an ActorKind of the same name."""

    SELLER = "seller"
    OPERATOR = "operator"
    SUPERVISOR = "supervisor"
    ADMINISTRATOR = "administrator"


class StaffChanged(msgspec.Struct, frozen=True):
    """A member of the staff after a change of their account. Readers keep it if its version is newer than what they
    have. Not `active`: withdrawn, for ever; what they did stays under their name."""

    staff_id: UUID
    name: Annotated[str, Meta(min_length=1, max_length=100)]
    role: Role
    active: bool
    version: Annotated[int, Meta(ge=1)]
