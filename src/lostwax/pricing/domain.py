"""What a piece costs: pure arithmetic in decimals on a geometry, a specification and a tariff.

A price is the sum of its lines, to the cent. The material is paid by weight; the work (print, casting, finishing,
engraving) by piece, cheaper in quantities; set-up and handling once; then margin, the minimum charge, and rounding up.
"""

from collections.abc import Iterable
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal

from lostwax.contracts.orders import Geometry, PriceFailure, PriceLine, Specification
from lostwax.contracts.pricing import AlloyTerms, FinishTerms, NotPriced, Priced, QuantityBreak, Tariff
from lostwax.pricing.measure import UNIT_NOTE

SMALLEST_MM = 1.0
LARGEST_MM = 300.0
"""Largest side, mm, of what can be cast here. Outside of these a model was most likely drawn in another unit."""

NOT_CAST = frozenset({"resin"})
"""Materials that are delivered as printed: no sprue, no casting. The tariff has no field for it (yet)."""

_OTHER_UNITS = (("centimetres", 10.0), ("inches", 25.4), ("metres", 1000.0))
_LIKELY_MM = (4.0, 200.0)

_CENT = Decimal("0.01")
_ONE = Decimal(1)


def price(geometry: Geometry, specification: Specification, tariff: Tariff) -> Priced | NotPriced:
    """The price of the whole quantity, before tax, or why there is none. `geometry` is of the piece as it is to be
    made (after `scale`): what was scaled is not scaled again here."""
    alloy = tariff.alloys.get(specification.alloy)
    finish = tariff.finishes.get(specification.finish)
    if alloy is None:
        known = ", ".join(sorted(tariff.alloys))
        return _no("alloy_unknown", f"We do not cast in “{specification.alloy}”. We offer: {known}.")
    if finish is None:
        known = ", ".join(sorted(tariff.finishes))
        return _no("finish_unknown", f"We have no finish “{specification.finish}”. We offer: {known}.")
    unfit = _unfit(geometry, alloy)
    if unfit is not None:
        return NotPriced(unfit)
    material = _material(geometry, specification, alloy, tariff)
    work = _work(geometry, specification, finish, tariff, specification.quantity)
    billed = _billed(specification.quantity, tariff.quantity_breaks)
    reduced = _sum(work)
    if billed < specification.quantity:
        one = _work(geometry, specification, finish, tariff, 1)
        exact = billed * sum((line.quantity * line.unit_price for line in one), Decimal(0))
        # The cents of single lines must not make the larger quantity the cheaper one.
        reduced = max(_cents(exact), _sum(_work(geometry, specification, finish, tariff, int(billed))))
    quantity_break = _difference("quantity_break", f"For {specification.quantity} pieces", reduced - _sum(work))
    once = [
        _line("setup", "Setting up the order", _ONE, "order", tariff.setup_per_order),
        _line("handling", "Handling and packing", _ONE, "order", tariff.handling_per_order),
    ]
    lines = [*material, *work, quantity_break, *once]
    lines.append(_line("margin", "Margin", tariff.margin, "of the costs", _sum(lines)))
    missing = max(tariff.minimum_charge - _sum(lines), Decimal(0))
    lines.append(_difference("minimum_charge", "Up to the minimum charge", missing))
    lines.append(_difference("rounding", "Rounding", _up_to_step(_sum(lines), tariff.rounding) - _sum(lines)))
    shown = tuple(line for line in lines if line.amount)
    return Priced(_sum(shown), shown, geometry)


def print_seconds(height_mm: float, tariff: Tariff) -> Decimal:
    """Machine time of one piece printed as drawn, s: start + time of a layer x floor(height / layer).

    The formula gave the time of all of 32 slices by PrusaSlicer 2.5 exactly.
    """
    terms = tariff.print
    layers = (_decimal(height_mm, "0.0001") / terms.layer_mm).to_integral_value(ROUND_FLOOR)
    return terms.start_s + terms.layer_s * layers


def _material(geometry: Geometry, specification: Specification, alloy: AlloyTerms, tariff: Tariff) -> list[PriceLine]:
    pieces = specification.quantity
    grams = _decimal(geometry.volume_mm3, "0.000001") / 1000 * alloy.density_g_cm3
    per_gram = alloy.spot_per_g * (1 + alloy.markup)
    used = _line("metal", alloy.name, pieces * grams * (1 + alloy.casting_loss), "g", per_gram)
    if specification.alloy in NOT_CAST:
        return [used]
    lost = pieces * grams * tariff.sprue_share * (1 - tariff.sprue_returned)
    return [used, _line("sprue", "Sprue and button not recovered", lost, "g", per_gram)]


def _work(
    geometry: Geometry, specification: Specification, finish: FinishTerms, tariff: Tariff, pieces: int
) -> list[PriceLine]:
    terms = tariff.print
    hours = print_seconds(geometry.box_mm[2], tariff) / 3600
    printed_cm3 = _decimal(geometry.volume_mm3, "0.000001") / 1000
    surface_cm2 = _decimal(geometry.area_mm2, "0.0001") / 100
    cast = specification.alloy not in NOT_CAST
    # Of a piece that is itself of resin, the material line already holds all but the supports.
    resin_cm3 = printed_cm3 * (terms.support_share + (1 if cast else 0))
    engraving = tariff.engraving_per_piece if specification.engraving else Decimal(0)
    return [
        _line("print_time", "Printing the pattern", pieces * hours, "h", terms.machine_per_hour),
        _line("resin", "Resin and supports", pieces * resin_cm3, "cm3", terms.resin_per_cm3),
        _line("casting", "Casting", Decimal(pieces), "piece", tariff.casting_per_piece if cast else Decimal(0)),
        _line("finish", finish.name, Decimal(pieces), "piece", finish.per_piece),
        _line("finish_surface", f"{finish.name}, by surface", pieces * surface_cm2, "cm2", finish.per_cm2),
        _line("engraving", "Engraving", Decimal(pieces), "piece", engraving),
    ]


def _billed(quantity: int, breaks: Iterable[QuantityBreak]) -> Decimal:
    """For how many single pieces the work on `quantity` is billed: the best of its own factor and of paying for as
    many pieces as a further break asks for, so that nobody pays more for nine pieces than for ten."""
    steps = sorted(breaks, key=lambda step: step.pieces)
    reached = [step.factor for step in steps if step.pieces <= quantity]
    further = [step.pieces * step.factor for step in steps if step.pieces > quantity]
    return min([quantity * (reached[-1] if reached else _ONE), *further])


def _unfit(geometry: Geometry, alloy: AlloyTerms) -> PriceFailure | None:
    """Why a piece of this geometry cannot be cast in this alloy, if so."""
    sides = geometry.box_mm
    measures = " x ".join(f"{side:.3g}" for side in sides) + " mm"
    if not geometry.closed:
        return _failure("not_closed", "The surface of the model is not closed, so it has no volume. Please close it.")
    if not geometry.volume_mm3 > 0:
        return _failure("no_volume", "The surface of the model encloses no volume, so there is nothing to cast.")
    largest = max(sides)
    if largest < SMALLEST_MM:
        return _failure(
            "too_small", f"The model measures {measures}: too small to be cast. {_unit_advice(geometry, enlarge=True)}"
        )
    if largest > LARGEST_MM:
        return _failure(
            "too_large",
            f"The model measures {measures}; the largest that can be cast is {LARGEST_MM:.0f} mm long. "
            f"{_unit_advice(geometry, enlarge=False)}",
        )
    if min(sides) < float(alloy.minimum_wall_mm):
        return _failure(
            "too_thin",
            f"The model measures {measures}: nothing thinner than {alloy.minimum_wall_mm} mm can be cast in "
            f"{alloy.name}.",
        )
    return None


def _unit_advice(geometry: Geometry, *, enlarge: bool) -> str:
    """In which other unit the model would have a likely size, and what to do about it."""
    declared = [note for note in geometry.notes if note.startswith(UNIT_NOTE)]
    if declared:
        return f"{declared[0].capitalize()}. Please check the unit and export it again."
    sides = geometry.box_mm
    guesses = []
    for unit, millimetres in _OTHER_UNITS:
        factor = millimetres if enlarge else 1 / millimetres
        if _LIKELY_MM[0] <= max(sides) * factor <= _LIKELY_MM[1]:
            measures = " x ".join(f"{side * factor:.3g}" for side in sides) + " mm"
            how = f"drawn in {unit}" if enlarge else f"converted to millimetres from {unit} twice, or drawn too large"
            guesses.append(f"if it was {how}, it should be {measures}")
    advice = "We read the numbers in the file as millimetres"
    return f"{advice}; {'; '.join(guesses)}. Please export it in millimetres." if guesses else f"{advice}."


def _line(code: str, name: str, quantity: Decimal, unit: str, unit_price: Decimal) -> PriceLine:
    """Quantity and unit price are rounded first, so that whoever multiplies what the line shows gets its amount."""
    shown, each = (
        quantity.quantize(Decimal("0.0001"), ROUND_HALF_UP),
        unit_price.quantize(Decimal("0.0001"), ROUND_HALF_UP),
    )
    return PriceLine(code, name, shown.normalize() + 0, unit, each, _cents(shown * each))


def _difference(code: str, name: str, amount: Decimal) -> PriceLine:
    cents = _cents(amount)
    return PriceLine(code, name, _ONE, "order", cents, cents)


def _sum(lines: Iterable[PriceLine]) -> Decimal:
    return sum((line.amount for line in lines), Decimal("0.00"))


def _cents(amount: Decimal) -> Decimal:
    return amount.quantize(_CENT, ROUND_HALF_UP)


def _up_to_step(amount: Decimal, step: Decimal) -> Decimal:
    """Upwards, so that rounding never undercuts the minimum charge."""
    return (amount / step).to_integral_value(ROUND_CEILING) * step if step > 0 else amount


def _decimal(measured: float, step: str) -> Decimal:
    """A measured number as a decimal with the digits that it is worth."""
    return Decimal(measured).quantize(Decimal(step), ROUND_HALF_UP)


def _failure(code: str, detail: str, mended_by: str = "customer") -> PriceFailure:
    return PriceFailure(code, detail, mended_by)


def _no(code: str, detail: str) -> NotPriced:
    return NotPriced(_failure(code, detail))
