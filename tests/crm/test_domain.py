"""What a seller is told at once, and what a guess of a badge costs. No I/O."""

from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest
from tests.builders import NOON, OPERATOR, a_specification, an_order

from lostwax.contracts.ids import new_id
from lostwax.contracts.orders import Action, ActorKind, Approve, Close, Hold, Resume, Status, Transition
from lostwax.crm import domain
from lostwax.crm.domain import FROM, Hopeless
from lostwax.crm.sign_in import Failures
from lostwax.orders.domain import RULES


def test_statuses_are_those_of_orders_own_table() -> None:
    assert {action: RULES[action].sources for action in FROM} == FROM
    assert set(FROM) == {action for action, rule in RULES.items() if ActorKind.SELLER in rule.actors}


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("action", FROM, ids=lambda a: a.__name__)
def test_only_what_orders_would_refuse_is_refused(action: type[Action], status: Status) -> None:
    order = an_order(status)
    wishes = {
        Approve: Approve(order.quote.quote_id if order.quote else new_id(), Decimal("129.50")),
        Hold: Hold("wait"),
    }
    wish = wishes.get(action) or msgspec.convert({"type": action.__struct_config__.tag, "reason": "so"}, action)
    if status in RULES[action].sources:
        domain.check(order, wish, order.version, NOON)
    else:
        with pytest.raises(Hopeless, match="wrong-status"):
            domain.check(order, wish, order.version, NOON)


def test_a_stale_wish_says_what_happened_and_who_did_it() -> None:
    step = Transition(Status.MANUFACTURING_APPROVED, Status.MANUFACTURING_STARTED, OPERATOR, NOON, "now")
    order = an_order(Status.MANUFACTURING_STARTED, transition=step)
    with pytest.raises(Hopeless) as refused:
        domain.check(order, Hold("wait"), order.version - 1, NOON)
    assert refused.value.code == "stale"
    assert "MANUFACTURING_STARTED by Ada since 2026-11-02 12:00:00 UTC (now)" in refused.value.detail


def test_who_saw_a_newer_version_than_is_known_here_is_left_to_orders() -> None:
    order = an_order(Status.MANUFACTURING_STARTED)
    domain.check(order, Close(), order.version + 1, NOON)
    domain.check(order, Resume(), order.version + 1, NOON)


def test_a_price_is_approved_by_id_and_amount_while_it_is_held() -> None:
    order = an_order(Status.PRICE_CALCULATED)
    assert order.quote is not None
    good = Approve(order.quote.quote_id, order.quote.amount)
    domain.check(order, good, order.version, NOON)
    for wish, now, code in (
        (Approve(new_id(), order.quote.amount), NOON, "quote-superseded"),
        (Approve(order.quote.quote_id, Decimal("129.51")), NOON, "amount-differs"),
        (good, order.quote.expires_at + timedelta(seconds=1), "quote-expired"),
    ):
        with pytest.raises(Hopeless) as refused:
            domain.check(order, wish, order.version, now)
        assert refused.value.code == code


def test_fields_must_fit_each_other() -> None:
    assert domain.misfit(a_specification(), NOON) is None
    assert "not both" in str(domain.misfit(a_specification(scale=2.0), NOON))
    assert "has passed" in str(domain.misfit(a_specification(deadline=(NOON - timedelta(days=1)).date()), NOON))
    assert domain.misfit(a_specification(deadline=NOON.date()), NOON) is None


def test_an_address_may_fail_so_often_and_then_has_to_wait() -> None:
    failures = Failures(most=3, window_s=60)
    for _ in range(3):
        assert failures.wait_s("a", 1000.0) == 0
        failures.failed("a", 1000.0)
    assert failures.wait_s("a", 1000.0) == 20
    assert failures.wait_s("b", 1000.0) == 0
    assert failures.wait_s("a", 1019.0) == 1
    assert failures.wait_s("a", 1020.0) == 0
    failures.failed("a", 1020.0)
    assert failures.wait_s("a", 1020.0) == 20
    assert failures.wait_s("a", 1200.0) == 0


def test_the_memory_of_failures_is_bounded() -> None:
    failures = Failures(most=1, window_s=60, addresses=2)
    for address in ("a", "b", "c"):
        failures.failed(address, 1000.0)
    assert [failures.wait_s(a, 1000.0) > 0 for a in ("a", "b", "c")] == [False, True, True]
