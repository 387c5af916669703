"""What may happen to an order: the whole table of actions and statuses, and every reason for a refusal."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import (
    ACCOUNT,
    NOON,
    NOT_CLOSED,
    OPERATOR,
    OTHER_OPERATOR,
    PARTNER,
    SELLER,
    SYSTEM,
    a_command,
    a_price,
    a_quote,
    a_request,
    a_specification,
    an_order,
)

from lostwax.contracts.ids import new_id
from lostwax.contracts.orders import (
    Action,
    Actor,
    ActorKind,
    Approve,
    Cancel,
    Close,
    CompleteManufacturing,
    Hold,
    OnHold,
    Order,
    Pack,
    ReleaseClaim,
    Resubmit,
    Resume,
    Rework,
    Ship,
    Shipment,
    StartManufacturing,
    Status,
)
from lostwax.orders import domain

LATER = NOON + timedelta(minutes=5)

# Written out once more, by hand, from the requirements: the table in the domain is compared with it.
BEFORE_MAKING = {
    Status.SUBMITTED,
    Status.PRICE_CALCULATED,
    Status.PRICE_FAILED,
    Status.MANUFACTURING_APPROVED,
}
BEFORE_SHIPPING = BEFORE_MAKING | {
    Status.MANUFACTURING_STARTED,
    Status.REWORK,
    Status.MANUFACTURING_COMPLETED,
    Status.PACKAGING,
}
OWNERS = {ActorKind.PARTNER, ActorKind.CUSTOMER}
SELLERS = {ActorKind.SELLER, ActorKind.ADMINISTRATOR}
OVERSEERS = {ActorKind.SUPERVISOR, ActorKind.ADMINISTRATOR}

# `None`: back to the status that the hold left.
TABLE: dict[type[Any], tuple[set[Status], Status | None, set[ActorKind]]] = {
    Resubmit: (
        {Status.PRICE_CALCULATED, Status.PRICE_FAILED, Status.MANUFACTURING_APPROVED},
        Status.SUBMITTED,
        OWNERS | SELLERS,
    ),
    Approve: ({Status.PRICE_CALCULATED}, Status.MANUFACTURING_APPROVED, OWNERS | SELLERS),
    StartManufacturing: (
        {Status.MANUFACTURING_APPROVED, Status.REWORK},
        Status.MANUFACTURING_STARTED,
        {ActorKind.OPERATOR},
    ),
    ReleaseClaim: (
        {Status.MANUFACTURING_STARTED},
        Status.MANUFACTURING_APPROVED,
        {ActorKind.OPERATOR, ActorKind.SYSTEM} | OVERSEERS,
    ),
    CompleteManufacturing: ({Status.MANUFACTURING_STARTED}, Status.MANUFACTURING_COMPLETED, {ActorKind.OPERATOR}),
    Rework: (
        {Status.MANUFACTURING_STARTED, Status.MANUFACTURING_COMPLETED},
        Status.REWORK,
        {ActorKind.OPERATOR} | OVERSEERS,
    ),
    Pack: ({Status.MANUFACTURING_COMPLETED}, Status.PACKAGING, {ActorKind.OPERATOR}),
    Ship: ({Status.PACKAGING}, Status.SHIPPED, {ActorKind.OPERATOR}),
    Close: ({Status.SHIPPED}, Status.CLOSED, SELLERS | {ActorKind.SYSTEM}),
    Hold: (BEFORE_SHIPPING, Status.ON_HOLD, SELLERS),
    Resume: ({Status.ON_HOLD}, None, SELLERS),
    Cancel: (BEFORE_SHIPPING | {Status.ON_HOLD}, Status.CANCELLED, OWNERS | SELLERS),
}

statuses = st.sampled_from(list(Status))
kinds = st.sampled_from(list(TABLE))
actors = st.sampled_from([PARTNER, OPERATOR, OTHER_OPERATOR, SELLER, SYSTEM])


def action_on(order: Order, kind: type[Any]) -> Action:
    """An action whose own data fits the order."""
    if kind is Approve:
        quote = order.quote or a_quote()
        return Approve(quote_id=quote.quote_id, amount=quote.amount)
    if kind is StartManufacturing:
        return StartManufacturing(claim_id=new_id())
    if kind is ReleaseClaim:
        return ReleaseClaim(claim_id=new_id(), reason="out of wax")
    if kind is Ship:
        return Ship(Shipment("DHL", "42"))
    if kind in (Rework, Hold, Cancel):
        return kind(reason="porous")
    return kind()


def who_may(kind: type[Any]) -> Actor:
    """Somebody who may do this to any order that it can be done to."""
    allowed = TABLE[kind][2]
    return next(a for a in (SELLER, OPERATOR, PARTNER) if a.kind in allowed)


def standing(order: Order) -> Status:
    return order.on_hold.source if order.on_hold else order.status


def target_of(order: Order, kind: type[Any]) -> Status:
    target = TABLE[kind][1]
    return standing(order) if target is None else target


def refusal(order: Order, action: Action, actor: Actor, now: datetime = LATER, **changes: Any) -> domain.Refused:
    """The refusal that this command must meet; the order is the same as before."""
    before = msgspec.json.encode(order)
    with pytest.raises(domain.Refused) as caught:
        domain.obey(order, a_command(order, action, actor, **changes), now)
    assert msgspec.json.encode(order) == before
    assert caught.value.detail
    return caught.value


def test_the_table_is_that_of_the_requirements() -> None:
    assert {k: (set(r.sources), r.target, set(r.actors)) for k, r in domain.RULES.items()} == TABLE
    assert set(domain.RULES) == set(Action.__args__)


@pytest.mark.parametrize("kind", TABLE, ids=lambda k: k.__name__)
@pytest.mark.parametrize("status", Status)
def test_each_action_in_each_status(kind: type[Any], status: Status) -> None:
    order = an_order(status)
    action, actor = action_on(order, kind), who_may(kind)
    sources, target = TABLE[kind][0], target_of(order, kind)
    if status not in sources:
        assert refusal(order, action, actor).code == "wrong_status"
        return
    command = a_command(order, action, actor)
    after = domain.obey(order, command, LATER)
    assert (after.status, after.version, after.updated_at) == (target, order.version + 1, LATER)
    step = after.transition
    assert (step.source, step.target, step.actor, step.at) == (status, target, actor, LATER)
    assert step.command_id == command.command_id
    kept = ["order_id", "account", "channel", "reference", "specification", "submitted_at", "approve_up_to"]
    kept += [] if kind is Resubmit else ["quote", "failure"]
    assert [getattr(after, name) for name in kept] == [getattr(order, name) for name in kept]


@given(status=statuses, kind=kinds, actor=actors, behind=st.integers(-3, 3))
def test_either_one_version_more_at_the_tables_target_or_refused_and_nothing_changed(
    status: Status, kind: type[Any], actor: Actor, behind: int
) -> None:
    order = an_order(status)
    before = msgspec.json.encode(order)
    command = a_command(order, action_on(order, kind), actor, seen_version=order.version + behind)
    sources, _, allowed = TABLE[kind]
    code = None
    try:
        after = domain.obey(order, command, LATER)
    except domain.Refused as refused:
        after, code = order, refused.code
    makers_alone = kind in (ReleaseClaim, CompleteManufacturing) or (
        kind is Rework and status is Status.MANUFACTURING_STARTED
    )
    stranger = makers_alone and actor.kind is ActorKind.OPERATOR and actor != order.maker
    too_late = kind is Cancel and actor.kind in OWNERS and standing(order) not in BEFORE_MAKING
    if actor.kind not in allowed or status not in sources or behind != 0 or stranger or too_late:
        assert code in {"not_allowed", "wrong_status", "stale", "not_the_maker", "too_late"}
    else:
        assert code is None
        assert (after.version, after.status) == (order.version + 1, target_of(order, kind))
    assert msgspec.json.encode(order) == before


@pytest.mark.parametrize("kind", TABLE, ids=lambda k: k.__name__)
@pytest.mark.parametrize("actor", [PARTNER, OPERATOR, SELLER, SYSTEM], ids=lambda a: a.kind.value)
def test_only_the_right_kind_of_actor(kind: type[Any], actor: Actor) -> None:
    sources, _, allowed = TABLE[kind]
    order = an_order(min(sources & BEFORE_MAKING or sources))
    if actor.kind in allowed:
        assert domain.obey(order, a_command(order, action_on(order, kind), actor), LATER).transition.actor == actor
    else:
        assert refusal(order, action_on(order, kind), actor).code == "not_allowed"


def test_a_partner_of_another_account_may_not_approve() -> None:
    order = an_order(Status.PRICE_CALCULATED)
    for account in (new_id(), None):
        stranger = msgspec.structs.replace(PARTNER, account=account)
        assert refusal(order, action_on(order, Approve), stranger).code == "not_allowed"


@pytest.mark.parametrize("seen", [0, 1, 3, 99])
def test_who_saw_another_version_is_told_so(seen: int) -> None:
    order = an_order(Status.PRICE_CALCULATED)
    refused = refusal(order, action_on(order, Approve), PARTNER, seen_version=seen)
    assert refused.code == "stale"
    assert "version 2" in refused.detail
    assert str(seen) in refused.detail


def test_approving_needs_the_orders_own_quote() -> None:
    order = an_order(Status.PRICE_CALCULATED)
    assert order.quote is not None
    assert refusal(order, Approve(new_id(), order.quote.amount), PARTNER).code == "quote_superseded"
    without = msgspec.structs.replace(order, quote=None)
    assert refusal(without, Approve(order.quote.quote_id, order.quote.amount), PARTNER).code == "quote_superseded"


@pytest.mark.parametrize("amount", ["129.49", "129.51", "0", "-129.50", "NaN", "1E+3"])
def test_approving_needs_the_quoted_amount(amount: str) -> None:
    order = an_order(Status.PRICE_CALCULATED)
    assert order.quote is not None
    assert refusal(order, Approve(order.quote.quote_id, Decimal(amount)), PARTNER).code == "amount_differs"


def test_the_same_amount_written_otherwise_is_the_same() -> None:
    order = an_order(Status.PRICE_CALCULATED)
    assert order.quote is not None
    after = domain.obey(order, a_command(order, Approve(order.quote.quote_id, Decimal("129.5")), PARTNER), LATER)
    assert after.status is Status.MANUFACTURING_APPROVED
    assert after.approved_at == LATER


def test_a_quote_holds_to_its_last_instant_and_no_longer() -> None:
    order = an_order(Status.PRICE_CALCULATED)
    assert order.quote is not None
    action = action_on(order, Approve)
    end = order.quote.expires_at
    assert domain.obey(order, a_command(order, action, PARTNER), end).version == 3
    assert refusal(order, action, PARTNER, end + timedelta(microseconds=1)).code == "quote_expired"


def test_starting_names_the_maker_and_only_the_maker_goes_on() -> None:
    order = an_order(Status.MANUFACTURING_APPROVED)
    started = domain.obey(order, a_command(order, action_on(order, StartManufacturing)), LATER)
    assert started.maker == OPERATOR
    for kind in (ReleaseClaim, CompleteManufacturing):
        refused = refusal(started, action_on(started, kind), OTHER_OPERATOR)
        assert refused.code == "not_the_maker"
        assert "Ada" in refused.detail
    released = domain.obey(started, a_command(started, action_on(started, ReleaseClaim)), LATER)
    assert (released.maker, released.status) == (None, Status.MANUFACTURING_APPROVED)
    assert released.transition.reason == "out of wax"
    completed = domain.obey(started, a_command(started, CompleteManufacturing()), LATER)
    assert completed.maker == OPERATOR


def test_shipping_keeps_the_parcel() -> None:
    order = an_order(Status.PACKAGING)
    after = domain.obey(order, a_command(order, Ship(Shipment("DHL", "JD0142"))), LATER)
    assert after.shipment == Shipment("DHL", "JD0142")


@pytest.mark.parametrize("status", sorted(BEFORE_SHIPPING))
def test_a_hold_leads_back_to_where_it_came_from(status: Status) -> None:
    order = an_order(status)
    held = domain.obey(order, a_command(order, Hold("the customer travels"), SELLER), LATER)
    assert (held.status, held.version) == (Status.ON_HOLD, order.version + 1)
    assert held.on_hold == OnHold(source=status, reason="the customer travels", since=LATER)
    assert domain.awaits_price(held) == (status is Status.SUBMITTED)
    resumed = domain.obey(held, a_command(held, Resume(), SELLER), LATER)
    assert (resumed.status, resumed.version, resumed.on_hold) == (status, order.version + 2, None)
    same = ("quote", "failure", "maker", "approved_at", "shipment")
    assert [getattr(resumed, name) for name in same] == [getattr(order, name) for name in same]


@pytest.mark.parametrize("status", sorted(BEFORE_SHIPPING))
def test_an_owner_cancels_until_the_piece_is_being_made_also_through_a_hold(status: Status) -> None:
    order = an_order(status)
    held = domain.obey(order, a_command(order, Hold("wait"), SELLER), LATER)
    for one in (order, held):
        if status in BEFORE_MAKING:
            gone = domain.obey(one, a_command(one, Cancel("changed my mind"), PARTNER), LATER)
            assert (gone.status, gone.on_hold, gone.maker) == (Status.CANCELLED, None, None)
        else:
            assert refusal(one, Cancel("changed my mind"), PARTNER).code == "too_late"
            assert domain.obey(one, a_command(one, Cancel("no gold"), SELLER), LATER).status is Status.CANCELLED


def test_a_new_specification_supersedes_price_and_approval() -> None:
    order = an_order(Status.MANUFACTURING_APPROVED)
    wanted = a_specification(alloy="platinum-950", quantity=3)
    again = domain.obey(order, a_command(order, Resubmit(wanted), PARTNER), LATER)
    assert (again.status, again.specification) == (Status.SUBMITTED, wanted)
    assert (again.quote, again.failure, again.approved_at) == (None, None, None)
    assert domain.price_job(again) != domain.price_job(order)
    retried = domain.obey(order, a_command(order, Resubmit(), PARTNER), LATER)
    assert retried.specification == order.specification


def test_rework_frees_the_order_and_an_overseer_may_take_it_from_anybody() -> None:
    order = an_order(Status.MANUFACTURING_STARTED)
    assert refusal(order, Rework("porous"), OTHER_OPERATOR).code == "not_the_maker"
    overseer = msgspec.structs.replace(OTHER_OPERATOR, kind=ActorKind.SUPERVISOR)
    for actor in (OPERATOR, overseer):
        again = domain.obey(order, a_command(order, Rework("porous"), actor), LATER)
        assert (again.status, again.maker, again.transition.reason) == (Status.REWORK, None, "porous")
    released = domain.obey(order, a_command(order, ReleaseClaim(new_id(), "ill"), overseer), LATER)
    assert (released.status, released.maker) == (Status.MANUFACTURING_APPROVED, None)


def test_submit_is_version_one_of_what_was_requested() -> None:
    request = a_request(approve_up_to=Decimal(200))
    order = domain.submit(request, LATER)
    assert (order.version, order.status, order.submitted_at, order.updated_at) == (1, Status.SUBMITTED, NOON, LATER)
    for name in ("order_id", "account", "channel", "reference", "specification", "approve_up_to"):
        assert getattr(order, name) == getattr(request, name)
    assert (order.transition.source, order.transition.target) == (None, Status.SUBMITTED)
    assert order.transition.actor.account == ACCOUNT


@given(st.uuids(), st.integers(1, 1000))
def test_a_price_job_is_a_function_of_order_and_version(order_id: Any, version: int) -> None:
    order = an_order(order_id=order_id, version=version)
    again = an_order(order_id=order_id, version=version, status=Status.PRICE_FAILED, reference="another")
    assert domain.price_job(order) == domain.price_job(again)
    assert domain.price_job(order) != domain.price_job(msgspec.structs.replace(order, version=version + 1))
    assert domain.price_job(order) != domain.price_job(msgspec.structs.replace(order, order_id=new_id()))


def test_a_price_makes_a_quote_that_is_held() -> None:
    order = an_order()
    job = domain.price_job(order)
    (priced,) = domain.take_price(order, job, a_price(job, order.order_id), 14, LATER)
    assert (priced.status, priced.version) == (Status.PRICE_CALCULATED, 2)
    assert priced.quote is not None
    assert (priced.quote.quote_id, priced.quote.amount) == (job, Decimal("129.50"))
    assert priced.quote.expires_at - priced.quote.priced_at == timedelta(days=14)
    assert priced.transition.actor == domain.ORDERS


def test_a_failed_price_says_why() -> None:
    order = an_order()
    job = domain.price_job(order)
    (failed,) = domain.take_price(order, job, a_price(job, order.order_id, failure=NOT_CLOSED), 14, LATER)
    assert (failed.status, failed.version, failed.failure) == (Status.PRICE_FAILED, 2, NOT_CLOSED)
    assert failed.transition.reason == NOT_CLOSED.detail
    assert failed.quote is None


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.SUBMITTED])
def test_a_price_for_an_order_that_does_not_wait_is_dropped(status: Status) -> None:
    order = an_order(status)
    job = domain.price_job(order)
    assert domain.take_price(order, job, a_price(job, order.order_id), 14, LATER) == []


def test_a_price_for_another_job_is_dropped() -> None:
    order = an_order()
    job = domain.price_job(order)
    for result in (a_price(new_id(), order.order_id), a_price(new_id(), order.order_id, failure=NOT_CLOSED)):
        assert domain.take_price(order, job, result, 14, LATER) == []
    assert domain.take_price(order, None, a_price(job, order.order_id), 14, LATER) == []


@given(bound=st.decimals("0.01", "999999.99", places=2), cents=st.integers(-100_000, 100_000))
def test_a_standing_approval_holds_up_to_its_amount_and_not_a_cent_further(bound: Decimal, cents: int) -> None:
    amount = bound + Decimal(cents) / 100
    order = an_order(approve_up_to=bound)
    job = domain.price_job(order)
    versions = domain.take_price(order, job, a_price(job, order.order_id, str(amount)), 14, LATER)
    assert [v.version for v in versions] == [2, 3][: len(versions)]
    assert versions[0].status is Status.PRICE_CALCULATED
    assert (len(versions) == 2) == (cents <= 0)


@pytest.mark.parametrize(("amount", "approved"), [("199.99", True), ("200.00", True), ("200.01", False)])
def test_standing_approval_at_its_bound(amount: str, approved: bool) -> None:
    order = an_order(approve_up_to=Decimal(200))
    job = domain.price_job(order)
    versions = domain.take_price(order, job, a_price(job, order.order_id, amount), 14, LATER)
    assert (versions[-1].status is Status.MANUFACTURING_APPROVED) is approved
    if approved:
        assert versions[-1].approved_at == LATER
        assert versions[-1].transition.actor.kind is ActorKind.PARTNER
        assert "200" in str(versions[-1].transition.reason)


@pytest.mark.parametrize(("size", "heavy"), [(9_999_999, False), (10_000_000, True)])
def test_large_models_are_heavy(size: int, heavy: bool) -> None:
    specification = a_specification()
    model = msgspec.structs.replace(specification.model, size_bytes=size)
    order = an_order(specification=msgspec.structs.replace(specification, model=model))
    assert domain.is_heavy(order.specification) is heavy
