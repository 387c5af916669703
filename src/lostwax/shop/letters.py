"""Letters to customers: their words, and which of them an order's changes ask for. `kit/mail.py` sends them."""

import tomllib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import msgspec

from lostwax.channel import store as requests
from lostwax.contracts.ids import derived_id, short_code
from lostwax.contracts.orders import PROMISE, Order, Status
from lostwax.kit.auth import digest_of_key, new_api_key
from lostwax.kit.mail import Letter, filled, withdraw, write
from lostwax.kit.postgres import Connection
from lostwax.shop import store
from lostwax.shop.domain import LINK, LINK_PREFIX, Reader

_WAIT = timedelta(seconds=20)
"""Of letters that the next step, a moment later, makes needless."""

_NEEDLESS_ONCE_APPROVED = ("received", "priced", "unpriced")
_GREETING = {
    "en": ("Hello,", "Dear {name},"),
    "ru": ("Здравствуйте!", "Здравствуйте, {name}!"),
}


class _Words(msgspec.Struct, frozen=True):
    subject: str
    body: str


def _read() -> Mapping[str, Mapping[str, _Words]]:
    text = Path(__file__).with_name("letters.toml").read_text()
    return msgspec.convert(tomllib.loads(text), dict[str, dict[str, _Words]])


WORDS = _read()


def letter(
    kind: str,
    mail_id: UUID,
    reader: Reader,
    path: str,
    *,
    order_id: UUID | None = None,
    until: datetime | None = None,
    values: Mapping[str, str] | None = None,
) -> Letter:
    """A letter of `letters.toml` in its reader's language; `path`: of the link in it."""
    words = WORDS[kind][reader.language]
    nameless, named = _GREETING[reader.language]
    # Whoever gets a letter that they did not ask for gets no word of who did.
    greeting = filled(named, {"name": reader.name}) if reader.confirmed and reader.name else nameless
    said = {**(values or {}), "greeting": greeting}
    if order_id is not None:
        said["code"] = short_code(order_id)
    return Letter(
        mail_id=mail_id,
        address=reader.email,
        subject=" ".join(filled(words.subject, said).split()),
        body=filled(words.body, said).lstrip("\n"),
        kind=kind,
        path=path,
        order_id=order_id,
        until=until,
    )


def wanted(order: Order) -> dict[str, dict[str, str]]:
    """The letters that an order as it is now asks for, and what each says; those that were written before are known by
    their ids. Pure."""
    if order.status is Status.CANCELLED:
        return {"cancelled": {}}
    if order.shipment is not None:
        return {"shipped": {"carrier": order.shipment.carrier, "number": order.shipment.tracking_number}}
    if order.approved_at is not None:
        return {"promised": {"date": f"{order.approved_at + PROMISE:%Y-%m-%d}"}}
    if order.status is Status.PRICE_CALCULATED and (quote := order.quote) is not None:
        return {"priced": {"amount": f"{quote.amount} {quote.currency}", "until": f"{quote.expires_at:%Y-%m-%d}"}}
    if order.status is Status.PRICE_FAILED and order.failure is not None:
        return {"unpriced": {"why": order.failure.detail}}
    return {"received": {}}


def _id(order: Order, kind: str) -> UUID:
    """A price or a failure is told each time that there is a new one, all else once."""
    again = str(order.quote.quote_id) if kind == "priced" and order.quote else ""
    again = str(order.version) if kind == "unpriced" else again
    return derived_id("letter", str(order.order_id), kind, again)


async def keep(connection: Connection, _: Sequence[Order], changed: Sequence[Order]) -> None:
    """Keep changed orders, and write the letters that they ask for in the same transaction."""
    async with connection.transaction():
        newer = set(await requests.take_changes(connection, changed))
        due = [
            (order, kind, values)
            for order in changed
            if order.order_id in newer
            for kind, values in wanted(order).items()
        ]
        if not due:
            return
        now = await connection.fetchval("SELECT now()")
        known = await store.known_letters(connection, [_id(order, kind) for order, kind, _ in due])
        due = [(order, kind, values) for order, kind, values in due if _id(order, kind) not in known]
        readers = await store.readers(connection, [order.order_id for order, _, _ in due])
        await withdraw(
            connection,
            [o.order_id for o, kind, _ in due if kind not in _NEEDLESS_ONCE_APPROVED],
            _NEEDLESS_ONCE_APPROVED,
        )
        early: list[Letter] = []
        at_once: list[Letter] = []
        for order, kind, values in due:
            if (reader := readers.get(order.order_id)) is None:
                continue
            path = await order_link(connection, order.order_id, order.account, now)
            made = letter(kind, _id(order, kind), reader, path, order_id=order.order_id, values=values)
            (early if kind in _NEEDLESS_ONCE_APPROVED else at_once).append(made)
        await write(connection, early, now, _WAIT)
        await write(connection, at_once, now)


async def order_link(connection: Connection, order_id: UUID, customer_id: UUID, now: datetime) -> str:
    """The path of a link for a letter to who ordered: it shows the order, and its holder may answer."""
    token = new_api_key(LINK_PREFIX)
    await store.add_link(connection, digest_of_key(token), order_id, customer_id, now, now + LINK, mailed=True)
    return f"/o/{token}"
