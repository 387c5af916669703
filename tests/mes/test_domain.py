"""When an order is due, and what operators see of it."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import NOON, a_specification, an_order

from lostwax.contracts.ids import short_code
from lostwax.contracts.orders import Status
from lostwax.mes import domain
from lostwax.mes.domain import due_at

moments = st.integers(0, 10 * 365 * 86_400_000_000).map(lambda us: NOON + timedelta(microseconds=us))


def test_three_weeks_from_approval() -> None:
    order = an_order(Status.MANUFACTURING_APPROVED, submitted_at=NOON, approved_at=NOON + timedelta(days=2))
    assert due_at(order) == NOON + timedelta(days=23)


def test_before_approval_it_counts_from_submission() -> None:
    assert due_at(an_order(submitted_at=NOON)) == NOON + timedelta(days=21)


def test_a_sooner_deadline_counts_a_later_one_does_not() -> None:
    soon = an_order(Status.MANUFACTURING_APPROVED, specification=a_specification(deadline=date(2026, 11, 9)))
    assert due_at(soon) == datetime(2026, 11, 9, 12, 0, 0, 123_000, tzinfo=UTC)
    late = an_order(Status.MANUFACTURING_APPROVED, specification=a_specification(deadline=date(2027, 3, 1)))
    assert due_at(late) == NOON + timedelta(days=21)


def test_orders_of_one_deadline_go_by_their_time_of_day() -> None:
    orders = [
        an_order(submitted_at=NOON + timedelta(minutes=n), specification=a_specification(deadline=date(2026, 11, 9)))
        for n in range(5)
    ]
    assert all(due_at(a) < due_at(b) for a, b in pairwise(orders))


@given(approved=moments, others=moments)
def test_rework_is_before_everything_else(approved: datetime, others: datetime) -> None:
    rework = an_order(Status.REWORK, approved_at=approved)
    assert due_at(rework) == due_at(msgspec.structs.replace(rework, status=Status.MANUFACTURING_APPROVED)) - timedelta(
        days=3650
    )
    if abs(approved - others) < timedelta(days=3650):
        assert due_at(rework) < due_at(an_order(Status.MANUFACTURING_APPROVED, approved_at=others))


@given(submitted=moments, approved=moments, deadline=st.none() | st.dates(date(2026, 1, 1), date(2036, 1, 1)))
def test_due_dates_are_whole_milliseconds_and_never_after_the_promise(
    submitted: datetime, approved: datetime, deadline: date | None
) -> None:
    order = an_order(
        Status.MANUFACTURING_APPROVED,
        submitted_at=submitted,
        approved_at=approved,
        specification=a_specification(deadline=deadline),
    )
    due = due_at(order)
    assert due.microsecond % 1000 == 0
    assert due <= approved + domain.PROMISE
    if deadline is not None:
        assert due.date() <= deadline or due == (approved + domain.PROMISE).replace(microsecond=due.microsecond)


@given(version=st.integers(1, 10_000), seq=st.integers(0, 99_999), more=st.integers(0, 99_999))
def test_a_rank_grows_with_version_first_and_claims_second(version: int, seq: int, more: int) -> None:
    assert domain.rank(version + 1, 0) > domain.rank(version, seq)
    assert (domain.rank(version, more) > domain.rank(version, seq)) == (more > seq)


@pytest.mark.parametrize("status", [s for s in Status if s not in (Status.SUBMITTED, Status.PRICE_FAILED)])
def test_a_card_shows_what_the_work_needs(status: Status) -> None:
    order = an_order(status, specification=a_specification(engraving="für immer", quantity=3, scale=1.5))
    card = domain.card(order)
    assert (card.order_id, card.code, card.version) == (order.order_id, short_code(order.order_id), order.version)
    assert (card.status, card.due_at) == (status, due_at(order))
    specification = order.specification
    for name in ("alloy", "finish", "quantity", "ring_size", "scale", "engraving"):
        assert getattr(card, name) == getattr(specification, name)
    assert card.model_name == specification.model.name
    assert order.quote is not None
    assert (card.box_mm, card.volume_mm3) == (order.quote.geometry.box_mm, order.quote.geometry.volume_mm3)


def test_a_card_of_an_order_without_a_price_has_no_measures() -> None:
    card = domain.card(an_order())
    assert (card.box_mm, card.volume_mm3) == (None, None)


def test_a_card_tells_nothing_of_who_ordered_and_for_how_much() -> None:
    order = an_order(Status.MANUFACTURING_APPROVED)
    assert order.quote is not None
    said = msgspec.json.encode(domain.card(order))
    for secret in (str(order.account), "PO-1", str(order.quote.amount), "Partner & Co"):
        assert secret.encode() not in said
