"""Prices: laws that hold for every geometry and tariff, and a few worked by hand."""

from decimal import Decimal
from importlib.resources import files
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lostwax.contracts import orders, pricing
from lostwax.contracts.orders import Geometry, ModelRef, Specification
from lostwax.contracts.pricing import NotPriced, Priced, QuantityBreak, Tariff
from lostwax.pricing.domain import price, print_seconds
from lostwax.pricing.measure import UNIT_NOTE, MeasuredModels, scaled

TARIFF = msgspec.json.decode(files("lostwax.orders").joinpath("tariffs/2026-11.json").read_bytes(), type=Tariff)


def a_geometry(**changed: Any) -> Geometry:
    ring = Geometry(350.0, 600.0, (20.0, 21.0, 4.0), 5000, True, (), "test")
    return msgspec.structs.replace(ring, **changed)


def a_specification(**changed: Any) -> Specification:
    plain = Specification(ModelRef("0" * 64, 1, "ring.stl"), "sterling-925", "as-cast")
    return msgspec.structs.replace(plain, **changed)


def a_tariff(**changed: Any) -> Tariff:
    return msgspec.structs.replace(TARIFF, **changed)


def priced(geometry: Geometry, specification: Specification, tariff: Tariff = TARIFF) -> Priced:
    result = price(geometry, specification, tariff)
    assert isinstance(result, Priced), result
    return result


def refused(geometry: Geometry, specification: Specification) -> orders.PriceFailure:
    result = price(geometry, specification, TARIFF)
    assert isinstance(result, NotPriced), result
    return result.failure


side = st.floats(1.5, 250)
geometries = st.builds(
    lambda x, y, z, fill, fold: a_geometry(
        box_mm=(x, y, z), volume_mm3=x * y * z * fill, area_mm2=2 * (x * y + y * z + z * x) * fold
    ),
    side, side, side, st.floats(0.01, 1), st.floats(0.2, 3),
)  # fmt: skip
specifications = st.builds(
    a_specification,
    alloy=st.sampled_from(sorted(TARIFF.alloys)),
    finish=st.sampled_from(sorted(TARIFF.finishes)),
    quantity=st.integers(1, 1000),
    engraving=st.sampled_from([None, "A & O"]),
)
tariffs = st.builds(
    lambda *terms: a_tariff(
        quantity_breaks=tuple(QuantityBreak(n, Decimal(f) / 100) for n, f in terms[0]),
        margin=Decimal(terms[1]) / 100, minimum_charge=Decimal(terms[2]), rounding=Decimal(terms[3]),
    ),
    st.lists(st.tuples(st.integers(2, 400), st.integers(30, 100)), max_size=4),
    st.integers(0, 200), st.integers(0, 500), st.sampled_from(["0", "0.01", "0.05", "0.5", "1", "5"]),
)  # fmt: skip


@given(geometries, specifications, tariffs)
def test_the_lines_sum_to_the_amount_and_each_is_quantity_times_price(
    geometry: Geometry, specification: Specification, tariff: Tariff
) -> None:
    result = priced(geometry, specification, tariff)
    assert sum(line.amount for line in result.lines) == result.amount
    for line in result.lines:
        assert line.amount == (line.quantity * line.unit_price).quantize(Decimal("0.01"), "ROUND_HALF_UP")
        assert line.amount != 0
    assert result.amount >= tariff.minimum_charge
    assert tariff.rounding == 0 or result.amount % tariff.rounding == 0
    assert result.geometry == geometry
    assert msgspec.json.decode(msgspec.json.encode(result), type=Priced) == result


@settings(max_examples=300)
@given(geometries, specifications, tariffs, st.integers(1, 60))
def test_more_pieces_never_cost_less(
    geometry: Geometry, specification: Specification, tariff: Tariff, more: int
) -> None:
    few = msgspec.structs.replace(specification, quantity=min(specification.quantity, 1000 - more))
    many = msgspec.structs.replace(few, quantity=few.quantity + more)
    assert priced(geometry, few, tariff).amount <= priced(geometry, many, tariff).amount


@given(geometries, specifications, st.floats(1.0, 1.19))
def test_a_larger_piece_never_costs_less(geometry: Geometry, specification: Specification, scale: float) -> None:
    assert priced(geometry, specification).amount <= priced(scaled(geometry, scale), specification).amount


def test_a_price_worked_by_hand() -> None:
    """A silver ring of 350 mm3, 4 mm high, as cast, one piece; each figure from the tariff by a pocket calculator."""
    result = priced(a_geometry(), a_specification())
    lines = {line.code: line for line in result.lines}
    assert lines["metal"].quantity == Decimal("3.7348")  # 0.35 x 10.36 x 1.03
    assert lines["metal"].amount == Decimal("5.77")  # x 1.38 x 1.12
    assert lines["sprue"].amount == Decimal("0.03")  # 3.626 x 0.10 x 0.05 x 1.5456
    assert lines["print_time"].amount == Decimal("1.13")  # (213.55 + 13.25 x 80) / 3600 x 3.20
    assert lines["resin"].amount == Decimal("0.14")  # 0.35 x 1.35 x 0.30
    assert lines["casting"].amount == Decimal("4.50")
    assert lines["margin"].amount == Decimal("6.17")  # 20.57 x 0.30
    assert result.amount == Decimal("26.80")  # 26.74 rounded up to 0.10


def test_print_time_counts_whole_layers() -> None:
    assert print_seconds(4.0, TARIFF) == Decimal("1273.55")
    assert print_seconds(4.049, TARIFF) == Decimal("1273.55")
    assert print_seconds(4.05, TARIFF) == Decimal("1286.80")


def test_work_is_cheaper_in_quantity_but_metal_is_not() -> None:
    one, ten = (priced(a_geometry(), a_specification(quantity=n)) for n in (1, 10))
    assert {line.code for line in ten.lines} - {line.code for line in one.lines} >= {"quantity_break"}
    metal = [next(line for line in result.lines if line.code == "metal") for result in (one, ten)]
    assert metal[1].quantity == pytest.approx(10 * metal[0].quantity, abs=Decimal("0.0005"))
    assert metal[1].unit_price == metal[0].unit_price
    discount = next(line.amount for line in ten.lines if line.code == "quantity_break")
    work = sum(line.amount for line in ten.lines if line.code in {"print_time", "resin", "casting"})
    assert discount == pytest.approx(-work * Decimal("0.15"), abs=Decimal("0.02"))


def test_nine_pieces_are_not_dearer_than_ten_of_brass() -> None:
    steep = a_tariff(quantity_breaks=(QuantityBreak(10, Decimal("0.5")),), rounding=Decimal(0))
    nine, ten = (priced(a_geometry(), a_specification(alloy="brass", quantity=n), steep).amount for n in (9, 10))
    assert nine < ten
    assert ten - nine < Decimal("1")


def test_resin_is_printed_but_not_cast() -> None:
    codes = {line.code for line in priced(a_geometry(), a_specification(alloy="resin")).lines}
    assert "print_time" in codes
    assert not codes & {"casting", "sprue"}


def test_a_small_order_is_raised_to_the_minimum() -> None:
    result = priced(a_geometry(volume_mm3=20.0), a_specification(alloy="brass"))
    assert result.amount == TARIFF.minimum_charge
    assert result.lines[-1].code == "minimum_charge"


@pytest.mark.parametrize(
    ("geometry", "changed", "code", "words"),
    [
        (a_geometry(), {"alloy": "gold-9k"}, "alloy_unknown", "gold-14k"),
        (a_geometry(), {"finish": "chrome"}, "finish_unknown", "polished"),
        (a_geometry(closed=False), {}, "not_closed", "closed"),
        (a_geometry(volume_mm3=0.0), {}, "no_volume", "volume"),
        (a_geometry(box_mm=(0.021, 0.022, 0.004)), {}, "too_small", "metres, it should be 21 x 22 x 4 mm"),
        (a_geometry(box_mm=(0.8, 0.9, 0.2)), {}, "too_small", "inches, it should be 20.3 x 22.9 x 5.08 mm"),
        (a_geometry(box_mm=(533.4, 550.0, 101.6)), {}, "too_large", "21 x 21.7 x 4 mm"),
        (a_geometry(box_mm=(20.0, 20.0, 0.5)), {}, "too_thin", "0.8 mm"),
    ],
)
def test_what_cannot_be_cast_is_refused_in_words(
    geometry: Geometry, changed: dict[str, Any], code: str, words: str
) -> None:
    failure = refused(geometry, a_specification(**changed))
    assert failure.code == code
    assert words in failure.detail
    assert failure.mended_by == "customer"


def test_a_file_that_names_its_unit_is_not_told_that_it_was_read_as_millimetres() -> None:
    note = f"{UNIT_NOTE} meter: its numbers were multiplied by 1000"
    detail = refused(a_geometry(box_mm=(2e4, 2e4, 4e3), notes=(note,)), a_specification()).detail
    assert "The file says that it is drawn in meter" in detail
    assert "as millimetres" not in detail


def test_the_tariff_has_what_the_shop_promises() -> None:
    assert {"sterling-925", "gold-10k", "gold-14k", "gold-18k", "platinum-950", "brass", "resin"} <= set(TARIFF.alloys)
    assert {"as-cast", "polished", "satin", "rhodium-plated"} <= set(TARIFF.finishes)
    assert TARIFF.alloys["gold-18k"].density_g_cm3 == Decimal("15.58")
    request = pricing.PriceRequest(UUID(int=1), UUID(int=2), UUID(int=3), a_specification(), TARIFF)
    assert msgspec.json.decode(msgspec.json.encode(request), type=pricing.PriceRequest) == request


def test_scaling_a_geometry() -> None:
    double = scaled(a_geometry(), 2.0)
    assert (double.volume_mm3, double.area_mm2, double.box_mm) == (2800.0, 2400.0, (40.0, 42.0, 8.0))
    assert scaled(a_geometry(), None) == a_geometry()


def test_measured_models_forget_the_one_not_asked_for_longest() -> None:
    known = MeasuredModels(limit=2)
    a, b, c = ("a" * 64, "b" * 64, "c" * 64)
    known.put(a, a_geometry())
    known.put(b, a_geometry())
    assert known.get(a) == a_geometry()
    known.put(c, orders.PriceFailure("empty", "", "customer"))
    assert known.get(b) is None
    assert known.get(a) is not None
    assert known.get(c) is not None
    known.put(b, orders.PriceFailure("crashed", "", "operator"))
    assert known.get(b) is None
    assert len(known) == 2
