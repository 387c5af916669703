"""Rows of the warehouse for tests and benchmarks of reports: what is not named is null."""

from datetime import UTC, datetime
from typing import Any

from lostwax.reporting.tables import (
    CLAIMS,
    HISTORY,
    LAYOUTS,
    OPERATORS,
    ORDERS,
    PARTNERS,
    PRICES,
    REQUESTS,
    WAITS,
    Row,
    Table,
)

NOW = datetime(2026, 3, 31, 12, 0, tzinfo=UTC)


def a_row(table: Table, **known: Any) -> Row:
    """Raises KeyError for a column that the table does not have."""
    row: dict[str, Any] = dict.fromkeys(table.names)
    row |= {"deleted": 0, "origin": "test", "position": 1, "source_at": NOW, "captured_at": NOW}
    for name, value in known.items():
        if name not in row:
            raise KeyError(f"{table.name} has no {name}")
        row[name] = value
    return tuple(row.values())


def days(name: str, day: str) -> dict[str, str]:
    """A day with its month and ISO week, as the columns of `name` have them ("": columns without one)."""
    year, week, _ = datetime.fromisoformat(day).isocalendar()
    prefix = f"{name}_" if name else ""
    return {f"{prefix}day": day, f"{prefix}month": day[:7], f"{prefix}week": f"{year}-W{week:02}"}


def at(day: str, hour: float = 12) -> datetime:
    return datetime.fromtimestamp(datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp() + hour * 3600, UTC)


def small_business() -> dict[Table, list[Row]]:
    """Six orders of March 2026 and one of February, two partners, two operators; the figures that reports must give
    are counted by hand in the tests."""

    def order(number: int, submitted: str, status: str, **more: Any) -> Row:
        known = {
            "order_id": f"o{number}", "code": f"CODE{number}", "channel": "partner_api", "partner": "p-aurum",
            "alloy": "gold-14k", "finish": "polished", "quantity": 1, "currency": "USD", "reference": f"R{number}",
            "version": 3, "status": status, "status_since": at(submitted), "submitted_at": at(submitted),
            **days("submitted", submitted), **more,
        }  # fmt: skip
        return a_row(ORDERS, **known)

    def approved(day: str) -> dict[str, Any]:
        return {"approved_at": at(day), **days("approved", day)}

    def shipped(day: str, took_days: float, on_time: int) -> dict[str, Any]:
        took = took_days * 86400
        return {"shipped_at": at(day), **days("shipped", day), "approved_to_shipped_s": took, "on_time": on_time}

    orders = [
        order(1, "2026-02-10", "SHIPPED", quantity=2, amount_minor=10_000, **approved("2026-02-12"),
              **shipped("2026-03-02", 18, 1)),
        order(2, "2026-03-02", "SHIPPED", amount_minor=20_050, **approved("2026-03-03"),
              **shipped("2026-03-25", 22, 0)),
        order(3, "2026-03-02", "CLOSED", quantity=3, amount_minor=30_000, alloy="silver-925", partner="p-bijou",
              **approved("2026-03-03"), **shipped("2026-03-13", 10, 1)),
        order(4, "2026-03-03", "CANCELLED", amount_minor=99_999, **approved("2026-03-04")),
        order(5, "2026-03-09", "PRICE_FAILED", failure_code="not-watertight", partner="p-bijou"),
        order(6, "2026-03-10", "ON_HOLD", channel="crm", amount_minor=5_000, currency="EUR", held_reason="=asked",
              partner="s-1", **approved("2026-03-11")),
        order(7, "2026-03-31", "SUBMITTED", channel="crm", partner="s-1"),
        order(8, "2026-03-05", "SHIPPED", deleted=1, amount_minor=1, **approved("2026-03-05")),
    ]  # fmt: skip

    def step(order_id: str, version: int, former: str | None, status: str, moment: datetime) -> Row:
        return a_row(
            HISTORY, order_id=order_id, version=version, from_status=former, status=status, happened_at=moment,
            happened_s=moment.timestamp(), channel="partner_api", alloy="gold-14k", partner="p-aurum",
            **days("", moment.date().isoformat()),
        )  # fmt: skip

    history = [
        step("o2", 1, None, "SUBMITTED", at("2026-03-02", 10)),
        step("o2", 2, "SUBMITTED", "PRICE_CALCULATED", at("2026-03-02", 11)),
        step("o2", 3, "PRICE_CALCULATED", "MANUFACTURING_APPROVED", at("2026-03-03", 11)),
        step("o4", 1, None, "SUBMITTED", at("2026-03-03", 10)),
        step("o4", 2, "SUBMITTED", "PRICE_CALCULATED", at("2026-03-03", 13)),
    ]

    def price(order_id: str, outcome: str, seconds: float | None, **more: Any) -> Row:
        known = {"channel": "partner_api", "alloy": "gold-14k", "partner": "p-aurum", **days("", "2026-03-02")}
        return a_row(PRICES, order_id=order_id, version=2, outcome=outcome, seconds=seconds, **known, **more)

    prices = [
        price("o2", "priced", 1.0),
        price("o3", "priced", 3.0),
        price("o5", "failed", 9.0, failure_code="not-watertight"),
    ]

    def claim(number: int, order_id: str, operator: str, state: str, seconds: float | None) -> Row:
        ended = None if seconds is None else at("2026-03-12")
        return a_row(
            CLAIMS, claim_id=f"c{number}", order_id=order_id, operator_id=operator, state=state, seconds=seconds,
            ended_at=ended, **days("", "2026-03-12"),
        )  # fmt: skip

    claims = [
        claim(1, "o3", "ada", "done", 7200.0),
        claim(2, "o2", "ada", "reworked", 3600.0),
        claim(3, "o2", "ben", "done", 1800.0),
        claim(4, "o4", "ben", "voided", 0.0),
        claim(5, "o6", "ben", "confirmed", None),
    ]
    requests = [
        a_row(REQUESTS, order_id=f"o{number}", partner=partner, accepted_at=at("2026-03-02"),
              accepted_day="2026-03-02", accepted_month="2026-03")
        for number, partner in ((2, "p-aurum"), (3, "p-bijou"), (5, "p-bijou"), (99, "p-bijou"))
    ]  # fmt: skip
    layouts = [
        a_row(LAYOUTS, layout_id=f"l{order}{revision}", order_id=order, revision=revision, deleted=int(order == "o8"))
        for order, revision in (("o2", 1), ("o2", 2), ("o2", 3), ("o3", 1), ("o8", 1))
    ]
    day = 86400.0
    waits = [
        a_row(WAITS, order_id=order, since=f"{order}-{number}", party=party, seconds=seconds,
              ended_at=None if seconds is None else NOW)
        for number, (order, party, seconds) in enumerate((
            ("o2", "seller", day), ("o2", "customer", 3 * day), ("o2", "seller", 2 * day), ("o2", "customer", day),
            ("o3", "customer", 2 * day), ("o7", "seller", None), ("o8", "customer", day),
        ))
    ]  # fmt: skip
    return {
        LAYOUTS: layouts,
        WAITS: waits,
        ORDERS: orders,
        HISTORY: history,
        PRICES: prices,
        CLAIMS: claims,
        REQUESTS: requests,
        PARTNERS: [
            a_row(PARTNERS, partner="p-aurum", name="Aurum & Söhne"),
            a_row(PARTNERS, partner="p-bijou", name="=BIJOU()"),
        ],
        OPERATORS: [a_row(OPERATORS, operator_id="ada", name="Ada"), a_row(OPERATORS, operator_id="ben", name="Ben")],
    }
