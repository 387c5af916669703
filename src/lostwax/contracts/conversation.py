"""What customers and sellers say to each other about an order, as the doors and the desk tell each other."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

MOST_CHARACTERS = 2000


class Side(StrEnum):
    CUSTOMER = "customer"
    SELLER = "seller"


class MessageSent(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that one side says to the other about an order. Readers keep it once, by `message_id`. `channel`: the
    door that the order came by, where its customer reads it. `name`: what the other side may know of who says it.
    `asks`: an answer is waited for. `layout_id`, `revision`: the layout that it is about; it lets nobody in."""

    message_id: UUID
    order_id: UUID
    channel: Annotated[str, Meta(min_length=1, max_length=40)]
    side: Side
    name: Annotated[str, Meta(min_length=1, max_length=100)]
    text: Annotated[str, Meta(min_length=1, max_length=MOST_CHARACTERS)]
    sent_at: datetime
    asks: bool = False
    layout_id: UUID | None = None
    revision: Annotated[int, Meta(ge=1)] | None = None
