"""Use cases of clients' quotes: asked for, projected from what Orders tells, and accepted with an order."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from lostwax.channel import quotes_store
from lostwax.channel.domain import Client
from lostwax.channel.models import Models, usable_model
from lostwax.channel.quotes_store import QuoteRow, StoredQuote
from lostwax.contracts import topics
from lostwax.contracts.ids import new_id
from lostwax.contracts.orders import AcceptedQuote, Specification
from lostwax.contracts.quotes import PriceQuote, QuoteRequested
from lostwax.kit import outbox
from lostwax.kit.postgres import Pool
from lostwax.kit.problems import Problem, not_found

_encode = msgspec.json.Encoder().encode


class OptionWish(msgspec.Struct, frozen=True):
    """One way of making the model."""

    alloy: str
    finish: str
    quantity: int
    ring_size: float | None
    scale: float | None
    engraving: str | None


class QuoteWish(msgspec.Struct, frozen=True):
    """What a client wants to know the prices of."""

    model: str
    options: tuple[OptionWish, ...]
    reference: str | None


async def request_quote(
    pool: Pool,
    models: Models,
    channel: str,
    client: Client,
    idempotency_key: str,
    wish: QuoteWish,
    *,
    now: Callable[[], datetime],
) -> UUID:
    """Ask Orders for a quote; request and outbox in one transaction. The same key and wish again give the same id;
    another wish under the same key is a 422."""
    request_hash = hashlib.sha256(_encode(wish)).digest()
    async with pool.acquire() as connection:
        before = await quotes_store.stored_under(connection, client.client_id, idempotency_key)
    if before is not None:
        return _if_the_same(before, request_hash)
    model = await usable_model(models, client.client_id, wish.model)
    requested = QuoteRequested(
        quote_id=new_id(),
        account=client.client_id,
        channel=channel,
        options=tuple(Specification(model=model, **msgspec.structs.asdict(option)) for option in wish.options),
        requested_at=now(),
        reference=wish.reference,
    )
    message = outbox.message(topics.QUOTE_REQUESTS, requested.quote_id, requested)
    async with pool.acquire() as connection, connection.transaction():
        before = await quotes_store.insert(connection, client.client_id, idempotency_key, request_hash, requested)
        if before is None:
            await outbox.add(connection, [message])
            return requested.quote_id
    return _if_the_same(before, request_hash)


def _if_the_same(stored: StoredQuote, request_hash: bytes) -> UUID:
    if stored.request_hash != request_hash:
        raise Problem(
            422,
            "idempotency-key-reused",
            "This Idempotency-Key was used for another quote",
            "Use a fresh key for each quote, and the same key only to ask for the same quote again.",
            quote_id=str(stored.quote_id),
        )
    return stored.quote_id


async def own_quote(pool: Pool, client: Client, quote_id: UUID) -> QuoteRow:
    """Raises the 404 Problem for another's quote as for one that never was."""
    async with pool.acquire() as connection:
        row = await quotes_store.quote(connection, client.client_id, quote_id)
    if row is None:
        raise not_found("quote")
    return row


async def check_accepted(
    pool: Pool, client: Client, accepted: AcceptedQuote, specification: Specification, now: datetime
) -> None:
    """Raises the Problem for an acceptance that is known not to hold; Orders decides in the end."""
    async with pool.acquire() as connection:
        row = await quotes_store.quote(connection, client.client_id, accepted.quote_id)
    if row is None:
        raise Problem(422, "quote-unknown", "No such quote", "Name a quote of yours: GET /v1/quotes lists them.")
    options = len(row.requested.options)
    if accepted.option > options:
        raise Problem(422, "option-unknown", "No such option", f"The quote has options 1 to {options}.")
    option = None if row.quote is None else row.quote.options[accepted.option - 1]
    if option is None or option.price is None:
        why = "It is being priced still." if option is None or option.failure is None else option.failure.detail
        raise Problem(409, "quote-not-priced", "This option has no price", why)
    price = option.price
    if price.expires_at < now:
        raise Problem(
            409, "quote-expired", "The quote has expired", f"It was held until {price.expires_at}. Ask for a new one."
        )
    if price.amount != accepted.amount:
        raise Problem(
            409, "amount-differs", "This is not the quoted amount", f"The price is {price.amount} {price.currency}."
        )
    if differs := _differences(option.specification, specification):
        raise Problem(
            422,
            "quote-differs",
            "The quote is for another piece",
            f"{', '.join(differs)}: as in option {accepted.option} of the quote, or order without a quote.",
        )


def _differences(quoted: Specification, wanted: Specification) -> list[str]:
    """Names of the fields that make it another piece."""
    names = [] if quoted.model.sha256 == wanted.model.sha256 else ["model"]
    return names + [
        name
        for name in ("alloy", "finish", "quantity", "ring_size", "scale", "engraving")
        if getattr(quoted, name) != getattr(wanted, name)
    ]


async def take_changes(pool: Pool, channel: str, quotes: Sequence[PriceQuote]) -> None:
    """Keep what Orders says of this channel's quotes, the newest version of each."""
    newest: dict[UUID, PriceQuote] = {}
    for quote in quotes:
        if quote.channel == channel and (
            quote.quote_id not in newest or newest[quote.quote_id].version < quote.version
        ):
            newest[quote.quote_id] = quote
    if newest:
        async with pool.acquire() as connection:
            await quotes_store.take_changes(connection, [newest[i] for i in sorted(newest)])
