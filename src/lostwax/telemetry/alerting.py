"""Alerts, evaluated by one process at a time and told to a web hook.

What is so, who evaluates and what the web hook has yet to be told stand in one document in OpenSearch, which is only
replaced by who has read its present state. So nothing is told twice for a restart, and a notice that was not delivered
outlives the process that found it.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from lostwax.contracts.ids import new_id
from lostwax.telemetry import handlers, rules
from lostwax.telemetry.clients import BadQuery, Hook, Kept, OpenSearch, SearchAway
from lostwax.telemetry.domain import Reading, duration
from lostwax.telemetry.rules import Alert, Measured, Notice, Rule

log = logging.getLogger(__name__)

BLIND_AFTER = timedelta(minutes=2)
_STALE = timedelta(seconds=60)
_SEEN_WITHIN = timedelta(days=1)
_TELL_S = 10.0
_MOST_NOTICES = 200
_GIVE_UP_AFTER = timedelta(days=1)


class State(msgspec.Struct, frozen=True):
    """`untold`: oldest first. `trouble`: why the last evaluation saw nothing."""

    holder: str
    held_until: datetime
    evaluated_at: datetime | None = None
    trouble: str | None = None
    alerts: list[Alert] = []
    untold: list[Notice] = []


class RuleView(msgspec.Struct, frozen=True):
    name: str
    severity: str
    summary: str
    lasting: str = msgspec.field(name="for")


class Alerts(msgspec.Struct, frozen=True):
    """What rings, the worst first. Not `seeing`: `trouble` says why, and `alerts` are as they were last. `untold`: what
    the web hook has not taken yet."""

    at: datetime
    seeing: bool
    trouble: str | None
    evaluated_at: datetime | None
    alerts: list[Alert]
    untold: int
    rules: list[RuleView]


class Watch:
    """`hook` None: nobody is told."""

    def __init__(
        self,
        search: OpenSearch,
        watched: Sequence[Rule],
        hook: Hook | None,
        *,
        every_s: float,
        replicas: int,
        now: Callable[[], datetime],
    ) -> None:
        self._search, self._rules, self._hook = search, watched, hook
        self._every_s, self._replicas, self._now = every_s, replicas, now
        self._me = str(new_id())
        self._last: State | None = None
        self._mine = True
        self._blind: tuple[str, datetime] | None = None
        self._blindness_told = False

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._every_s)

    async def look(self) -> None:
        """Evaluate once, unless another process does; tell what is to be told."""
        try:
            trouble = await self._evaluate()
        except (SearchAway, BadQuery) as error:
            trouble = "OpenSearch does not answer"
            if self._blind is None:
                log.warning("alerts cannot see", extra={"error": str(error)})
        if self._mine:
            await self._say_whether_blind(trouble)

    async def view(self) -> Alerts:
        """As all processes know it; as this one did last while OpenSearch is away."""
        now = self._now()
        trouble: str | None = None
        try:
            kept = await self._search.kept()
            self._last = self._last if kept is None else msgspec.json.decode(kept.text, type=State)
        except (SearchAway, BadQuery):
            trouble = "OpenSearch does not answer"
        last = self._last
        if last is None or last.evaluated_at is None:
            trouble = trouble or (last.trouble if last is not None else None) or "nothing was evaluated yet"
        elif trouble is None:
            late = now - last.evaluated_at > timedelta(seconds=max(60.0, 4 * self._every_s))
            trouble = last.trouble or ("nobody evaluates" if late else None)
        return Alerts(
            now,
            trouble is None,
            trouble,
            last.evaluated_at if last is not None else None,
            last.alerts if last is not None else [],
            len(last.untold) if last is not None else 0,
            [RuleView(r.name, r.severity, r.summary, r.lasting) for r in self._rules],
        )

    async def _evaluate(self) -> str | None:
        """Returns why nothing can be seen, or None. Raises SearchAway, BadQuery."""
        now = self._now()
        kept = await self._search.kept()
        if kept is None:
            await self._search.prepare_kept(replicas=self._replicas)
        before = State("", now) if kept is None else msgspec.json.decode(kept.text, type=State)
        self._last = before
        self._mine = before.holder == self._me or before.held_until <= now
        if not self._mine:
            return None
        seen = await handlers.last_seen(self._search, now - _SEEN_WITHIN)
        newest = max(seen.values(), default=None)
        held_until = now + timedelta(seconds=4 * self._every_s + _TELL_S)
        if newest is None or now - newest > _STALE:
            # Telemetry measures itself: when not even that has come, its reader stands, and nobody is unseen for it.
            trouble = f"no metrics have come since {newest:%H:%M:%S} UTC" if newest else "no metrics have come yet"
            after = State(self._me, held_until, now, trouble, before.alerts, before.untold)
        else:
            trouble = None
            alerts, notices = rules.evaluate(self._rules, before.alerts, await self._measure(seen, now), now)
            for notice in notices:
                log.warning(
                    f"alert {notice.state}",
                    extra={"alert": notice.alert.rule, "summary": notice.alert.summary, "why": notice.why},
                )
            untold = [*before.untold, *notices] if self._hook is not None else []
            after = State(self._me, held_until, now, None, alerts, untold[-_MOST_NOTICES:])
        mark = await self._search.keep(msgspec.json.encode(after).decode(), kept)
        if mark is None:
            self._mine = False
            return trouble
        self._last = after
        if after.untold:
            await self._tell(after, mark)
        return trouble

    async def _measure(self, seen: Mapping[str, datetime], now: datetime) -> Mapping[str, Sequence[Measured]]:
        """One query for each length of time that rules look back."""
        by_span: dict[timedelta, list[Rule]] = defaultdict(list)
        for rule in self._rules:
            by_span[duration(rule.over)].append(rule)
        found: dict[str, Sequence[Measured]] = {}
        for span, some in by_span.items():
            names = sorted({rule.metric for rule in some if rule.metric})
            readings: list[Reading] = await handlers.recent(self._search, names, now, span) if names else []
            found |= {rule.name: rules.measure(rule, readings, seen, now) for rule in some}
        return found

    async def _tell(self, state: State, mark: Kept) -> None:
        """In order, as many as the web hook takes now; the others wait for the next time."""
        assert self._hook is not None
        waiting = list(state.untold)
        try:
            async with asyncio.timeout(_TELL_S):
                while waiting:
                    notice = waiting[0]
                    old = self._now() - notice.at > _GIVE_UP_AFTER
                    if not (await self._hook.tell(notice.id, msgspec.json.encode(notice)) or old):
                        break
                    waiting.pop(0)
        except TimeoutError:
            pass
        if len(waiting) < len(state.untold):
            after = msgspec.structs.replace(state, untold=waiting)
            if await self._search.keep(msgspec.json.encode(after).decode(), mark) is not None:
                self._last = after

    async def _say_whether_blind(self, trouble: str | None) -> None:
        """That nothing can be seen is told directly: where notices are kept is away, too."""
        now = self._now()
        if trouble is not None:
            why, since = self._blind = (trouble, now if self._blind is None else self._blind[1])
            if not self._blindness_told and now - since >= BLIND_AFTER:
                self._blindness_told = await self._told(rules.blind(why, since, now))
        elif self._blind is not None:
            why, since = self._blind
            if not self._blindness_told or await self._told(rules.blind(why, since, now, over=True)):
                self._blind, self._blindness_told = None, False

    async def _told(self, notice: Notice) -> bool:
        log.warning(f"alert {notice.state}", extra={"alert": notice.alert.rule, "summary": notice.alert.summary})
        return self._hook is None or await self._hook.tell(notice.id, msgspec.json.encode(notice))
