"""HTTP of clients' quotes."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from lostwax.channel import quotes, quotes_store
from lostwax.channel.api import IDEMPOTENCY_KEY, idempotency_key, storage_known_to_be_away
from lostwax.channel.callers import calling_client
from lostwax.channel.domain import Scope
from lostwax.channel.handlers import Door
from lostwax.channel.quotes import OptionWish, QuoteWish
from lostwax.channel.quotes_store import QuoteRow
from lostwax.contracts.orders import Code, PriceFailure, Quote, Sha256
from lostwax.contracts.quotes import QuotedOption, QuoteState
from lostwax.kit.http import Operation, answer, path_uuid, query
from lostwax.kit.paging import page_parameters, rows_wanted
from lostwax.kit.problems import Problem


class WantedOption(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way of making the model. Lengths in mm. Give a ring size (EU) or a scale, or neither."""

    alloy: Code
    finish: Code
    quantity: Annotated[int, Meta(ge=1, le=1000)] = 1
    ring_size: Annotated[float, Meta(ge=38, le=80)] | None = None
    scale: Annotated[float, Meta(ge=0.1, le=10)] | None = None
    engraving: Annotated[str, Meta(min_length=1, max_length=60)] | None = None


class RequestQuote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one model costs, made in these ways."""

    model: Sha256
    options: Annotated[list[WantedOption], Meta(min_length=1, max_length=24)]
    reference: Annotated[str, Meta(max_length=100)] | None = None


class QuoteAccepted(msgspec.Struct, frozen=True):
    quote_id: UUID
    state: str


class OptionView(msgspec.Struct, frozen=True):
    """One option, by the number to order it by: its price, or why it has none, or neither while it is being priced."""

    option: int
    alloy: str
    finish: str
    quantity: int
    ring_size: float | None = None
    scale: float | None = None
    engraving: str | None = None
    amount: Decimal | None = None
    currency: str | None = None
    price: Quote | None = None
    failure: PriceFailure | None = None


class QuoteView(msgspec.Struct, frozen=True):
    """One of your quotes. `state`: requested, priced (in one option at least), failed, or expired. `version` 0: not yet
    confirmed by the workshop's order book."""

    quote_id: UUID
    version: int
    state: str
    model: str
    requested_at: datetime
    reference: str | None
    options: list[OptionView]
    expires_at: datetime | None = None


class QuotesPage(msgspec.Struct, frozen=True):
    """Newest first. Ask for the next page with `after=<next>`; no `next`: that was all."""

    quotes: list[QuoteView]
    next: UUID | None = None


def operations(door: Door, auth: str) -> list[Operation]:
    async def request_quote(request: Request, body: RequestQuote) -> Response:
        client, key = calling_client(request), idempotency_key(request, "quote")
        for number, option in enumerate(body.options, 1):
            if option.ring_size is not None and option.scale is not None:
                raise Problem(
                    422,
                    "ring-size-or-scale",
                    "Give a ring size or a scale, not both",
                    f"Option {number}: leave out `ring_size` or `scale`.",
                )
        options = tuple(OptionWish(**msgspec.structs.asdict(option)) for option in body.options)
        wish = QuoteWish(body.model, options, body.reference)
        with storage_known_to_be_away():
            quote_id = await quotes.request_quote(door.pool, door.models, door.channel, client, key, wish, now=door.now)
        return answer(QuoteAccepted(quote_id, QuoteState.REQUESTED.value), 202, {"Location": f"/v1/quotes/{quote_id}"})

    async def get_quote(request: Request) -> Response:
        row = await quotes.own_quote(door.pool, calling_client(request), path_uuid(request, "quote_id", "quote"))
        return answer(_view(row, door.now()))

    async def list_quotes(request: Request) -> Response:
        client = calling_client(request)
        limit = rows_wanted(request, most=100, usual=20)
        before = query(request, "after", UUID, None)
        async with door.pool.acquire() as connection:
            rows = await quotes_store.page(connection, client.client_id, before, limit + 1)
        shown = [_view(row, door.now()) for row in rows[:limit]]
        return answer(QuotesPage(shown, shown[-1].quote_id if len(rows) > limit else None))

    page = page_parameters(most=100, usual=20)
    return [
        Operation(
            "POST",
            "/v1/quotes",
            request_quote,
            "Ask what a model costs in up to 24 ways of making it",
            {202: QuoteAccepted},
            {
                409: "the model is not uploaded, or was refused",
                422: "does not fit, unknown model, or the Idempotency-Key was used for another quote",
            },
            body=RequestQuote,
            parameters=(IDEMPOTENCY_KEY,),
            auth=auth,
            scope=Scope.QUOTES_WRITE,
        ),
        Operation(
            "GET",
            "/v1/quotes",
            list_quotes,
            "Your quotes, newest first",
            {200: QuotesPage},
            {400: "a parameter is wrong"},
            parameters=page,
            auth=auth,
            scope=Scope.QUOTES_READ,
        ),
        Operation(
            "GET",
            "/v1/quotes/{quote_id}",
            get_quote,
            "One of your quotes",
            {200: QuoteView},
            {404: "no such quote"},
            auth=auth,
            scope=Scope.QUOTES_READ,
        ),
    ]


def _view(row: QuoteRow, now: datetime) -> QuoteView:
    requested, quote = row.requested, row.quote
    options = [QuotedOption(s) for s in requested.options] if quote is None else quote.options
    state = QuoteState.REQUESTED if quote is None else quote.state
    expires_at = None if quote is None else quote.expires_at
    return QuoteView(
        quote_id=requested.quote_id,
        version=0 if quote is None else quote.version,
        state="expired" if expires_at is not None and expires_at < now else state.value,
        model=requested.options[0].model.sha256,
        requested_at=requested.requested_at,
        reference=requested.reference,
        options=[_option_view(number, option) for number, option in enumerate(options, 1)],
        expires_at=expires_at,
    )


def _option_view(number: int, option: QuotedOption) -> OptionView:
    made, price = option.specification, option.price
    return OptionView(
        option=number,
        alloy=made.alloy,
        finish=made.finish,
        quantity=made.quantity,
        ring_size=made.ring_size,
        scale=made.scale,
        engraving=made.engraving,
        amount=None if price is None else price.amount,
        currency=None if price is None else price.currency,
        price=price,
        failure=option.failure,
    )
