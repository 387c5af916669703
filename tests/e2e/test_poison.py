"""Poison in every topic: it is dead-lettered with its reason and place by every reader, and what stands behind it in
its partition flows on. Parametrized over the list of topics: a new one is covered by itself."""

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg
import httpx
import msgspec
import pytest
from confluent_kafka import Message as KafkaMessage
from tests.builders import (
    NOON,
    SELLER,
    Operator,
    Partner,
    a_model_file,
    an_approved_order,
    an_uploaded_model,
    as_record,
    order_at,
    records_of,
    ship_by_api,
    submit,
    wait_for,
)

from lostwax.contracts import catalogue, topics
from lostwax.contracts.ids import bucket_of, bucket_of_digest, new_id, partition_of
from lostwax.contracts.orders import Command, Hold, Resume
from lostwax.contracts.topics import Topic
from lostwax.kit import dead
from lostwax.kit.clock import utc_now
from lostwax.kit.kafka import OutgoingRecord, Publisher
from lostwax.kit.kafka_reading import headers_of
from lostwax.local.places import PROJECT
from lostwax.local.stack import Stack
from lostwax.orders.worker import PARKING


@pytest.fixture
async def publisher(stack: Stack) -> AsyncIterator[Publisher]:
    made = Publisher(bootstrap(stack), client_id="test-poison")
    yield made
    await asyncio.to_thread(made.close)


def bootstrap(stack: Stack) -> str:
    return stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"]


async def letters_of(stack: Stack, topic: Topic, key: str) -> list[dead.Letter]:
    letters = (await asyncio.to_thread(dead.read, bootstrap(stack), [topic]))[topic]
    return [letter for letter in letters.open.values() if letter.subject == key]


@asynccontextmanager
async def requests_held_back(stack: Stack) -> AsyncIterator[None]:
    """Meanwhile the partner API accepts orders and publishes no request, so that an order's partition is known before
    anything of it has been sent."""
    url, headers = (
        stack.url("partner_api"),
        {"Authorization": f"Bearer {stack.console_token('partner_api')}"},
    )
    async with httpx.AsyncClient(base_url=url, timeout=20, headers=headers) as http:
        for paused in (True, False):
            answer = await http.put("/v1/publishing/orders.requests", json={"paused": paused})
            assert answer.status_code == 200, answer.text
            if paused:
                try:
                    yield
                except BaseException:
                    await http.put("/v1/publishing/orders.requests", json={"paused": False})
                    raise


async def with_a_new_field(stack: Stack, topic: Topic) -> OutgoingRecord:
    """The topic's last message once more, as a newer writer might send it; of a topic that never had one, a kept
    example."""
    records: Sequence[KafkaMessage] = await asyncio.to_thread(records_of, bootstrap(stack), [topic.name])
    headers = [dict(r.headers() or []) for r in records]
    known = [
        (r, h)
        for r, h in zip(records, headers, strict=True)
        if catalogue.knows(h.get("ce_type", b"").decode()) and r.value()
    ]
    for record, head in reversed(known):
        try:
            body = msgspec.json.decode(record.value())
            catalogue.decode(head["ce_type"].decode(), record.value())
        except msgspec.MsgspecError:
            continue
        newer = msgspec.json.encode(body | {"not_known_yet": [1]})
        return OutgoingRecord(topic.name, record.key().decode(), newer, head, record.partition() or 0)
    name = next(t.name for t in catalogue.TYPES if topic in t.topics)
    example = msgspec.json.decode(sorted((PROJECT / "schemas" / "examples" / name).glob("*.json"))[0].read_bytes())
    newer = msgspec.json.encode(example | {"not_known_yet": [1]})
    return as_record(topic.name, 0, name, newer, str(new_id()))


@pytest.mark.parametrize("topic", topics.ALL, ids=lambda topic: topic.name)
async def test_poison_is_buried_and_the_rest_flows_on(
    stack: Stack, partner: Partner, ada: Operator, publisher: Publisher, topic: Topic
) -> None:
    await an_approved_order(partner)  # so that every topic has had a message
    content = a_model_file()
    digest = hashlib.sha256(content).hexdigest()
    key = f"poison-{new_id()}"
    types = [t.name for t in catalogue.TYPES if topic in t.topics]
    assert types, "a topic without a message type"
    newer = await with_a_new_field(stack, topic)
    async with requests_held_back(stack):
        order_id = await submit(partner, await an_uploaded_model(partner), approve_up_to="1000000")
        by_order = partition_of(bucket_of(UUID(order_id)))
        places = {by_order, partition_of(bucket_of_digest(digest))} if topic.by_bucket else {0}
        bad = [
            as_record(topic.name, place, name, body, key)
            for place in sorted(places)
            for name, body in (*((t, b'{"rubbish":1}') for t in types), (types[0], b"\xff\xfe{"), ("", b"{}"))
        ]
        fine = [
            as_record(topic.name, by_order, "lostwax.from_the_future.v9", b"{}", key),
            OutgoingRecord(topic.name, key, None, {}, by_order),  # a tombstone
            newer,
            OutgoingRecord(topic.name, newer.key, newer.value, newer.headers, by_order),  # not in its own partition
        ]
        await publisher.publish([bad[0], *fine, *bad[1:]])
    # The model that comes now goes through the poisoned partition of its digest, the order through its own.
    await an_uploaded_model(partner, content)
    other = await submit(partner, digest, approve_up_to="1000000")
    await order_at(partner, other, "MANUFACTURING_APPROVED", seconds=30)
    await ship_by_api(partner, ada, order_id)

    expected = len(bad) * len(topic.read_by)

    async def all_buried() -> list[dead.Letter] | None:
        found = await letters_of(stack, topic, key)
        return found if len(found) >= expected else None

    letters = await wait_for(all_buried)
    assert len(letters) == expected
    assert {letter.reason for letter in letters} == {"malformed"}
    assert {letter.text("dead_group").split("-")[0] for letter in letters} == set(topic.read_by)
    assert {letter.source.rpartition("/")[0] for letter in letters} == {f"{topic.name}/{p}" for p in places}
    assert all(letter.detail for letter in letters)
    await dead.discard(publisher, topic, letters, "of a test", tell=topic in PARKING, by="test", at=utc_now())
    assert await letters_of(stack, topic, key) == []


def lostwax(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lostwax", *arguments, "--stack", stack.folder.name]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@asynccontextmanager
async def a_bug_about(stack: Stack, order_id: str, what: str) -> AsyncIterator[None]:
    """Meanwhile Orders' database refuses to INSERT or UPDATE this order, with an error that waiting does not cure."""
    connections = [await asyncpg.connect(dsn) for dsn in stack.env("orders")["LOSTWAX_SHARD_URLS"].split(",")]
    try:
        for connection in connections:
            await connection.execute(
                "CREATE FUNCTION bug() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'a bug'; END $$;"
                f" CREATE TRIGGER bug BEFORE {what} ON orders FOR EACH ROW"
                f" WHEN (NEW.order_id = '{UUID(order_id)}') EXECUTE FUNCTION bug()"
            )
        try:
            yield
        finally:
            for connection in connections:
                await connection.execute("DROP TRIGGER bug ON orders; DROP FUNCTION bug()")
    finally:
        for connection in connections:
            await connection.close()


async def decisions(stack: Stack, order_id: str) -> dict[str, str | None]:
    """Of a seller's two commands, by what they wish: the code of each one's refusal, None for accepted."""
    told = [
        catalogue.decode("orders.outcome.v1", m.value() or b"")
        for m in records_of(stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"], [topics.ORDER_OUTCOMES.name])
        if m.key() == order_id.encode() and headers_of(m).get("ce_source") == "orders"
    ]
    codes = [o.code for o in told]
    return dict(zip(("hold", "resume"), codes, strict=True))


async def the_letter(stack: Stack, topic: Topic, key: str) -> dead.Letter:
    async def found() -> dead.Letter | None:
        return next(iter(await letters_of(stack, topic, key)), None)

    letter = await wait_for(found, 30)
    assert isinstance(letter, dead.Letter)
    return letter


async def test_a_request_that_met_a_bug_ships_when_it_is_replayed_after_the_mend(
    stack: Stack, partner: Partner, ada: Operator
) -> None:
    async with requests_held_back(stack):
        order_id = await submit(partner, await an_uploaded_model(partner), approve_up_to="1000000")
        bug = a_bug_about(stack, order_id, "INSERT")
        await bug.__aenter__()
    try:
        letter = await the_letter(stack, topics.ORDER_REQUESTS, order_id)
        assert letter.reason == "handler_failed"
        assert "a bug" in letter.detail
    finally:
        await bug.__aexit__(None, None, None)
    done = lostwax(stack, "dead", "replay", topics.ORDER_REQUESTS.name, str(letter.offset))
    assert done.returncode == 0, done.stderr
    await ship_by_api(partner, ada, order_id)


@pytest.mark.parametrize("settled", ["replay", "discard"])
async def test_an_order_behind_a_dead_command_is_named_by_the_audit_and_goes_on(
    stack: Stack, partner: Partner, ada: Operator, publisher: Publisher, settled: str
) -> None:
    order_id = await an_approved_order(partner)
    id_, place = UUID(order_id), partition_of(bucket_of(UUID(order_id)))
    commands = [
        Command(new_id(), id_, SELLER, 3, NOON, Hold("wait")),
        # Takes effect after the hold only: where the hold is discarded, it has its one outcome as well, a refusal.
        Command(new_id(), id_, SELLER, 4, NOON, Resume()),
    ]
    async with a_bug_about(stack, order_id, "UPDATE"):
        for command in commands:
            headers = catalogue.cloud_headers(str(new_id()), "orders.command.v1", "crm", NOON, None)
            body = catalogue.encode(command)
            await publisher.publish([OutgoingRecord(topics.ORDER_COMMANDS.name, order_id, body, headers, place)])
        letter = await the_letter(stack, topics.ORDER_COMMANDS, order_id)
        assert letter.reason == "handler_failed"

        async def named() -> bool:
            audit = await asyncio.to_thread(lostwax, stack, "audit", "--settle", "0", "--json")
            return order_id in audit.stdout and "1 later commands of the order wait behind it" in audit.stdout

        await wait_for(named)
    why = ["--reason", "of a test"] if settled == "discard" else []
    done = lostwax(stack, "dead", settled, topics.ORDER_COMMANDS.name, str(letter.offset), *why)
    assert done.returncode == 0, done.stderr
    version = 5 if settled == "replay" else 3

    async def gone_on() -> bool:
        order = (await partner.get(f"/v1/orders/{order_id}")).json()
        return (order["status"], order["version"]) == ("MANUFACTURING_APPROVED", version)

    await wait_for(gone_on)
    # Decided either way, so that reading the topic from its beginning decides it no other way (test_replay).
    assert await decisions(stack, order_id) == (
        {"hold": None, "resume": None} if settled == "replay" else {"hold": "discarded", "resume": "wrong_status"}
    )
    await ship_by_api(partner, ada, order_id)
