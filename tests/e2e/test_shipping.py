"""Orders door to door by robots through the public APIs; then with every service killed under them."""

import time

from lostwax.audit.sources import Databases
from lostwax.contracts.orders import Status
from lostwax.demo.run import FINAL, Progress, ship_orders
from lostwax.local.credentials import SERVICES
from lostwax.local.stack import Stack

UNFINISHED_AT_A_KILL = 50
APART_S = 1.0
"""Between two kills: long enough for something to go on, short enough that all come before the orders are shipped."""


async def test_orders_travel_from_door_to_door(rough_stack: Stack, databases: Databases) -> None:
    seen: set[Status] = set()

    def show(progress: Progress) -> None:
        seen.update(progress.standing.hops)

    _, report = await ship_orders(
        rough_stack, databases, 12, rough_stack.folder / "calm", seed=1, show=show, limit_s=60
    )
    assert report.findings == []
    assert report.acknowledged == 12
    assert report.by_status == {"SHIPPED": 12}
    assert seen == {
        Status.SUBMITTED,
        Status.PRICE_CALCULATED,
        Status.MANUFACTURING_APPROVED,
        Status.MANUFACTURING_STARTED,
        Status.MANUFACTURING_COMPLETED,
        Status.PACKAGING,
        Status.SHIPPED,
    }


async def test_killing_each_service_loses_and_doubles_nothing(rough_stack: Stack, databases: Databases) -> None:
    orders = 480
    to_kill = list(SERVICES)
    kills: dict[str, int] = {}
    pids = {name: rough_stack.pid(name) for name in SERVICES}
    last_kill = time.monotonic()
    before: int | None = None

    def show(progress: Progress) -> None:
        nonlocal last_kill, before
        shipped = sum(progress.standing.by_status.get(s, 0) for s in FINAL)
        before = shipped if before is None else before
        unfinished = progress.accepted - (shipped - before)
        if to_kill and unfinished >= UNFINISHED_AT_A_KILL and time.monotonic() - last_kill > APART_S:
            name = to_kill.pop(0)
            rough_stack.kill(name)
            kills[name] = unfinished
            last_kill = time.monotonic()

    # The orders of the calm test are shipped already and count along.
    _, report = await ship_orders(
        rough_stack, databases, orders, rough_stack.folder / "kills", seed=2, show=show, limit_s=180, already=12
    )
    assert set(kills) == set(SERVICES), "not every service was killed in mid-run"
    assert min(kills.values()) >= UNFINISHED_AT_A_KILL
    assert all(rough_stack.pid(name) != pid for name, pid in pids.items()), "a killed service still runs"
    assert report.findings == []
    assert report.acknowledged == orders
    assert report.by_status == {"SHIPPED": orders + 12}
