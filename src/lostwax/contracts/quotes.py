"""Quotes: prices of one model in several ways of making it, asked for and held before anything is ordered."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from lostwax.contracts.orders import PriceFailure, Quote, Specification

KEPT = timedelta(days=90)
"""So long after it was asked for, a quote is forgotten by its channel and by Orders: no price holds nearly as long."""

Options = Annotated[tuple[Specification, ...], Meta(min_length=1, max_length=24)]


class QuoteState(StrEnum):
    """PRICED: every option is answered, one at least with a price. FAILED: answered, and none has a price. Whether a
    quote has expired is a matter of the clock and its `expires_at`."""

    REQUESTED = "requested"
    PRICED = "priced"
    FAILED = "failed"


class QuoteRequested(msgspec.Struct, frozen=True):
    """A channel asks what one model costs in these ways. All options name the same model."""

    quote_id: UUID
    account: UUID
    channel: str
    options: Options
    requested_at: datetime
    reference: Annotated[str, Meta(max_length=100)] | None = None


class QuotedOption(msgspec.Struct, frozen=True):
    """One way of making the model: its price, or why it has none, or neither while it is being priced."""

    specification: Specification
    price: Quote | None = None
    failure: PriceFailure | None = None


class PriceQuote(msgspec.Struct, frozen=True):
    """The whole quote at one version, raised by exactly one in each change. `expires_at`: until when every price in it
    is held; null until all options are answered, and when none has a price."""

    quote_id: UUID
    version: int
    state: QuoteState
    account: UUID
    channel: str
    reference: str | None
    options: tuple[QuotedOption, ...]
    requested_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None


class QuoteChanged(msgspec.Struct, frozen=True):
    """The whole quote after a change. Readers keep it if its version is newer than what they have, else drop it."""

    quote: PriceQuote
