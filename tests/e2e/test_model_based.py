"""Any interleaving of commands, redelivery, reordering and process death leaves each order where `life.py` says.

Each example submits a few orders by the partner API and draws what happens to them: commands by the partner's and the
operators' APIs and as records on `orders.commands` for everybody else; from the right and the wrong people, having seen
the right or a wrong version, once or twice, some before the order itself, some that end in the dead letters and are
discarded at last; and services killed in between. An order's records go to one partition, in the sequence drawn; the
test waits only where a price is due and where an API reads its own copy of the order, so nothing depends on timing.

LOSTWAX_NIGHT_EXAMPLES=1000 draws that many, other ones each time.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from decimal import Decimal
from uuid import UUID

import asyncpg
import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.builders import (
    Operator,
    Partner,
    a_partner,
    an_operator,
    an_uploaded_model,
    submit,
    wait_for,
)
from tests.e2e.life import LIFE, Life

from lostwax.audit.run import audit
from lostwax.cli.audit import databases_of
from lostwax.contracts import catalogue, topics
from lostwax.contracts.ids import bucket_of, derived_id, new_id, partition_of
from lostwax.contracts.orders import (
    Action,
    Actor,
    ActorKind,
    Approve,
    Cancel,
    Close,
    Command,
    CompleteManufacturing,
    Hold,
    Order,
    Pack,
    ReleaseClaim,
    Resubmit,
    Resume,
    Rework,
    Ship,
    Shipment,
    StartManufacturing,
)
from lostwax.kit import dead
from lostwax.kit.clock import utc_now
from lostwax.kit.kafka import OutgoingRecord, Publisher
from lostwax.kit.kafka_reading import read_to_end
from lostwax.local.stack import Stack

NIGHT = int(os.environ.get("LOSTWAX_NIGHT_EXAMPLES", "0"))
PATIENCE_S = 60.0
SPEAKS_FOR = {
    "partner": "partner_api",
    "customer": "shop",
    "operator": "mes",
    "supervisor": "mes",
    "seller": "crm",
    "administrator": "crm",
    "system": "mes",
}
FORWARD = {
    "PRICE_CALCULATED": ("approve", "seller"),
    "PRICE_FAILED": ("resubmit", "seller"),
    "MANUFACTURING_APPROVED": ("start", "operator"),
    "REWORK": ("start", "operator"),
    "MANUFACTURING_STARTED": ("complete", "operator"),
    "MANUFACTURING_COMPLETED": ("pack", "operator"),
    "PACKAGING": ("ship", "operator"),
    "SHIPPED": ("close", "system"),
    "ON_HOLD": ("resume", "seller"),
}
BY_API = {
    "PRICE_CALCULATED": "approve",
    "PRICE_FAILED": "resubmit",
    "MANUFACTURING_APPROVED": "start",
    "REWORK": "start",
    "MANUFACTURING_STARTED": "complete",
    "MANUFACTURING_COMPLETED": "pack",
    "PACKAGING": "ship",
}


@dataclass(frozen=True)
class Wish:
    """A command as it is drawn. `action` "": the next one of the order's straight way. `by`: a record, or an API."""

    action: str = ""
    kind: str = "seller"
    by: str = "record"
    seen: int = 0
    own: bool = True
    right_quote: bool = True
    who: str = "Rosa"
    sound: bool | None = None
    copies: int = 1
    forged: str = ""


@dataclass(frozen=True)
class Step:
    """What happens next: a wish for an order, something of it delivered again, or a service's death."""

    order: int
    wish: Wish | None = None
    again: int | None = None
    killed: str = ""


@dataclass(frozen=True)
class Start:
    sound: bool
    standing: bool
    early: list[Wish]


ACTIONS = st.sampled_from(sorted(LIFE))
any_wish = st.builds(
    Wish,
    action=ACTIONS,
    kind=st.sampled_from(["seller", "partner", "operator", "administrator", "supervisor", "system", "customer"]),
    seen=st.sampled_from([0, 0, 0, 0, -1, 1]),
    own=st.sampled_from([True, True, False]),
    right_quote=st.booleans(),
    who=st.sampled_from(["Rosa", "Otto"]),
    sound=st.sampled_from([None, True, True, False]),
    copies=st.sampled_from([1, 1, 2]),
)
seller_wish = st.builds(
    Wish, action=st.sampled_from(["hold", "resume", "cancel", "hold", "resume", "rework"]), kind=st.just("seller")
)
forward = st.builds(Wish, copies=st.sampled_from([1, 1, 2]), who=st.sampled_from(["Rosa", "Rosa", "Otto"]))
forged = st.builds(Wish, action=ACTIONS, forged=st.sampled_from(["forged", "malformed"]))
by_api = st.builds(Wish, by=st.just("api"), copies=st.sampled_from([1, 2]))
other_by_api = st.builds(
    Wish,
    action=st.sampled_from(["cancel", "resubmit", "release", "rework", "start", "ship"]),
    by=st.just("api"),
    sound=st.sampled_from([None, True, False]),
)


def weighted(**strategies: tuple[int, st.SearchStrategy[object]]) -> st.SearchStrategy[object]:
    """One of these, by weight (`one_of` takes the same strategy twice for once)."""
    names = [name for name, (weight, _) in strategies.items() for _ in range(weight)]
    return st.sampled_from(names).flatmap(lambda name: strategies[name][1])


wishes = weighted(
    forward=(5, forward), by_api=(5, by_api), seller=(2, seller_wish), any=(3, any_wish), other_by_api=(1, other_by_api)
)
starts = st.lists(
    st.builds(
        Start,
        sound=st.sampled_from([True, True, True, False]),
        standing=st.booleans(),
        early=st.lists(st.one_of(seller_wish, any_wish, seller_wish, any_wish, forged), max_size=3),
    ),
    min_size=1,
    max_size=4,
)
steps = st.lists(
    weighted(
        wish=(22, st.builds(Step, order=st.integers(0, 3), wish=wishes)),
        forged=(1, st.builds(Step, order=st.integers(0, 3), wish=forged)),
        again=(2, st.builds(Step, order=st.integers(0, 3), again=st.integers(0, 5))),
        killed=(
            1,
            st.builds(
                Step, order=st.just(0), killed=st.sampled_from(["orders", "orders", "partner_api", "mes", "pricing"])
            ),
        ),
    ),
    min_size=10,
    max_size=30,
)


@dataclass
class Case:
    """One order: how it is and how it should be. `parked`: commands that wait behind one in the dead letters."""

    order_id: UUID
    life: Life
    wanted: dict[UUID, bool] = field(default_factory=dict)
    parked: list[tuple[UUID, Wish, int, int]] = field(default_factory=list)
    dead: int = 0
    sent: list[OutgoingRecord] = field(default_factory=list)
    quote: tuple[UUID, Decimal] | None = None


class World:
    """The running services, and what the test needs to speak to them and to look behind them."""

    def __init__(self, stack: Stack, partner: Partner, operator: Operator, model: str) -> None:
        self.stack, self.partner, self.operator, self.model = stack, partner, operator, model
        self.bootstrap = stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"]
        self.publisher = Publisher(self.bootstrap, client_id="test-model-based")
        self.cases: list[Case] = []

    async def open(self) -> None:
        shards = self.stack.env("orders")["LOSTWAX_SHARD_URLS"].split(",")
        self.shards = [await asyncpg.create_pool(dsn, min_size=1, max_size=2) for dsn in shards]
        views = [self.stack.env(name)["LOSTWAX_DATABASE_URL"] for name in ("partner_api", "mes")]
        self.views = [await asyncpg.create_pool(dsn, min_size=1, max_size=2) for dsn in views]

    async def close(self) -> None:
        for pool in (*self.shards, *self.views):
            await pool.close()
        await asyncio.to_thread(self.publisher.close)

    async def rows(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        """From whichever shard has any."""
        return [row for pool in self.shards for row in await pool.fetch(sql, *arguments)]

    # -- beginning ------------------------------------------------------------------------------------------------

    async def pause_requests(self, paused: bool) -> None:
        headers = {"Authorization": f"Bearer {self.stack.console_token('partner_api')}"}
        async with httpx.AsyncClient(base_url=self.stack.url("partner_api"), timeout=20) as http:
            answer = await http.put("/v1/publishing/orders.requests", json={"paused": paused}, headers=headers)
            assert answer.status_code == 200, answer.text

    async def begin(self, drawn: list[Start]) -> None:
        """Submit the orders; what is early comes while their requests still lie in the outbox."""
        self.cases = []
        self.since_ms = round(time.time() * 1000) - 1000
        early = any(start.early for start in drawn)
        await asyncio.to_thread(self.stack.wait_ready, "partner_api")
        if early:
            await self.pause_requests(True)
        try:
            for start in drawn:
                changes = {"approve_up_to": "1000000"} if start.standing else {}
                finish = "polished" if start.sound else "glitter"
                order_id = UUID(await submit(self.partner, self.model, finish=finish, **changes))
                self.cases.append(Case(order_id, Life(start.sound, start.standing)))
            for case, start in zip(self.cases, drawn, strict=True):
                for wish in start.early:
                    await self.send(case, wish)
                await wait_for(lambda c=case: self.kept_early(c), PATIENCE_S)
        finally:
            if early:
                await self.pause_requests(False)

    async def kept_early(self, case: Case) -> bool:
        early = await self.rows("SELECT command_id FROM early_commands WHERE order_id = $1", case.order_id)
        marks = await self.rows("SELECT FROM dead_commands WHERE order_id = $1", case.order_id)
        return len(early) == len(case.wanted) + len(case.parked) and len(marks) == case.dead

    # -- commands -------------------------------------------------------------------------------------------------

    async def has_price(self, case: Case) -> None:
        """What is to come by itself has come: the price of an order that is SUBMITTED."""
        if case.life.status == "SUBMITTED":
            case.life.price()
            await self.stands(case)
            (row,) = await self.rows("SELECT body FROM orders WHERE order_id = $1", case.order_id)
            quote = msgspec.json.decode(row["body"], type=Order).quote
            case.quote = case.quote if quote is None else (quote.quote_id, quote.amount)

    async def stands(self, case: Case) -> None:
        async def there() -> bool:
            rows = await self.rows("SELECT version, status FROM orders WHERE order_id = $1", case.order_id)
            return [tuple(r) for r in rows] == [(case.life.version, case.life.status)]

        try:
            await wait_for(there, PATIENCE_S)
        except AssertionError:
            seen = await self.rows(
                "SELECT version, status FROM order_history WHERE order_id = $1 ORDER BY version", case.order_id
            )
            raise AssertionError(f"{case.order_id} should be {case.life.trail}, is {[*map(tuple, seen)]}") from None

    def resolved(self, case: Case, wish: Wish) -> Wish | None:
        if wish.action:
            return wish
        if wish.by == "api":
            action = BY_API.get(case.life.status)
            return None if action is None else _with(wish, action)
        action, kind = FORWARD.get(case.life.status, ("close", "system"))
        return _with(wish, action, kind, case.life.maker if action == "complete" else wish.who)

    async def send(self, case: Case, wish: Wish) -> None:
        """A record on `orders.commands`; the model decides it at once, unless it waits behind a dead one."""
        actor, action = self.actor(case, wish), self.action(case, wish)
        seen = case.life.version + wish.seen
        command = Command(new_id(), case.order_id, actor, seen, utc_now(), action)
        partition = partition_of(bucket_of(case.order_id))
        body = b'{"rubbish":1}' if wish.forged == "malformed" else catalogue.encode(command)
        source = "nobody" if wish.forged == "forged" else SPEAKS_FOR[wish.kind]
        headers = catalogue.cloud_headers(str(new_id()), "orders.command.v1", source, utc_now(), None)
        record = OutgoingRecord(topics.ORDER_COMMANDS.name, str(case.order_id), body, headers, partition)
        await self.publisher.publish([record] * (1 if wish.forged else wish.copies))
        if wish.forged:
            case.dead += 1
            return
        case.sent.append(record)
        quote = case.life.quote if wish.right_quote else -1
        if case.dead:
            case.parked.append((command.command_id, wish, seen, quote))
        else:
            case.wanted[command.command_id] = self.decide(case, wish, seen, quote)

    def decide(self, case: Case, wish: Wish, seen: int, quote: int) -> bool:
        return case.life.obey(wish.action, wish.kind, wish.who, own=wish.own, seen=seen, quote=quote, sound=wish.sound)

    def actor(self, case: Case, wish: Wish) -> Actor:
        account = self.partner.client_id if wish.own else new_id()
        owner = wish.kind in ("partner", "customer")
        id_ = str(self.operator.operator_id) if wish.who == self.operator.name else str(derived_id("test", wish.who))
        return Actor(ActorKind(wish.kind), id_, wish.who, account if owner else None)

    def action(self, case: Case, wish: Wish) -> Action:
        quote_id, amount = case.quote or (new_id(), Decimal(1))
        actions: dict[str, Action] = {
            "approve": Approve(quote_id if wish.right_quote else new_id(), amount),
            "start": StartManufacturing(new_id()),
            "release": ReleaseClaim(new_id(), "lunch"),
            "complete": CompleteManufacturing(),
            "rework": Rework("porous"),
            "pack": Pack(),
            "ship": Ship(Shipment("DHL", "42")),
            "close": Close(),
            "hold": Hold("wait"),
            "resume": Resume(),
            "cancel": Cancel("no more"),
            "resubmit": Resubmit(None if wish.sound is None else self.specification(case, wish.sound)),
        }
        return actions[wish.action]

    def specification(self, case: Case, sound: bool) -> object:
        return msgspec.structs.replace(self.spec, finish="satin" if sound else "glitter")

    async def ask(self, case: Case, wish: Wish) -> None:
        """By the API of who may do it; it reads its own copy of the order, which must be there."""
        by_partner = wish.action in ("approve", "cancel", "resubmit")
        if wish.action not in (
            "approve",
            "cancel",
            "resubmit",
            "start",
            "complete",
            "release",
            "rework",
            "pack",
            "ship",
        ):
            return
        service = "partner_api" if by_partner else "mes"
        await asyncio.to_thread(self.stack.wait_ready, service)
        await self.stands(case)
        await wait_for(lambda: self.sees(case, 0 if by_partner else 1), PATIENCE_S)
        client: httpx.AsyncClient = self.partner if by_partner else self.operator
        path = {"approve": "accept", "start": "claim"}.get(wish.action, wish.action)
        quote_id, amount = case.quote or (new_id(), Decimal(1))
        bodies: dict[str, object] = {
            "approve": {"quote_id": str(quote_id), "amount": str(amount)},
            "cancel": {"reason": "no more"},
            "resubmit": {} if wish.sound is None else {"finish": "satin" if wish.sound else "glitter"},
            "release": {"reason": "lunch"},
            "rework": {"reason": "porous"},
            "ship": {"carrier": "DHL", "tracking_number": "42"},
        }
        who = wish.who if by_partner else self.operator.name
        wish = _with(wish, wish.action, "partner" if by_partner else "operator", who)
        expected = self.decide(case, wish, case.life.version, case.life.quote)
        # Asked twice it is one command; or a second one, when the first was decided meanwhile: then it comes too late.
        # To ask for the price anew is never too late.
        copies = 1 if wish.action == "resubmit" else wish.copies
        answers = [
            await client.post(f"/v1/orders/{case.order_id}/{path}", json=bodies.get(wish.action)) for _ in range(copies)
        ]
        assert answers[0].status_code in (200, 202) or not expected, answers[0].text
        for answer in answers:
            if answer.status_code == 409:
                continue
            assert answer.status_code in (200, 202), answer.text
            asked = answer.json()
            command_id = UUID(asked.get("command_id") or asked.get("step_id") or asked["claim_id"])
            place = f"/v1/commands/{command_id}" if by_partner else f"/v1/steps/{command_id}"
            accepted = case.wanted.setdefault(command_id, expected and answer is answers[0])
            assert await wait_for(lambda p=place: _decided(client, p), PATIENCE_S) == (
                "accepted" if accepted else "refused"
            ), (wish, answer.text)

    async def sees(self, case: Case, view: int) -> bool:
        table = ("requests", "orders")[view]
        version = await self.views[view].fetchval(f"SELECT version FROM {table} WHERE order_id = $1", case.order_id)
        return bool(version == case.life.version)

    # -- steps ----------------------------------------------------------------------------------------------------

    async def take(self, step: Step) -> None:
        if step.killed:
            await asyncio.to_thread(self.stack.wait_ready, step.killed)
            await asyncio.to_thread(self.stack.kill, step.killed)
            return
        case = self.cases[step.order % len(self.cases)]
        if step.again is not None:
            if case.sent:
                await self.publisher.publish([case.sent[step.again % len(case.sent)]])
            return
        assert step.wish is not None
        if not case.dead:
            await self.has_price(case)
        wish = self.resolved(case, step.wish)
        if wish is None or (wish.by == "api" and case.dead):
            return
        await (self.ask(case, wish) if wish.by == "api" else self.send(case, wish))

    async def settle(self) -> None:
        """The dead commands are discarded, so that what waited behind them goes on; all prices come."""
        for case in self.cases:
            await self.has_price(case)
            if not case.dead:
                continue
            kept = case.life.left == "SUBMITTED"
            if kept:
                await wait_for(lambda c=case: self.keeps_price(c), PATIENCE_S)
            letters = await wait_for(lambda c=case: self.letters(c), PATIENCE_S)
            await wait_for(lambda c=case: self.all_parked(c), PATIENCE_S)
            await dead.discard(
                self.publisher, topics.ORDER_COMMANDS, letters, "of a test", tell=True, by="test", at=utc_now()
            )
            for command_id, wish, seen, quote in case.parked:
                case.wanted[command_id] = self.decide(case, wish, seen, quote)
                if kept and case.life.status == "SUBMITTED":
                    case.life.price()
                    kept = False
            await self.has_price(case)

    async def keeps_price(self, case: Case) -> bool:
        rows = await self.rows("SELECT kept_price IS NOT NULL AS kept FROM orders WHERE order_id = $1", case.order_id)
        return bool(rows and rows[0]["kept"])

    async def all_parked(self, case: Case) -> bool:
        rows = await self.rows("SELECT FROM parked_commands WHERE order_id = $1", case.order_id)
        return len(rows) == len(case.parked)

    async def letters(self, case: Case) -> list[dead.Letter] | None:
        all_ = (await asyncio.to_thread(dead.read, self.bootstrap, [topics.ORDER_COMMANDS]))[topics.ORDER_COMMANDS]
        mine = [letter for letter in all_.open.values() if letter.subject == str(case.order_id)]
        return mine if len(mine) == case.dead else None

    async def check(self) -> None:
        """Orders, its history, outcomes, messages and all views say what the model says."""
        told = [topics.ORDER_CHANGES.name, topics.ORDER_OUTCOMES.name]
        for case in self.cases:
            await self.stands(case)
            await wait_for(lambda c=case: self.all_decided(c), PATIENCE_S)
            for view in (0, 1):
                await wait_for(lambda c=case, v=view: self.sees(c, v), PATIENCE_S)
            await wait_for(lambda c=case: self.all_told(c), PATIENCE_S)
        records = await asyncio.to_thread(read_to_end, self.bootstrap, dict.fromkeys(told), since_ms=self.since_ms)
        changes: dict[UUID, dict[int, Order]] = {case.order_id: {} for case in self.cases}
        outcomes: dict[UUID, set[tuple[bool, int]]] = {}
        for record in records:
            body = catalogue.decode(dict(record.headers() or [])["ce_type"].decode(), record.value())
            if record.topic() == topics.ORDER_OUTCOMES.name:
                outcomes.setdefault(body.command_id, set()).add((body.accepted, body.version))
            elif body.order.order_id in changes:
                before = changes[body.order.order_id].setdefault(body.order.version, body.order)
                assert before == body.order, "two different orders of one version were told"
        for case in self.cases:
            history = await self.rows(
                "SELECT version, status, body FROM order_history WHERE order_id = $1 ORDER BY version", case.order_id
            )
            assert [r["version"] for r in history] == [*range(1, case.life.version + 1)]
            assert [r["status"] for r in history] == case.life.trail
            kept = {r["version"]: msgspec.json.decode(r["body"], type=Order) for r in history}
            assert changes[case.order_id].items() <= kept.items()
            assert max(changes[case.order_id]) == case.life.version
            decided = await self.rows("SELECT command_id, accepted FROM commands WHERE order_id = $1", case.order_id)
            assert {UUID(int=r["command_id"].int): r["accepted"] for r in decided} == case.wanted
            for command_id, accepted in case.wanted.items():
                assert [o for o, _ in outcomes[command_id]] == [accepted], "not one outcome"
            await wait_for(lambda c=case: self.nothing_waits(c), PATIENCE_S)
        report = await audit(databases_of(self.stack), self.bootstrap, [], now=utc_now)
        mine = {case.order_id for case in self.cases}
        assert [f for f in report.findings if f.order_id in mine] == []

    async def all_told(self, case: Case) -> bool:
        """A refused command shows in no view: its outcome may still lie in the outbox."""
        return not await self.rows("SELECT FROM outbox WHERE key = $1", str(case.order_id))

    async def nothing_waits(self, case: Case) -> bool:
        tables = ("dead_commands", "parked_commands", "early_commands")
        return not any([await self.rows(f"SELECT FROM {t} WHERE order_id = $1", case.order_id) for t in tables])

    async def all_decided(self, case: Case) -> bool:
        rows = await self.rows("SELECT FROM commands WHERE order_id = $1", case.order_id)
        return len(rows) >= len(case.wanted)


def _with(wish: Wish, action: str, kind: str = "", who: str = "") -> Wish:
    return Wish(**{**vars(wish), "action": action, "kind": kind or wish.kind, "who": who or wish.who})


async def _decided(client: httpx.AsyncClient, place: str) -> str | None:
    state = (await client.get(place)).raise_for_status().json()["state"]
    return None if state == "pending" else str(state)


@pytest.fixture(scope="module")
async def world(stack: Stack) -> AsyncIterator[World]:
    partner, operator = await a_partner(stack), await an_operator(stack, "Hanna")
    made = World(stack, partner, operator, await an_uploaded_model(partner))
    await made.open()
    try:
        first = await submit(partner, made.model)
        made.cases = [Case(UUID(first), Life())]
        await made.has_price(made.cases[0])
        (row,) = await made.rows("SELECT body FROM orders WHERE order_id = $1", UUID(first))
        made.spec = msgspec.json.decode(row["body"], type=Order).specification
        yield made
    finally:
        await made.close()
        await partner.aclose()
        await operator.aclose()


@settings(
    max_examples=NIGHT or 10,
    derandomize=not NIGHT,
    database=None,
    phases=[Phase.generate, Phase.shrink] if NIGHT else [Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(drawn=starts, then=steps)
async def test_any_interleaving_ends_where_the_model_says(world: World, drawn: list[Start], then: list[Step]) -> None:
    await world.begin(drawn)
    for step in then:
        await world.take(step)
    await world.settle()
    await world.check()
