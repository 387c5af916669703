"""Replay of every topic from its beginning changes nothing: neither under running services, by sending every record of
the order's topics again, nor after a start from offset 0. The digest of every table of every database, and of what is
in Redis, is the same before and after."""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from uuid import UUID

import asyncpg
import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from tests.builders import (
    SELLER,
    Operator,
    Partner,
    an_approved_order,
    an_operator,
    an_uploaded_model,
    order_at,
    records_of,
    ship_by_api,
    submit,
    wait_for,
)

from lostwax.contracts import catalogue, topics
from lostwax.contracts.ids import bucket_of, new_id, partition_of
from lostwax.contracts.orders import Action, Cancel, Command, Hold, Resume
from lostwax.kit.clock import utc_now
from lostwax.kit.kafka import OutgoingRecord, Publisher
from lostwax.local.stack import Stack

EXCEPT: Mapping[str, tuple[str, ...]] = {
    "mails": ("state", "next_at", "attempts", "sent_at", "trouble", "secret"),  # letters are sent meanwhile
    "hook_orders": ("changed_at",),  # when it was last looked at
    "hooks": ("failures", "retry_at"),  # of a receiver that does not answer, which is tried again meanwhile
    "hook_deliveries": (  # the same: attempts go on meanwhile
        "state",
        "next_at",
        "attempts",
        "first_attempt_at",
        "last_attempt_at",
        "duration_ms",
        "response_status",
        "response_body",
        "error",
    ),
}
"""Columns that move without any message, by table, with the reason."""

PASSING = {"outbox"}
"""Tables of what is on its way: compared by being empty."""


async def digests(stack: Stack) -> dict[str, str]:
    """sha-256 over the ordered rows of every table of every database, and over the keys of Redis."""
    found: dict[str, str] = {}
    for name, dsn in databases(stack).items():
        connection = await asyncpg.connect(dsn)
        try:
            tables = await connection.fetch(
                "SELECT table_name, array_agg(column_name::text ORDER BY column_name::text) AS columns"
                " FROM information_schema.columns WHERE table_schema = 'public' AND table_name IN"
                " (SELECT relname FROM pg_class WHERE relkind IN ('r', 'p')) GROUP BY table_name"
            )
            for table, columns in tables:
                kept = ", ".join(f'"{c}"' for c in columns if c not in EXCEPT.get(table, ()))
                rows = await connection.fetch(f"SELECT (t.*)::text AS row FROM (SELECT {kept} FROM {table}) t")
                lines = sorted(r["row"] for r in rows)
                digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
                found[f"{name}.{table}"] = f"{len(lines)} rows, {digest}"
        finally:
            await connection.close()
    return found | {f"mes.lists.{name}": text for name, text in (await lists(stack)).items()}


def databases(stack: Stack) -> dict[str, str]:
    """The address of every database of the stack that a service is given, under its service's name."""
    found: dict[str, str] = {}
    for process in stack.status():
        if process.kind != "service":
            continue
        for variable, value in sorted(stack.env(process.name).items()):
            for number, dsn in enumerate(value.split(",")):
                if dsn.startswith(("postgresql://", "postgres://")):
                    found[f"{process.name}.{variable}.{number}"] = dsn
    return found


async def lists(stack: Stack) -> dict[str, str]:
    """What the operators' lists show: the cards of every page, in their order."""
    operator = await an_operator_once(stack)
    shown: dict[str, str] = {}
    for name in ("queue", "packing", "shipping"):
        pages, after = [], ""
        while True:
            query = {"limit": "200", **({"after": after} if after else {})}
            page = (await operator.get(f"/v1/lists/{name}", params=query)).raise_for_status().json()
            pages += page["cards"]
            after = page.get("next") or ""
            if not after:
                break
        shown[name] = f"{page['source']}, {len(pages)} cards, {hashlib.sha256(repr(pages).encode()).hexdigest()}"
    return shown


_operator: dict[str, Operator] = {}


async def an_operator_once(stack: Stack) -> Operator:
    url = stack.url("mes")
    if url not in _operator:
        _operator[url] = await an_operator(stack, "Onlooker")
    return _operator[url]


def bootstrap(stack: Stack) -> str:
    return stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"]


def lag(stack: Stack) -> int:
    """Records that some reader of some topic has not settled yet."""
    admin = AdminClient({"bootstrap.servers": bootstrap(stack), "log_level": 3})
    groups = {g.group_id for g in admin.list_consumer_groups().result().valid}
    left = 0
    ends = end_offsets(stack)
    for group in groups:
        (future,) = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]).values()
        for place in future.result().topic_partitions:
            left += max(0, ends.get((place.topic, place.partition), 0) - max(0, place.offset))
    return left


def end_offsets(stack: Stack) -> dict[tuple[str, int], int]:
    consumer = Consumer({"bootstrap.servers": bootstrap(stack), "group.id": "reader", "log_level": 3})
    try:
        return {
            (topic.name, number): consumer.get_watermark_offsets(TopicPartition(topic.name, number), timeout=10)[1]
            for topic in topics.ALL
            for number in range(topic.partitions)
        }
    finally:
        consumer.close()


async def at_rest(stack: Stack) -> None:
    """Every record is read, every outbox empty, and nothing more comes of it."""

    async def quiet() -> bool:
        before = await asyncio.to_thread(end_offsets, stack)
        if await asyncio.to_thread(lag, stack):
            return False
        for dsn in databases(stack).values():
            connection = await asyncpg.connect(dsn)
            try:
                if await connection.fetchval("SELECT to_regclass('outbox') IS NOT NULL") and await connection.fetchval(
                    "SELECT EXISTS (SELECT FROM outbox)"
                ):
                    return False
            finally:
                await connection.close()
        await asyncio.sleep(0.7)  # longer than offsets take to be committed
        return await asyncio.to_thread(end_offsets, stack) == before and not await asyncio.to_thread(lag, stack)

    await wait_for(quiet, 120)


@pytest.fixture
async def busy(stack: Stack, partner: Partner) -> AsyncIterator[None]:
    """Orders at every status, with hooks; some were held, reworked, cancelled, refused, or could not be priced."""
    operator = await an_operator(stack)
    publisher = Publisher(bootstrap(stack), client_id="test-replay")

    async def by_seller(order_id: str, seen: int, action: Action) -> None:
        command = Command(new_id(), UUID(order_id), SELLER, seen, utc_now(), action)
        headers = catalogue.cloud_headers(str(new_id()), "orders.command.v1", "crm", utc_now(), None)
        place = partition_of(bucket_of(UUID(order_id)))
        record = OutgoingRecord(topics.ORDER_COMMANDS.name, order_id, catalogue.encode(command), headers, place)
        await publisher.publish([record])

    async def step(order_id: str, name: str, leads_to: str, **body: str) -> None:
        async def taken() -> bool:
            answer = await operator.post(f"/v1/orders/{order_id}/{name}", json=body or None)
            return answer.status_code in (200, 202)

        await wait_for(taken)
        await order_at(partner, order_id, leads_to)

    try:
        # Nobody listens there: what is to be told is kept.
        hook = await partner.post("/v1/hooks", json={"url": "http://127.0.0.1:9/hooks"})
        assert hook.status_code in (201, 422), hook.text
        model = await an_uploaded_model(partner)
        await submit(partner, model)
        failed = await submit(partner, model, finish="glitter")
        approved, made, packed, reworked, shipped, held, cancelled = [
            await an_approved_order(partner, model) for _ in range(7)
        ]
        await order_at(partner, failed, "PRICE_FAILED")
        for order_id in (made, packed, reworked):
            await step(order_id, "claim", "MANUFACTURING_STARTED")
        await step(packed, "complete", "MANUFACTURING_COMPLETED")
        await step(packed, "pack", "PACKAGING")
        await step(reworked, "rework", "REWORK", reason="porous")
        await ship_by_api(partner, operator, shipped)
        await by_seller(held, 3, Hold("wait"))
        await by_seller(approved, 3, Hold("wait"))
        await order_at(partner, approved, "ON_HOLD")
        await by_seller(approved, 4, Resume())
        await by_seller(made, 1, Cancel("stale"))
        await by_seller(str(new_id()), 1, Cancel("its order never comes"))
        answer = await partner.post(f"/v1/orders/{cancelled}/cancel", json={"reason": "no more"})
        assert answer.status_code == 202
        await order_at(partner, cancelled, "CANCELLED")
        await order_at(partner, held, "ON_HOLD")
        await order_at(partner, approved, "MANUFACTURING_APPROVED")
        yield
    finally:
        await operator.aclose()
        await asyncio.to_thread(publisher.close)


AGAIN = (topics.ORDER_REQUESTS, topics.ORDER_CHANGES, topics.ORDER_COMMANDS)


async def test_replay_changes_nothing(stack: Stack, busy: None) -> None:
    await an_operator_once(stack)
    await at_rest(stack)
    before = await digests(stack)

    publisher = Publisher(bootstrap(stack), client_id="test-replay")
    # What is in the dead letters would be a new dead letter.
    letters = await asyncio.to_thread(records_of, bootstrap(stack), [t.dead for t in AGAIN])
    poison = {dict(r.headers() or []).get("dead_source", b"").decode() for r in letters}
    records = [
        r
        for r in await asyncio.to_thread(records_of, bootstrap(stack), [t.name for t in AGAIN])
        if f"{r.topic()}/{r.partition()}/{r.offset()}" not in poison
    ]
    assert set(Counter(r.topic() for r in records)) == {t.name for t in AGAIN}
    for start in range(0, len(records), 500):
        await publisher.publish(
            [
                OutgoingRecord(
                    str(r.topic()),
                    None if r.key() is None else r.key().decode(),
                    r.value(),
                    dict(r.headers() or []),
                    r.partition() or 0,
                )
                for r in records[start : start + 500]
            ]
        )
    await asyncio.to_thread(publisher.close)
    await at_rest(stack)
    assert await digests(stack) == before

    names = [p.name for p in stack.status() if p.kind == "service"]
    for name in names:
        await asyncio.to_thread(stack.stop, name)
    await asyncio.to_thread(to_the_beginning, stack)
    for name in names:
        await asyncio.to_thread(stack.start_one, name)
    await at_rest(stack)

    async def the_same() -> bool:
        # The lists are rebuilt at the start, and until then come from the database, and say so.
        return all(" database," not in f" {text}" for text in (await lists(stack)).values())

    await wait_for(the_same, 30)
    assert await digests(stack) == before


def to_the_beginning(stack: Stack) -> None:
    """Every reader of every topic reads it from its beginning when it starts next."""
    admin = AdminClient({"bootstrap.servers": bootstrap(stack), "log_level": 3})
    for listed in admin.list_consumer_groups().result().valid:
        (future,) = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(listed.group_id)]).values()
        read = future.result().topic_partitions
        if not any(p.topic in {t.name for t in topics.ALL} for p in read):
            continue
        start = [TopicPartition(p.topic, p.partition, 0) for p in read]
        request = ConsumerGroupTopicPartitions(listed.group_id, start)
        # A named member that has stopped belongs to its group until its session of ten seconds runs out.
        deadline = time.monotonic() + 30
        while True:
            (altered,) = admin.alter_consumer_group_offsets([request]).values()
            errors = [place.error for place in altered.result().topic_partitions if place.error is not None]
            if not errors:
                break
            assert time.monotonic() < deadline, errors
            time.sleep(0.5)
