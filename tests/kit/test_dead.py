"""Dead letters on the running services: found, replayed, discarded; an order's later commands wait for its dead one."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import pytest
from tests.builders import (
    NOON,
    SELLER,
    a_partner,
    an_approved_order,
    an_operator,
    as_record,
    order_at,
    records_of,
    wait_for,
)

from lostwax.contracts import catalogue, topics
from lostwax.contracts.ids import bucket_of, new_id, partition_of
from lostwax.contracts.orders import Cancel, Command, Outcome, Status
from lostwax.contracts.topics import Topic
from lostwax.kit import dead
from lostwax.kit.clock import utc_now
from lostwax.kit.consumer import Runner
from lostwax.kit.kafka import OutgoingRecord, Publisher, ensure_topics
from lostwax.kit.messages import Burial, DeadWatch, Discarded, Incoming, Later, Poison
from lostwax.local.stack import Stack


def bootstrap(stack: Stack) -> str:
    return stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"]


def lostwax_dead(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `lostwax dead ..` says of the stack."""
    return subprocess.run(
        [sys.executable, "-m", "lostwax", "dead", *arguments, "--stack", stack.folder.name],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def open_letters(stack: Stack, topic: Topic, subject: str) -> list[dead.Letter]:
    letters = (await asyncio.to_thread(dead.read, bootstrap(stack), [topic]))[topic]
    return [letter for letter in letters.open.values() if letter.subject == subject]


async def the_letter(stack: Stack, topic: Topic, subject: str, *, after: int = -1) -> dead.Letter:
    async def found() -> dead.Letter | None:
        return next((x for x in await open_letters(stack, topic, subject) if x.offset > after), None)

    letter = await wait_for(found)
    assert isinstance(letter, dead.Letter)
    return letter


async def test_a_malformed_message_is_found_replayed_and_discarded(stack: Stack) -> None:
    subject = str(new_id())
    publisher = Publisher(bootstrap(stack), client_id="test")
    spoiled = as_record(topics.ORDER_COMMANDS.name, 3, "orders.command.v1", b'{"rubbish":1}', subject)
    await publisher.publish([spoiled])
    letter = await the_letter(stack, topics.ORDER_COMMANDS, subject)
    assert (letter.reason, letter.value) == ("malformed", b'{"rubbish":1}')
    assert letter.source.startswith("orders.commands/3/")
    assert "command_id" in letter.detail
    listed = lostwax_dead(stack, "list")
    assert "orders.commands" in listed.stdout
    shown = lostwax_dead(stack, "show", "orders.commands", str(letter.offset))
    assert '{"rubbish":1}' in shown.stdout
    assert lostwax_dead(stack, "replay", "orders.commands", str(letter.offset)).returncode == 0
    again = await the_letter(stack, topics.ORDER_COMMANDS, subject, after=letter.offset)
    assert again.text("replayed_from") == letter.source
    twice = lostwax_dead(stack, "replay", "orders.commands", str(letter.offset))
    assert twice.returncode != 0
    assert "was replayed by" in twice.stderr
    done = lostwax_dead(stack, "discard", "orders.commands", str(again.offset), "--reason", "rubbish")
    assert done.returncode == 0, done.stderr
    assert await open_letters(stack, topics.ORDER_COMMANDS, subject) == []


@pytest.mark.parametrize(("topic", "offset"), [("no.such.topic", "0"), ("orders.commands", "999999")])
def test_what_is_not_there_is_said(stack: Stack, topic: str, offset: str) -> None:
    for verb in ("show", "replay"):
        refused = lostwax_dead(stack, verb, topic, offset)
        assert refused.returncode != 0
        assert "no " in refused.stderr


async def test_later_commands_of_an_order_wait_for_its_dead_one(stack: Stack) -> None:
    partner, operator = await a_partner(stack), await an_operator(stack)
    try:
        order_id = await an_approved_order(partner)
        forged = Command(new_id(), UUID(order_id), SELLER, 3, utc_now(), Cancel("I am no seller"))
        place = partition_of(bucket_of(UUID(order_id)))
        record = as_record(topics.ORDER_COMMANDS.name, place, "orders.command.v1", catalogue.encode(forged), order_id)
        await Publisher(bootstrap(stack), client_id="test").publish([record])
        letter = await the_letter(stack, topics.ORDER_COMMANDS, order_id)
        assert letter.reason == "wrong_producer"

        async def claimed() -> bool:
            return (await operator.post(f"/v1/orders/{order_id}/claim")).status_code == 200

        await wait_for(claimed)
        await asyncio.sleep(1.5)
        assert (await partner.get(f"/v1/orders/{order_id}")).json()["status"] == "MANUFACTURING_APPROVED"
        (piece,) = (await operator.get("/v1/work")).json()["work"]
        assert piece["claim"]["state"] == "pending"
        done = lostwax_dead(stack, "discard", "orders.commands", str(letter.offset), "--reason", "forged")
        assert done.returncode == 0, done.stderr
        await order_at(partner, order_id, "MANUFACTURING_STARTED")
    finally:
        await partner.aclose()
        await operator.aclose()


OUTCOME = "orders.outcome.v1"


class Shelf:
    """A topic and its dead letters that only this test knows."""

    def __init__(self, address: str, *, compacted: bool = False) -> None:
        self.address = address
        self.topic = Topic(f"test.shelf.{new_id()}", ("mes",), ("orders",), partitions=2, compacted=compacted)
        self.publisher = Publisher(address, client_id="test-shelf", timeout_s=10)
        ensure_topics(address, [self.topic])

    async def bury(self, place: str, *, key: str = "k", group: str = "g", value: bytes = b"v", **more: str) -> None:
        headers = {**dead.reasons("odd", "why", group=group, place=place, at=NOON), "ce_type": "x", **more}
        await self.publisher.publish([OutgoingRecord(self.topic.dead, key, value, headers)])

    async def letters(self) -> dead.Letters:
        return (await asyncio.to_thread(dead.read, self.address, [self.topic]))[self.topic]

    async def sent(self) -> list[tuple[int, str, bytes, dict[str, str]]]:
        """What stands in the topic itself: partition, key, value, headers."""
        records: list[Any] = await asyncio.to_thread(records_of, self.address, [self.topic.name])
        return [(r.partition(), r.key().decode(), r.value(), {k: v.decode() for k, v in r.headers()}) for r in records]

    def place(self, partition: int, offset: int) -> str:
        return f"{self.topic.name}/{partition}/{offset}"


async def test_a_replay_is_the_message_as_it_was_in_its_partition(stack: Stack) -> None:
    shelf = Shelf(bootstrap(stack))
    await shelf.bury(shelf.place(1, 7), key="a", value=b"\xff\x00", ce_source="mes", traceparent="00-1")
    await shelf.bury(shelf.place(0, 2), key="b")
    letters = await shelf.letters()
    await dead.replay(shelf.publisher, shelf.topic, list(letters.open.values()), by="me", at=NOON)
    sent = {partition: rest for partition, *rest in await shelf.sent()}
    assert sent == {
        1: [
            "a",
            b"\xff\x00",
            {"ce_type": "x", "ce_source": "mes", "traceparent": "00-1", "replayed_from": shelf.place(1, 7)},
        ],
        0: ["b", b"v", {"ce_type": "x", "replayed_from": shelf.place(0, 2)}],
    }
    after = await shelf.letters()
    assert after.open == {}
    assert {s.how for s in after.settled.values()} == {"replayed"}
    with pytest.raises(dead.AlreadySettled, match="was replayed by me at 2026-11-02"):
        after.at(shelf.topic, 0)


async def test_one_that_was_buried_twice_counts_once_and_for_each_reader(stack: Stack) -> None:
    shelf = Shelf(bootstrap(stack))
    for group in ("one", "one", "other"):
        await shelf.bury(shelf.place(0, 5), group=group)
    letters = await shelf.letters()
    assert list(letters.open) == [0, 2]
    await dead.discard(shelf.publisher, shelf.topic, [letters.open[0]], "no", tell=False, by="me", at=NOON)
    await shelf.bury(shelf.place(0, 5), group="one")
    after = await shelf.letters()
    assert (list(after.open), sorted(after.settled)) == ([2], [0, 1, 4])
    assert await shelf.sent() == []


async def test_in_a_compacted_topic_a_replay_does_not_take_the_newest_versions_place(stack: Stack) -> None:
    shelf = Shelf(bootstrap(stack), compacted=True)
    await shelf.bury(shelf.place(0, 5), key="order")
    await dead.replay(shelf.publisher, shelf.topic, [(await shelf.letters()).open[0]], by="me", at=NOON)
    ((_, key, _, headers),) = await shelf.sent()
    assert key != "order"
    await shelf.bury(shelf.place(0, 9), key=key, replayed_from=headers["replayed_from"])
    again = (await shelf.letters()).open[2]
    assert again.subject == "order"
    await dead.replay(shelf.publisher, shelf.topic, [again], by="me", at=NOON)
    assert [k for _, k, *_ in await shelf.sent()] == [key, key]


async def test_a_letter_of_unknown_origin_is_refused_before_anything_is_sent(stack: Stack) -> None:
    shelf = Shelf(bootstrap(stack))
    await shelf.bury(shelf.place(0, 5))
    await shelf.bury("elsewhere/0/5")
    with pytest.raises(dead.NoSuchLetter, match="does not tell from where"):
        await dead.replay(shelf.publisher, shelf.topic, [*(await shelf.letters()).open.values()], by="me", at=NOON)
    assert list((await shelf.letters()).open) == [0, 1]
    assert await shelf.sent() == []


async def test_nothing_is_buried_before_its_watch_is_done_and_a_discard_is_told_until_it_is_heard(stack: Stack) -> None:
    shelf = Shelf(bootstrap(stack))
    heard: list[Burial | Discarded] = []
    trouble: dict[str, Exception | None] = {"burial": Later("away"), "discard": RuntimeError("a bug of ours")}
    tries = {"burial": 0, "discard": 0}

    def watcher(name: str) -> Any:
        async def watch(what: Burial | Discarded) -> None:
            tries[name] += 1
            if (error := trouble[name]) is not None:
                raise error
            heard.append(what)

        return watch

    seen: list[int] = []

    async def handle(batch: Sequence[Incoming]) -> None:
        seen.extend(i.body.version for i in batch)

    good = catalogue.encode(Outcome(new_id(), new_id(), True, 7, Status.SUBMITTED, NOON))
    runner = Runner(
        shelf.address,
        group=f"test-{new_id()}",
        routes={shelf.topic: handle},
        publisher=shelf.publisher,
        instance="a",
        dead_watches={shelf.topic: DeadWatch(watcher("burial"), watcher("discard"))},
    )
    task = asyncio.create_task(runner.run())
    try:
        await shelf.publisher.publish([as_record(shelf.topic.name, 1, OUTCOME, b"{}", "key")])
        await wait_for(lambda: tries["burial"] >= 3)
        assert (await shelf.letters()).open == {}
        trouble["burial"] = None
        await wait_for(lambda: runner.dead == 1)
        assert heard == [Burial(shelf.place(1, 0), 1, 0, "key", None, None, "test")]
        letter = (await shelf.letters()).open[0]
        await dead.discard(shelf.publisher, shelf.topic, [letter], "no", tell=True, by="me", at=NOON)
        await shelf.publisher.publish([as_record(shelf.topic.name, 1, OUTCOME, good)])
        await wait_for(lambda: tries["discard"] >= 3)
        assert seen == []
        trouble["discard"] = None
        await wait_for(lambda: seen == [7])
        assert heard[1:] == [Discarded(shelf.place(1, 0), 1)]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_reader_from_behind_buries_first_and_hears_of_the_discard_then(stack: Stack) -> None:
    """It was killed after it had buried and before its offset was stored, or reads from the beginning: both are in one
    batch. Heard the other way round, the discard would settle nothing, and what waits behind the letter wait for ever.
    """
    shelf = Shelf(bootstrap(stack))
    heard: list[str] = []

    async def bury(what: Burial) -> None:
        heard.append(f"buried {what.offset}")

    async def go_on(what: Discarded) -> None:
        heard.append(f"discarded {what.place.rpartition('/')[2]}")

    async def handle(batch: Sequence[Incoming]) -> None:
        for incoming in batch:
            if incoming.body.version == 666:
                raise Poison(incoming, "odd", "why")
        heard.extend(f"handled {i.offset}" for i in batch)

    def outcome(version: int) -> OutgoingRecord:
        body = catalogue.encode(Outcome(new_id(), new_id(), True, version, Status.SUBMITTED, NOON))
        return as_record(shelf.topic.name, 1, OUTCOME, body)

    await shelf.bury(shelf.place(1, 1), key="key")
    await shelf.publisher.publish([outcome(1), outcome(666), outcome(2)])
    letters = list((await shelf.letters()).open.values())
    await dead.discard(shelf.publisher, shelf.topic, letters, "no", tell=True, by="me", at=NOON)
    await shelf.publisher.publish([outcome(3)])
    runner = Runner(
        shelf.address,
        group=f"test-{new_id()}",
        routes={shelf.topic: handle},
        publisher=shelf.publisher,
        instance="a",
        dead_watches={shelf.topic: DeadWatch(bury, go_on)},
    )
    task = asyncio.create_task(runner.run())
    try:
        await wait_for(lambda: "handled 4" in heard)
        assert heard == ["buried 1", "handled 0", "handled 2", "discarded 1", "handled 4"]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_reader_that_asked_not_to_be_told_skips_the_notice(stack: Stack) -> None:
    shelf = Shelf(bootstrap(stack))
    await shelf.bury(shelf.place(0, 0))
    letter = (await shelf.letters()).open[0]
    await dead.discard(shelf.publisher, shelf.topic, [letter], "no", tell=True, by="me", at=NOON)

    async def handle(batch: Sequence[Incoming]) -> None:
        raise AssertionError(batch)

    runner = Runner(
        shelf.address, group=f"test-{new_id()}", routes={shelf.topic: handle}, publisher=shelf.publisher, instance="a"
    )
    task = asyncio.create_task(runner.run())
    try:
        await wait_for(lambda: runner.skipped == 1)
        assert runner.dead == 0
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def lostwax(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lostwax", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **(env or {})},
    )


async def test_all_of_a_topic_at_once_and_status_counts_what_is_left(stack: Stack) -> None:
    """On another broker address given by the environment, as in production; nobody reads what is not malformed."""
    topic, subject = topics.MODEL_STORED, str(new_id())
    reasons = dead.reasons("odd", "a [strange] reason", group="test", place=f"{topic.name}/0/0", at=NOON)
    publisher = Publisher(bootstrap(stack), client_id="test")
    for number in range(3):
        headers = {**reasons, "dead_source": f"{topic.name}/0/test-{number}"}
        await publisher.publish([OutgoingRecord(topic.dead, subject, b"\xfe" * 3000, headers)])
    status = lostwax("status", "--stack", stack.folder.name)
    assert f"3 dead letters of {topic.name}" in status.stderr
    there = {"LOSTWAX_KAFKA_BOOTSTRAP": bootstrap(stack), "COLUMNS": "200"}
    listed = lostwax("dead", "list", "--topic", topic.dead, "--stack", "none-such", env=there)
    assert listed.stdout.count("a [strange] reason") == 3
    first = (await open_letters(stack, topic, subject))[0]
    shown = lostwax("dead", "show", topic.name, str(first.offset), env=there)
    assert "3000 bytes that do not decode" in shown.stdout
    assert "1000 bytes more" in shown.stdout
    unclear = lostwax("dead", "discard", topic.name, "--reason", "of a test", env=there)
    assert (unclear.returncode, "--all" in unclear.stderr) == (2, True)
    done = lostwax("dead", "discard", topic.name, "--all", "--reason", "of a test", env=there)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("discarded") == 3
    assert lostwax("dead", "list", "--topic", topic.name, env=there).stdout == "no dead letters\n"
    assert "model" not in lostwax("status", "--stack", stack.folder.name).stderr
    nowhere = lostwax("dead", "list", "--stack", "none-such")
    assert (nowhere.returncode, "no stack none-such runs" in nowhere.stderr) == (2, True)
