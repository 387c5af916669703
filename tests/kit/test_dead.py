"""Dead letters on the running services: found, replayed, discarded; an order's later commands wait for its dead one."""

import asyncio
import subprocess
import sys
from uuid import UUID

import pytest
from tests.builders import (
    SELLER,
    a_partner,
    an_approved_order,
    an_operator,
    as_record,
    order_at,
    wait_for,
)

from lostwax.contracts import catalogue, topics
from lostwax.contracts.ids import bucket_of, new_id, partition_of
from lostwax.contracts.orders import Cancel, Command
from lostwax.contracts.topics import Topic
from lostwax.kit import dead
from lostwax.kit.clock import utc_now
from lostwax.kit.kafka import Publisher
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
