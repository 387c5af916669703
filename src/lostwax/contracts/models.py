"""Models on their way from a channel's staging into the model store. A stored model's key is its sha-256."""

from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from lostwax.contracts.orders import PriceFailure, Sha256


class ModelUploaded(msgspec.Struct, frozen=True):
    """A channel saw the whole file in its staging bucket; Orders is to bring it into the model store."""

    sha256: Sha256
    size_bytes: Annotated[int, Meta(ge=1)]
    account: UUID
    bucket: str
    key: str


class ModelNeeded(msgspec.Struct, frozen=True):
    """An order waits for a model. Answered by one ModelReady, at once or when the model has been stored.

    `account` is the order's: a transfer that failed for one account says nothing of another's upload.
    """

    sha256: Sha256
    order_id: UUID
    account: UUID


class ModelStored(msgspec.Struct, frozen=True):
    """A transfer ended: the model is in the store under its sha-256, or it was refused (`failure`)."""

    sha256: Sha256
    account: UUID
    size_bytes: int
    failure: PriceFailure | None = None
