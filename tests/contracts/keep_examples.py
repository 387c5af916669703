"""Add to `schemas/examples/` what shows something of today's messages that no kept example shows yet.

    .lostwax/venv/bin/python -m tests.contracts.keep_examples [--captured]

With --captured first from a stack of its own, on which orders travel from door to door; then from the builders. A file
once written is never written again: it is the memory of what producers wrote at that time.
"""

import asyncio
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from tests.builders import (
    ACCOUNT,
    NOON,
    NOT_CLOSED,
    OPERATOR,
    PARTNER,
    SELLER,
    SYSTEM,
    a_command,
    a_digest,
    a_geometry,
    a_price,
    a_quote,
    a_quote_request,
    a_request,
    a_specification,
    an_order,
    records_of,
)

from lostwax.contracts import catalogue, conversation, models, orders, pricing, quotes, staff, topics
from lostwax.contracts.ids import new_id
from lostwax.contracts.orders import Action, Actor, ActorKind, Status
from lostwax.orders import quote_domain
from lostwax.orders.changes import load_tariff
from lostwax.schemas.events import event_schema
from lostwax.schemas.folder import EXAMPLES

Schema = Mapping[str, Any]


def facets_of(schema: Schema, message: Any) -> set[str]:
    """What a message shows of its schema: each field that has a value, each member of an enum, each tag."""
    return set(_facets(schema, schema, "", message))


def all_facets(schema: Schema) -> set[str]:
    """What messages of this schema can show."""
    return set(_facets(schema, schema, "", _EVERYTHING))


_EVERYTHING: Any = object()


def _facets(root: Schema, schema: Any, at: str, value: Any, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    if not isinstance(schema, Mapping):
        return
    if "$ref" in schema:
        at = schema["$ref"].rpartition("/")[2]
        if value is _EVERYTHING and at in seen:
            return
        yield from _facets(root, root["$defs"][at], at, value, seen | {at})
        return
    for option in schema.get("anyOf", ()):
        if value is _EVERYTHING or _fits(root, option, value):
            yield from _facets(root, option, at, value, seen)
    for member in schema.get("enum", ()):
        if value is _EVERYTHING or value == member:
            yield f"{at}={member}"
    for name, field in schema.get("properties", {}).items():
        inner = _EVERYTHING if value is _EVERYTHING else value.get(name)
        if inner is not None:
            yield f"{at}.{name}"
            yield from _facets(root, field, f"{at}.{name}", inner, seen)
    for part in (schema.get("items"), schema.get("additionalProperties"), *schema.get("prefixItems", ())):
        inside = [_EVERYTHING] if value is _EVERYTHING else value.values() if isinstance(value, dict) else value
        for inner in inside if isinstance(part, Mapping) else ():
            yield from _facets(root, part, at, inner, seen)


def _fits(root: Schema, option: Schema, value: Any) -> bool:
    while "$ref" in option:
        option = root["$defs"][option["$ref"].rpartition("/")[2]]
    if value is None or option.get("type") == "null":
        return value is None and option.get("type") == "null"
    tag = option.get("properties", {}).get("type", {}).get("enum")
    return tag is None or (isinstance(value, dict) and value.get("type") in tag)


def kept(type_name: str, folder: Path = EXAMPLES) -> list[Path]:
    return sorted((folder / type_name).glob("*.json"))


def keep(candidates: Iterable[msgspec.Struct], origin: str, folder: Path = EXAMPLES) -> int:
    """Keep those candidates that show something new; returns how many."""
    shown: dict[str, set[str]] = {}
    added = 0
    for candidate in candidates:
        type_ = catalogue.type_of(candidate)
        schema = event_schema(type_)
        if type_.name not in shown:
            shown[type_.name] = set()
            for path in kept(type_.name, folder):
                shown[type_.name] |= facets_of(schema, json.loads(path.read_bytes()))
        message = json.loads(catalogue.encode(candidate))
        facets = facets_of(schema, message)
        if facets <= shown[type_.name]:
            continue
        shown[type_.name] |= facets
        number = sum(p.name.startswith(origin) for p in kept(type_.name, folder)) + 1
        path = folder / type_.name / f"{origin}-{number:03}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as file:
            file.write(json.dumps(message, indent=2, ensure_ascii=False) + "\n")
        added += 1
    return added


def built() -> Iterator[msgspec.Struct]:
    """Messages of every kind, by the builders."""
    full = a_specification(scale=1.25, engraving='für immer "2026"', deadline=date(2026, 12, 24), quantity=1000)
    yield a_request(specification=full, approve_up_to=Decimal("129.50"))
    yield a_request(reference=None)
    yield a_request(accepted=orders.AcceptedQuote(new_id(), 2, Decimal("129.50")))
    asked = a_quote_request(full)
    yield asked
    for state in quotes.QuoteState:
        begun = quote_domain.begin(asked, NOON)
        option = quotes.QuotedOption(full, a_quote(geometry=a_geometry(notes=("n",), kernel="mesh-1")), NOT_CLOSED)
        yield quotes.QuoteChanged(msgspec.structs.replace(begun, state=state, options=(option,), expires_at=NOON))
    geometry = a_geometry(notes=("two shells that touch",), kernel="mesh-1")
    for status in Status:
        step = orders.Transition(Status.SUBMITTED, status, SELLER, NOON, "as it is", new_id())
        priced = a_quote(geometry=geometry)
        plain = an_order(status)
        yield orders.OrderChanged(plain)
        yield orders.OrderChanged(
            msgspec.structs.replace(
                plain, specification=full, transition=step, approve_up_to=Decimal(200), quote=plain.quote and priced
            )
        )
        yield orders.Outcome(new_id(), new_id(), False, 3, status, NOON, "stale", "The order has changed.")
    actions: list[tuple[Action, Actor]] = [
        (orders.Approve(new_id(), Decimal("129.50")), PARTNER),
        (orders.StartManufacturing(new_id()), OPERATOR),
        (orders.ReleaseClaim(new_id(), "held too long"), SYSTEM),
        (orders.CompleteManufacturing(), OPERATOR),
        (orders.Pack(), OPERATOR),
        (orders.Ship(orders.Shipment("DHL", "42")), OPERATOR),
        (orders.Rework("a pore in the shank"), OPERATOR),
        (orders.Resubmit(full), PARTNER),
        (orders.Hold("the stone is late"), SELLER),
        (orders.Resume(), SELLER),
        (orders.Cancel("changed my mind"), PARTNER),
        (orders.Close(), SYSTEM),
    ]
    for action, actor in actions:
        yield a_command(an_order(), action, actor)
    for kind in ActorKind:
        someone = Actor(kind, "0197f0a0-0000-7000-8000-0000000000d4", "Dora")
        yield a_command(an_order(), orders.Cancel("changed my mind"), someone)
        step = orders.Transition(Status.PACKAGING, Status.SHIPPED, someone, NOON)
        yield orders.OrderChanged(an_order(Status.SHIPPED, transition=step))
    yield orders.ModelReady(new_id(), a_digest(), NOT_CLOSED)
    yield models.ModelUploaded(a_digest(), 84, ACCOUNT, "staging-partner-api", "a/b")
    yield models.ModelNeeded(a_digest(), new_id(), ACCOUNT)
    yield models.ModelNeeded(a_digest(), new_id(), ACCOUNT, 1, NOON)
    yield models.ModelStored(a_digest(), ACCOUNT, 84, NOT_CLOSED)
    yield models.ModelReferenced(a_digest(), ACCOUNT, "order")
    yield models.ModelReferenced(a_digest(), ACCOUNT, "quote", NOON)
    yield pricing.PriceRequest(new_id(), new_id(), ACCOUNT, full, load_tariff("2026-11"))
    yield a_price(new_id(), new_id(), failure=NOT_CLOSED)
    for role in staff.Role:
        yield staff.StaffChanged(new_id(), "Dora", role, role is not staff.Role.SELLER, 2)
    for side in conversation.Side:
        said = conversation.MessageSent(new_id(), new_id(), "shop", side, "Klara", "Ist es so recht?", NOON)
        yield said
        yield msgspec.structs.replace(said, asks=True, layout_id=new_id(), revision=2)
    line = a_quote().lines
    yield pricing.PriceResult(
        new_id(), UUID(int=new_id().int), "EUR", "2026-11", pricing.Priced(Decimal("129.50"), line, geometry)
    )


def captured() -> list[msgspec.Struct]:
    """Everything that services of today write while robots order, cancel, rework and ship a few pieces."""
    from lostwax.cli.audit import databases_of
    from lostwax.demo.run import ship_orders
    from lostwax.local.places import STACKS
    from lostwax.local.stack import Stack

    stack = Stack.start(STACKS / f"test-examples-{os.getpid()}", owned=True, fresh=True)
    try:
        databases = databases_of(stack)
        run = ship_orders(
            stack, databases, 60, stack.folder / "run", seed=3, show=lambda _: None, limit_s=150, eventful=True
        )
        asyncio.run(run)
        found = []
        for record in records_of(stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"], [t.name for t in topics.ALL]):
            type_name = dict(record.headers() or [])["ce_type"]
            found.append(catalogue.decode(bytes(type_name).decode(), record.value() or b""))
        return found
    finally:
        stack.down(remove=True)


if __name__ == "__main__":
    if "--captured" in sys.argv[1:]:
        print(keep(captured(), "captured"), "captured")
    print(keep(built(), "built"), "built")
