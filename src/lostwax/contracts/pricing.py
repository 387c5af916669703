"""Price requests and results, and the tariff that every request carries so that pricing needs no state.

Amounts are decimals in the tariff's currency; densities g/cm3; lengths mm; times s.
"""

from decimal import Decimal
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from lostwax.contracts.orders import Code, Geometry, PriceFailure, PriceLine, Specification

Rate = Annotated[Decimal, Meta(description="a factor, e.g. 0.08 for 8 per cent")]


class AlloyTerms(msgspec.Struct, frozen=True):
    """Metal: `spot_per_g` as bought; `casting_loss` of the weight is not recovered; `markup` on the metal's cost."""

    name: str
    density_g_cm3: Decimal
    spot_per_g: Decimal
    casting_loss: Rate
    markup: Rate
    minimum_wall_mm: Decimal


class FinishTerms(msgspec.Struct, frozen=True):
    """Finishing or plating: a part for each piece and a part by surface."""

    name: str
    per_piece: Decimal
    per_cm2: Decimal


class PrintTerms(msgspec.Struct, frozen=True):
    """Castable resin print. Machine time of one piece, s: `start_s` + `layer_s` x floor(height / `layer_mm`)."""

    layer_mm: Decimal
    start_s: Decimal
    layer_s: Decimal
    machine_per_hour: Decimal
    resin_per_cm3: Decimal
    support_share: Rate


class QuantityBreak(msgspec.Struct, frozen=True):
    """From `pieces` upwards the work (not the metal) costs `factor` of its single price."""

    pieces: int
    factor: Rate


class Tariff(msgspec.Struct, frozen=True):
    """Everything that turns a geometry into a price. Immutable under its `version`; every quote names it."""

    version: str
    currency: str
    alloys: dict[Code, AlloyTerms]
    finishes: dict[Code, FinishTerms]
    print: PrintTerms
    sprue_share: Rate
    sprue_returned: Rate
    casting_per_piece: Decimal
    engraving_per_piece: Decimal
    setup_per_order: Decimal
    handling_per_order: Decimal
    quantity_breaks: tuple[QuantityBreak, ...]
    margin: Rate
    minimum_charge: Decimal
    rounding: Decimal
    held_for_days: int


class PriceRequest(msgspec.Struct, frozen=True):
    """Price `specification` by `tariff`. `subject_id` is the order (later: quote) that asks; results go by it."""

    job_id: UUID
    subject_id: UUID
    account: UUID
    specification: Specification
    tariff: Tariff


class Priced(msgspec.Struct, frozen=True, tag="priced"):
    amount: Decimal
    lines: tuple[PriceLine, ...]
    geometry: Geometry


class NotPriced(msgspec.Struct, frozen=True, tag="not_priced"):
    failure: PriceFailure


class PriceResult(msgspec.Struct, frozen=True):
    """Answer to one job. It counts only while `job_id` is the subject's current job."""

    job_id: UUID
    subject_id: UUID
    currency: str
    tariff_version: str
    result: Priced | NotPriced
