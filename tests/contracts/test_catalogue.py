"""Messages: each type of the catalogue round-trips, a bad one fails in its producer, a newer one is still read."""

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from tests.builders import (
    ACCOUNT,
    NOON,
    NOT_CLOSED,
    PARTNER,
    a_command,
    a_digest,
    a_price,
    a_quote_request,
    a_request,
    a_specification,
    an_order,
)

from lostwax.contracts import catalogue, conversation, models, orders, pricing, quotes, staff
from lostwax.contracts.ids import new_id
from lostwax.contracts.orders import (
    Approve,
    CompleteManufacturing,
    Pack,
    ReleaseClaim,
    Ship,
    Shipment,
    StartManufacturing,
    Status,
)
from lostwax.orders import quote_domain
from lostwax.orders.changes import load_tariff

FULL = a_specification(scale=1.25, engraving='für immer "2026"', deadline=date(2026, 12, 24), quantity=1000)

EXAMPLES: list[msgspec.Struct] = [
    a_request(),
    a_request(specification=FULL, reference=None, approve_up_to=Decimal("129.50")),
    *[orders.OrderChanged(an_order(status)) for status in Status],
    a_command(an_order(), Approve(quote_id=new_id(), amount=Decimal("129.50")), PARTNER),
    a_command(an_order(), StartManufacturing(claim_id=new_id())),
    a_command(an_order(), ReleaseClaim(claim_id=new_id(), reason="out of wax")),
    a_command(an_order(), CompleteManufacturing()),
    a_command(an_order(), Pack()),
    a_command(an_order(), Ship(Shipment("DHL", "42"))),
    orders.Outcome(new_id(), new_id(), True, 3, Status.MANUFACTURING_APPROVED, NOON),
    orders.Outcome(new_id(), new_id(), False, 3, Status.CANCELLED, NOON, "stale", "The order has changed."),
    orders.ModelReady(new_id(), a_digest()),
    orders.ModelReady(new_id(), a_digest(), NOT_CLOSED),
    a_request(accepted=orders.AcceptedQuote(new_id(), 1, Decimal("129.50"))),
    a_quote_request(),
    quotes.QuoteChanged(quote_domain.begin(a_quote_request(FULL), NOON)),
    models.ModelUploaded(a_digest(), 84, ACCOUNT, "staging-partner-api", "a/b"),
    models.ModelNeeded(a_digest(), new_id(), ACCOUNT),
    models.ModelStored(a_digest(), ACCOUNT, 84),
    models.ModelStored(a_digest(), ACCOUNT, 84, NOT_CLOSED),
    models.ModelReferenced(a_digest(), ACCOUNT, "order"),
    models.ModelReferenced(a_digest(), ACCOUNT, "quote", NOON),
    pricing.PriceRequest(new_id(), new_id(), ACCOUNT, FULL, load_tariff("2026-11")),
    a_price(new_id(), new_id()),
    a_price(new_id(), new_id(), failure=NOT_CLOSED),
    staff.StaffChanged(new_id(), "Dora", staff.Role.SUPERVISOR, True, 1),
    conversation.MessageSent(new_id(), new_id(), "shop", conversation.Side.CUSTOMER, "guest", "Когда?", NOON),
]


def name_of(example: msgspec.Struct) -> str:
    return type(example).__name__


def test_every_type_of_the_catalogue_has_an_example_here() -> None:
    assert {type(example) for example in EXAMPLES} == {t.struct for t in catalogue.TYPES}


def test_names_are_unique_and_versioned() -> None:
    names = [t.name for t in catalogue.TYPES]
    assert len(set(names)) == len(names)
    assert all(name.rpartition(".v")[2].isdigit() for name in names)
    assert all(catalogue.knows(name) for name in names)
    assert not catalogue.knows("orders.order_requested.v99")


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_round_trip(example: msgspec.Struct) -> None:
    assert catalogue.decode(catalogue.type_of(example).name, catalogue.encode(example)) == example


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_a_field_of_a_wrong_type_does_not_leave_its_producer(example: msgspec.Struct) -> None:
    for field in example.__struct_fields__:
        wrong = msgspec.structs.replace(example, **{field: [["wrong"]]})
        with pytest.raises(msgspec.ValidationError):
            catalogue.encode(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        a_request(specification=a_specification(quantity=0)),
        a_request(specification=a_specification(quantity=1001)),
        a_request(specification=a_specification(ring_size=37.9)),
        a_request(specification=a_specification(scale=10.1)),
        a_request(specification=a_specification(alloy="Gold 14K")),
        a_request(specification=a_specification(engraving="x" * 61)),
        a_request(reference="x" * 101),
        models.ModelUploaded("A" * 64, 84, ACCOUNT, "staging", "k"),
        models.ModelUploaded("a" * 63, 84, ACCOUNT, "staging", "k"),
        models.ModelUploaded(a_digest(), 0, ACCOUNT, "staging", "k"),
        a_command(an_order(), ReleaseClaim(claim_id=new_id(), reason="")),
        a_command(an_order(), Ship(Shipment("", "42"))),
    ],
)
def test_a_value_out_of_range_does_not_leave_its_producer(wrong: msgspec.Struct) -> None:
    with pytest.raises(msgspec.ValidationError):
        catalogue.encode(wrong)


def test_what_is_no_message_cannot_be_encoded() -> None:
    with pytest.raises(KeyError):
        catalogue.encode(a_specification())


def with_unknown_fields(value: Any) -> Any:
    """The same JSON with a field more in every object that is a struct; dicts of alloys stay as they are."""
    if isinstance(value, dict):
        wider = {k: v if k in ("alloys", "finishes") else with_unknown_fields(v) for k, v in value.items()}
        return {**wider, "added_in_2031": {"a": [1]}}
    if isinstance(value, list):
        return [with_unknown_fields(v) for v in value]
    return value


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_unknown_fields_are_ignored_at_any_depth(example: msgspec.Struct) -> None:
    wider = msgspec.json.encode(with_unknown_fields(msgspec.json.decode(catalogue.encode(example))))
    assert b"added_in_2031" in wider
    assert catalogue.decode(catalogue.type_of(example).name, wider) == example


def test_a_missing_field_is_malformed() -> None:
    example = EXAMPLES[0]
    raw = msgspec.json.decode(catalogue.encode(example))
    del raw["specification"]
    with pytest.raises(msgspec.ValidationError):
        catalogue.decode(catalogue.type_of(example).name, msgspec.json.encode(raw))


def test_headers_are_those_of_cloudevents() -> None:
    headers = catalogue.cloud_headers(
        "id-1", "orders.command.v1", "mes", NOON, "00-" + "1" * 32 + "-" + "2" * 16 + "-00"
    )
    assert headers == {
        "ce_specversion": "1.0",
        "ce_id": "id-1",
        "ce_type": "orders.command.v1",
        "ce_source": "mes",
        "ce_time": "2026-11-02T12:00:00.123000+00:00",
        "content-type": "application/json",
        "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-00",
    }
    assert "traceparent" not in catalogue.cloud_headers("id-1", "orders.command.v1", "mes", NOON + timedelta(1), None)
