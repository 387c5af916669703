"""The deliverer: sends what is due to hooks, fills gaps from Orders, sweeps the log.

One at a time for the database, by a session's advisory lock; others wait for the lock. Nothing is marked before it is
sent: whoever is killed in the middle sends it again, under the same id. The deliverer has a pool of its own, so that
intake never waits for it, and at rest it only listens.
"""

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import httpx
import msgspec

from lostwax.channel import store
from lostwax.contracts.orders import Order
from lostwax.kit.auth import ServiceSigner
from lostwax.kit.coalescer import Coalescer
from lostwax.kit.postgres import UNREACHABLE, Pool, let_go
from lostwax.kit.webhooks import signed_headers
from lostwax.partner_api import hooks, hooks_store
from lostwax.partner_api.hooks_sender import Answer, Sender
from lostwax.partner_api.hooks_store import AILING, Due, Gap, Settled

log = logging.getLogger(__name__)

AT_ONCE, AT_ONCE_PER_HOOK = 32, 4
MOST_PER_S = 150
"""Deliveries begun a second: each costs this process more than taking an order in (1.3 ms against 0.1), and intake
comes first. What is more than that waits its turn."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 12 * 3600.0
GIVE_UP_AFTER_S = 3 * 24 * 3600.0
DISABLE_AFTER = 3
"""So many deliveries given up in a row disable a hook."""
LOG_DAYS = 30.0

_LOCK = 7_300_011
_GATHER_S = 0.01  # so that what ends or arrives together costs one look at what is due
_SWEEP_EVERY_S = 3600.0
_SWEPT_AT_ONCE = 1000
_GAPS_AT_ONCE = 20
_HISTORY_PAGE = 100
_AFTER_A_FAULT_S = 5.0
_LONGEST_WAIT_FOR_ORDERS_S = 30.0

Render = Callable[[Due], bytes]
"""The body that tells a client of a delivery."""


class _History(msgspec.Struct, frozen=True):
    versions: list[Order]


class _UnderWay(msgspec.Struct, frozen=True):
    """A delivery that is being sent, and how many its hook may be sent at once."""

    hook_id: UUID
    most: int
    task: asyncio.Task[None]


class _OrdersAway(Exception):
    """Orders answered something else than a history."""


class _NotThere(Exception):
    """Orders does not have this version."""


def pause_before(attempt: int, chance: float) -> float:
    """Seconds between attempt number `attempt` (from 1) and the next, with jitter: `chance` is 0 .. 1."""
    return min(FIRST_PAUSE_S * 2.0 ** min(attempt - 1, 20), LONGEST_PAUSE_S) * (0.8 + 0.4 * chance)


def judge(due: Due, answer: Answer, chance: float) -> Settled:
    """What an answer means for its delivery: delivered, once more after a pause, or given up."""
    status = answer.status
    delivered = status is not None and 200 <= status < 300
    gone = status == 410
    error = answer.error
    pause = 0.0
    if delivered:
        state = "delivered"
    elif due.order_id is None or (due.age_s >= GIVE_UP_AFTER_S and not gone):
        state = "given_up"
    else:
        state = "due"
        pause = pause_before(due.attempts + 1, chance)
        if status in (429, 503) and answer.retry_after_s is not None:
            pause = max(pause, min(float(answer.retry_after_s), LONGEST_PAUSE_S))
    if error is None and not delivered:
        is_redirect = status is not None and 300 <= status < 400
        error = f"answered {status}" + ("; redirects are not followed" if is_redirect else "")
    return Settled(
        number=due.number,
        hook_id=due.hook_id,
        order_id=due.order_id,
        version=due.version,
        state=state,
        pause_s=pause,
        duration_ms=answer.duration_ms,
        response_status=status,
        response_body=answer.body,
        error=error,
        counts=delivered or due.order_id is not None,
        gone=gone,
        after_failures=due.hook_failures,
    )


def _not_sent(due: Due, error: Exception, chance: float) -> Settled:
    """What is to be sent once more could not be had from Orders: later, or never. It says nothing of the hook."""
    gone = isinstance(error, _NotThere)
    return Settled(
        number=due.number,
        hook_id=due.hook_id,
        order_id=due.order_id,
        version=due.version,
        state="given_up" if gone else "due",
        pause_s=0 if gone else pause_before(due.attempts + 1, chance),
        error=str(error) if gone else "not sent: the order's history cannot be read just now",
        counts=False,
    )


class Deliverer:
    """Delivers until cancelled. `pool` is its own; `now` stamps what is signed."""

    def __init__(
        self,
        pool: Pool,
        dsn: str,
        orders_url: str,
        signer: ServiceSigner,
        sender: Sender,
        *,
        render: Render,
        now: Callable[[], datetime],
    ) -> None:
        self._pool = pool
        self._dsn = dsn
        self._orders = httpx.AsyncClient(base_url=orders_url, timeout=5)
        self._signer = signer
        self._sender = sender
        self._render = render
        self._now = now
        self._something_due = asyncio.Event()
        self._something_missing = asyncio.Event()
        self._under_way: dict[int, _UnderWay] = {}
        self._begun = 0
        self._outcomes: Coalescer[Settled, None] = Coalescer(self._settle, flushers=1)

    async def run(self) -> None:
        """Deliver until cancelled, once; database, Orders and receivers may come and go."""
        pause = 0.2
        async with self._orders:
            while True:
                try:
                    await self._hold_lock_and_deliver()
                    pause = 0.2
                except UNREACHABLE as error:
                    log.warning("web hooks: database away", extra={"error": repr(error)})
                except Exception:
                    # A fault in here must not end the service that takes orders in.
                    log.exception("web hooks stopped, beginning again")
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)

    def _wake(self) -> None:
        self._something_due.set()
        self._something_missing.set()

    async def _hold_lock_and_deliver(self) -> None:
        """Returns when the connection is lost, and with it the lock."""
        connection = await asyncpg.connect(
            self._dsn, timeout=5, server_settings={"application_name": "web hooks", "jit": "off"}
        )
        lost = asyncio.Event()
        work: list[asyncio.Task[object]] = []
        try:
            await connection.add_listener(hooks_store.CHANNEL, lambda *_: self._wake())
            connection.add_termination_listener(lambda *_: lost.set())
            await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
            work = [
                asyncio.create_task(lost.wait()),
                asyncio.create_task(self._deliver()),
                asyncio.create_task(self._fill_gaps()),
                asyncio.create_task(self._sweep_now_and_then()),
            ]
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            everything = [*work, *(sending.task for sending in self._under_way.values())]
            for task in everything:
                task.cancel()
            await asyncio.gather(*everything, return_exceptions=True)
            self._under_way.clear()
            await let_go(connection)

    # -- sending ------------------------------------------------------------------------------------------------------

    async def _deliver(self) -> None:
        while True:
            self._something_due.clear()
            before = self._begun
            wait_s = await self._send_what_is_due()
            await _wait(self._something_due, wait_s)
            await asyncio.sleep(max(_GATHER_S, (self._begun - before) / MOST_PER_S))

    async def _send_what_is_due(self) -> float | None:
        """Start as many deliveries as may run; returns the seconds until more are due (None: until woken)."""
        if len(self._under_way) >= AT_ONCE:
            return None
        of_hook = Counter(sending.hook_id for sending in self._under_way.values())
        busy = [s.hook_id for s in self._under_way.values() if of_hook[s.hook_id] >= s.most]
        async with self._pool.acquire() as connection:
            found = await hooks_store.due(connection, list(self._under_way), busy, AT_ONCE_PER_HOOK, 4 * AT_ONCE)
        for due in found:
            if due.wait_s > 0:
                return due.wait_s
            most = 1 if due.hook_failures >= AILING else AT_ONCE_PER_HOOK
            if of_hook[due.hook_id] >= most:
                continue
            if len(self._under_way) >= AT_ONCE:
                return None
            of_hook[due.hook_id] += 1
            self._begun += 1
            self._under_way[due.number] = _UnderWay(due.hook_id, most, asyncio.create_task(self._send(due)))
        return None

    async def _send(self, due: Due) -> None:
        try:
            if due.order_id is not None and due.order_body is None:
                try:
                    due = await self._with_order(due)
                except (httpx.HTTPError, _OrdersAway, _NotThere) as error:
                    await self._outcomes.submit(_not_sent(due, error, random.random()))
                    return
            body = self._render(due)
            headers = signed_headers(due.secrets, str(due.delivery_id), self._now(), body)
            answer = await self._sender.post(due.url, headers, body)
            await self._outcomes.submit(judge(due, answer, random.random()))
        except UNREACHABLE as error:
            log.warning("web hooks: database away", extra={"delivery": str(due.delivery_id), "error": repr(error)})
            await asyncio.sleep(_AFTER_A_FAULT_S)
        except Exception:
            # It stays due; not at once again, or a fault in here would become a flood out there.
            log.exception("delivery failed here", extra={"delivery": str(due.delivery_id)})
            await asyncio.sleep(_AFTER_A_FAULT_S)
        finally:
            self._under_way.pop(due.number, None)
            self._something_due.set()

    async def _with_order(self, due: Due) -> Due:
        """What is sent once more, with the order as it was at that version."""
        assert due.order_id is not None
        assert due.version is not None
        page = await self._history_page(due.order_id, due.version - 1)
        if not page or page[0].version != due.version:
            raise _NotThere(f"Orders does not know version {due.version} of this order")
        return msgspec.structs.replace(due, order_body=msgspec.json.encode(page[0]).decode())

    async def _settle(self, outcomes: Sequence[Settled]) -> Sequence[None]:
        health = [o for o in outcomes if o.counts or o.gone]
        gone = {o.hook_id for o in health if o.gone}
        well = {o.hook_id for o in health if o.state == "delivered"} - gone
        async with self._pool.acquire() as connection, connection.transaction():
            await hooks_store.settle(connection, outcomes)
            if recovered := {o.hook_id for o in health if o.after_failures} & well:
                await hooks_store.note_success(connection, sorted(recovered))
            for hook_id in sorted({o.hook_id for o in health} - well):
                ill = [o for o in health if o.hook_id == hook_id and o.state != "delivered"]
                disabled = await hooks_store.note_failures(
                    connection,
                    hook_id,
                    len(ill),
                    sum(o.state == "given_up" and o.counts for o in ill),
                    give_up_at=DISABLE_AFTER,
                    gone=hook_id in gone,
                )
                if disabled:
                    log.warning("web hook disabled", extra={"hook": str(hook_id), "error": ill[-1].error})
        return [None] * len(outcomes)

    # -- filling gaps -------------------------------------------------------------------------------------------------

    async def _fill_gaps(self) -> None:
        pause = 1.0
        while True:
            self._something_missing.clear()
            async with self._pool.acquire() as connection:
                gaps = await hooks_store.gaps(connection, _GAPS_AT_ONCE)
                wait_s = None if gaps else await hooks_store.seconds_to_next_gap(connection)
            if not gaps:
                await _wait(self._something_missing, wait_s)
                continue
            try:
                for gap in gaps:
                    await self._fill(gap, await self._history(gap))
                pause = 1.0
            except (httpx.HTTPError, _OrdersAway) as error:
                log.warning("web hooks wait for Orders", extra={"error": repr(error), "pause_s": pause})
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_WAIT_FOR_ORDERS_S)

    async def _history(self, gap: Gap) -> list[Order]:
        """Versions above the gap's beginning, as Orders has them; none when it does not know the order."""
        versions: list[Order] = []
        while True:
            page = await self._history_page(gap.order_id, versions[-1].version if versions else gap.after)
            versions += page
            if len(page) < _HISTORY_PAGE:
                return versions

    async def _history_page(self, order_id: UUID, after: int) -> list[Order]:
        response = await self._orders.get(
            f"/v1/orders/{order_id}/history",
            params={"after": after},
            headers={"Authorization": f"Bearer {self._signer.token('orders')}"},
        )
        if response.status_code == 404:
            return []
        if response.status_code != 200:
            raise _OrdersAway(f"{response.status_code} {response.text[:200]}")
        return msgspec.json.decode(response.content, type=_History).versions

    async def _fill(self, gap: Gap, versions: Sequence[Order]) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            if versions:
                await hooks.enqueue(connection, versions)
                await store.take_changes(connection, [versions[-1]])
            if not versions or versions[0].version != gap.after + 1:
                log.error("missing versions are not in Orders", extra={"order": str(gap.order_id), "after": gap.after})
            await hooks.look_again_later(connection, [gap.order_id])

    # -- sweeping -----------------------------------------------------------------------------------------------------

    async def _sweep_now_and_then(self) -> None:
        while True:
            await self.sweep()
            async with self._pool.acquire() as connection:
                await hooks_store.forget_old_secrets(connection)
            await asyncio.sleep(_SWEEP_EVERY_S)

    async def sweep(self) -> None:
        """Delete what is older than LOG_DAYS and what belongs to removed hooks, in pieces."""
        while True:
            async with self._pool.acquire() as connection, connection.transaction():
                overdue = await hooks_store.sweep_log(connection, LOG_DAYS, _SWEPT_AT_ONCE)
                if overdue:
                    await hooks_store.settle(connection, overdue)
            if overdue is None:
                break
        more = True
        while more:
            async with self._pool.acquire() as connection, connection.transaction():
                of_removed = await hooks_store.sweep_removed(connection, _SWEPT_AT_ONCE)
                resting = await hooks_store.sweep_tracks(connection, LOG_DAYS, _SWEPT_AT_ONCE)
                more = of_removed or resting


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    # Not wait_for: in Python 3.11 it may lose a cancellation.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
