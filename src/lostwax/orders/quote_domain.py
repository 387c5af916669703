"""What may happen to a quote, as pure functions."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from lostwax.contracts.ids import derived_id
from lostwax.contracts.orders import OrderRequested, PriceFailure, Quote, Specification
from lostwax.contracts.pricing import Priced, PriceResult
from lostwax.contracts.quotes import PriceQuote, QuotedOption, QuoteRequested, QuoteState


def begin(request: QuoteRequested, now: datetime) -> PriceQuote:
    """Version 1 of a quote, with nothing priced yet."""
    return PriceQuote(
        quote_id=request.quote_id,
        version=1,
        state=QuoteState.REQUESTED,
        account=request.account,
        channel=request.channel,
        reference=request.reference,
        options=tuple(QuotedOption(s) for s in request.options),
        requested_at=request.requested_at,
        updated_at=now,
    )


def price_job(quote_id: UUID, option: int) -> UUID:
    """Id of the price job of an option, numbered from 1; the same however often it is asked."""
    return derived_id("quote-price", str(quote_id), str(option))


def open_jobs(quote: PriceQuote) -> Mapping[UUID, int]:
    """Price jobs whose results count, with the numbers of their options."""
    return {
        price_job(quote.quote_id, number): number
        for number, option in enumerate(quote.options, 1)
        if option.price is None and option.failure is None
    }


def take_prices(
    quote: PriceQuote, results: Mapping[UUID, PriceResult], held_for_days: int, now: datetime
) -> PriceQuote | None:
    """The next version after these results (by job id), or None when none of them counts: an option is answered once.

    Prices are held from when they were made; the quote, until the first of its prices expires."""
    answered: dict[int, QuotedOption] = {}
    for job_id, number in open_jobs(quote).items():
        result = results.get(job_id)
        if result is None:
            continue
        option = quote.options[number - 1]
        if not isinstance(result.result, Priced):
            answered[number] = msgspec.structs.replace(option, failure=result.result.failure)
            continue
        price = Quote(
            quote_id=quote.quote_id,
            amount=result.result.amount,
            currency=result.currency,
            lines=result.result.lines,
            geometry=result.result.geometry,
            tariff_version=result.tariff_version,
            priced_at=now,
            expires_at=now + timedelta(days=held_for_days),
        )
        answered[number] = msgspec.structs.replace(option, price=price)
    return _answer(quote, answered, now) if answered else None


def fail(quote: PriceQuote, failure: PriceFailure, now: datetime) -> PriceQuote | None:
    """The next version when no open option can be priced, for one reason; None when none is open."""
    answered = {n: msgspec.structs.replace(quote.options[n - 1], failure=failure) for n in open_jobs(quote).values()}
    return _answer(quote, answered, now) if answered else None


def _answer(quote: PriceQuote, answered: Mapping[int, QuotedOption], now: datetime) -> PriceQuote:
    options = tuple(answered.get(number, option) for number, option in enumerate(quote.options, 1))
    state, expires_at = QuoteState.REQUESTED, None
    if all(o.price is not None or o.failure is not None for o in options):
        expires_at = min((o.price.expires_at for o in options if o.price is not None), default=None)
        state = QuoteState.FAILED if expires_at is None else QuoteState.PRICED
    return msgspec.structs.replace(
        quote, version=quote.version + 1, state=state, options=options, updated_at=now, expires_at=expires_at
    )


def accepted_price(quote: PriceQuote | None, request: OrderRequested) -> Quote | None:
    """The price at which this order is placed, if what it accepts holds: its own account's quote, priced, not expired
    when the order was requested, at this amount, for this piece. Else None."""
    accepted = request.accepted
    if quote is None or accepted is None or quote.quote_id != accepted.quote_id or quote.account != request.account:
        return None
    if accepted.option > len(quote.options):
        return None
    option = quote.options[accepted.option - 1]
    price = option.price
    if price is None or price.amount != accepted.amount or price.expires_at < request.requested_at:
        return None
    return price if same_piece(option.specification, request.specification) else None


def same_piece(one: Specification, other: Specification) -> bool:
    """Whether two specifications have one price: the same content of the model, made alike. A file's name and a
    deadline do not matter."""
    if one.model.sha256 != other.model.sha256:
        return False
    return msgspec.structs.replace(one, deadline=None) == msgspec.structs.replace(other, deadline=None, model=one.model)
