"""Models on their way from a channel's staging into the model store. A stored model's key is its sha-256."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from lostwax.contracts.orders import PriceFailure, Sha256


class ModelUploaded(msgspec.Struct, frozen=True):
    """A channel saw the whole file in its staging bucket; Orders is to bring it into the model store.

    `upload` counts the account's uploads of this model, by its channel, from 1; 0: from before they were counted.
    """

    sha256: Sha256
    size_bytes: Annotated[int, Meta(ge=1)]
    account: UUID
    bucket: str
    key: str
    upload: Annotated[int, Meta(ge=0)] = 0


class ModelNeeded(msgspec.Struct, frozen=True):
    """An order waits for a model. Answered by one ModelReady, at once or when the model has been stored.

    `account` is the order's: a transfer that failed for one account says nothing of another's upload. `upload` is the
    account's last one when the order was made: the refusal of an earlier one says nothing of it either. `until` is set
    for a quote, which needs the model so long; an order needs it for ever.
    """

    sha256: Sha256
    order_id: UUID
    account: UUID
    upload: Annotated[int, Meta(ge=0)] = 0
    until: datetime | None = None


class ModelStored(msgspec.Struct, frozen=True):
    """A transfer ended: the model is in the store under its sha-256, or it was refused (`failure`). Refused with the
    code MODEL_REMOVED: it was stored, and has been removed because nothing referred to it for long."""

    sha256: Sha256
    account: UUID
    size_bytes: int
    failure: PriceFailure | None = None
    upload: Annotated[int, Meta(ge=0)] = 0


class ModelReferenced(msgspec.Struct, frozen=True):
    """Something of an account's needs a stored model until then (null: for ever). `kind` order: all of the account's
    orders; quote: its quotes. Told again with a later end it is extended, never shortened."""

    sha256: Sha256
    account: UUID
    kind: Literal["order", "quote"]
    until: datetime | None = None


MODEL_REMOVED = "model_removed"
