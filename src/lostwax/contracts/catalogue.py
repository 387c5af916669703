"""The catalogue of message types: a chosen, versioned name for each, never a class path.

Unknown fields of a known type are ignored; an unknown type is counted and skipped by its reader; a malformed message
of a known type is dead-lettered. A new member of an enum breaks old readers: it is a v2 beside the v1.
"""

from collections.abc import Callable
from datetime import datetime
from operator import attrgetter
from typing import Any

import msgspec

from lostwax.contracts import conversation, models, orders, pricing, quotes, staff, topics
from lostwax.contracts.topics import Topic


class EventType(msgspec.Struct, frozen=True):
    name: str
    struct: type[msgspec.Struct]
    topics: tuple[Topic, ...]


TYPES: tuple[EventType, ...] = (
    EventType("orders.order_requested.v1", orders.OrderRequested, (topics.ORDER_REQUESTS,)),
    EventType("orders.order_changed.v1", orders.OrderChanged, (topics.ORDER_CHANGES,)),
    EventType("orders.command.v1", orders.Command, (topics.ORDER_COMMANDS,)),
    EventType("orders.outcome.v1", orders.Outcome, (topics.ORDER_OUTCOMES,)),
    EventType("orders.message_sent.v1", conversation.MessageSent, (topics.ORDER_MESSAGES,)),
    EventType("orders.model_ready.v1", orders.ModelReady, (topics.ORDER_MODELS,)),
    EventType("quotes.quote_requested.v1", quotes.QuoteRequested, (topics.QUOTE_REQUESTS,)),
    EventType("quotes.quote_changed.v1", quotes.QuoteChanged, (topics.QUOTE_CHANGES,)),
    EventType("models.model_uploaded.v1", models.ModelUploaded, (topics.MODEL_TRANSFERS,)),
    EventType("models.model_needed.v1", models.ModelNeeded, (topics.MODEL_TRANSFERS,)),
    EventType("models.model_referenced.v1", models.ModelReferenced, (topics.MODEL_TRANSFERS,)),
    EventType("models.model_stored.v1", models.ModelStored, (topics.MODEL_STORED,)),
    EventType("pricing.price_requested.v1", pricing.PriceRequest, (topics.PRICING_QUICK, topics.PRICING_HEAVY)),
    EventType("pricing.price_result.v1", pricing.PriceResult, (topics.PRICING_RESULTS,)),
    EventType("crm.staff_changed.v1", staff.StaffChanged, (topics.STAFF_CHANGES,)),
)

_BY_NAME = {t.name: t for t in TYPES}
_BY_STRUCT = {t.struct: t for t in TYPES}
_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {t.name: msgspec.json.Decoder(t.struct) for t in TYPES}
_ENCODER = msgspec.json.Encoder()


def _subject_getter(struct: type[msgspec.Struct]) -> Callable[[Any], object]:
    fields = {field.name for field in msgspec.structs.fields(struct)}
    if "order" in fields:
        return attrgetter("order.order_id")
    if "quote" in fields:
        return attrgetter("quote.quote_id")
    return attrgetter(next((name for name in _SUBJECTS if name in fields), "__class__.__name__"))


_SUBJECTS = ("order_id", "subject_id", "quote_id", "sha256", "staff_id")
_SUBJECT_OF = {t.struct: _subject_getter(t.struct) for t in TYPES}


def subject_of(message: msgspec.Struct) -> str:
    """Id of what a message is about: its order, else its quote, model or member of staff."""
    return str(_SUBJECT_OF[type(message)](message))


def type_of(message: msgspec.Struct) -> EventType:
    """The registered type of a message. Raises KeyError for a struct that is no message."""
    return _BY_STRUCT[type(message)]


def knows(type_name: str) -> bool:
    return type_name in _BY_NAME


def encode(message: msgspec.Struct) -> bytes:
    """JSON of a message, proven to decode: msgspec does not validate on construction, so a bad event must fail here,
    in its producer's own transaction. Raises msgspec.ValidationError."""
    payload = _ENCODER.encode(message)
    _DECODERS[_BY_STRUCT[type(message)].name].decode(payload)
    return payload


def decode(type_name: str, payload: bytes) -> Any:
    """The message of a known type. Raises msgspec.ValidationError or msgspec.DecodeError when malformed."""
    return _DECODERS[type_name].decode(payload)


def cloud_headers(
    message_id: str, type_name: str, source: str, at: datetime, traceparent: str | None
) -> dict[str, str]:
    """CloudEvents 1.0 attributes in Kafka's binary mode (header names prefixed `ce_`), plus W3C traceparent."""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": message_id,
        "ce_type": type_name,
        "ce_source": source,
        "ce_time": at.isoformat(),
        "content-type": "application/json",
    }
    if traceparent:
        headers["traceparent"] = traceparent
    return headers
