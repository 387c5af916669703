"""Sending one web hook: where it may go, what odd receivers cost, what an answer means, how it is signed."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from tests.builders import SYSTEM, an_order
from tests.partner_api.receivers import Receiver

from lostwax.channel.views import OrderView
from lostwax.contracts.ids import new_id
from lostwax.kit.clock import utc_now
from lostwax.kit.webhooks import new_secret, signed_headers
from lostwax.partner_api import hooks_api, hooks_delivery, hooks_store
from lostwax.partner_api.hooks_delivery import judge, pause_before
from lostwax.partner_api.hooks_sender import Answer, BadUrl, Sender, check_url, refused
from lostwax.partner_api.hooks_store import Due


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_a_target_only_where_that_is_allowed(address: str) -> None:
    assert refused([address], to_loopback=False) == address
    assert refused([address], to_loopback=True) is None
    assert refused(["93.184.215.14", address], to_loopback=False) == address
    assert refused(["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"], to_loopback=False) is None
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(BadUrl):
        check_url(f"http://{host}/", to_loopback=False)


async def test_a_name_that_leads_elsewhere_after_it_was_checked_leads_nowhere(receiver: Receiver) -> None:
    """DNS rebinding: a public address when the hook was registered, this machine when it is to be sent."""
    answers = ["93.184.215.14"]

    async def resolve(host: str, port: int) -> list[str]:
        assert (host, port) == ("hooks.example", receiver.port)
        return answers

    sender = Sender(to_loopback=False, resolve=resolve)
    url = f"https://hooks.example:{receiver.port}/"
    try:
        await sender.check(url)
        for bad in (["127.0.0.1"], ["93.184.215.14", "10.0.0.1"], []):
            answers[:] = bad
            answer = await sender.post(url, {}, b"{}")
            assert answer.status is None
            assert "hooks.example" in (answer.error or "")
        assert receiver.heard == []
    finally:
        await sender.close()


@asynccontextmanager
async def a_listener(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> AsyncIterator[str]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


async def test_odd_receivers_cost_no_more_than_their_time() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async def garbled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello?\r\n\r\n")
        writer.close()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()

    async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nx")
        await asyncio.sleep(30)

    sender = Sender(to_loopback=True, seconds=0.5)
    try:
        async with a_listener(silent) as url:
            answer = await sender.post(url, {}, b"{}")
            assert (answer.status, answer.error) == (None, "no answer within 0.5 s")
        async with a_listener(garbled) as url:
            answer = await sender.post(url, {}, b"{}")
            assert (answer.status, bool(answer.error)) == (None, True)
        async with a_listener(endless) as url:
            answer = await sender.post(url, {}, b"{}")
            assert (answer.status, answer.body) == (200, "x" * 1024)
        async with a_listener(dripping) as url:
            answer = await sender.post(url, {}, b"{}")
            assert (answer.status, answer.body) == (200, "x")
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            answer = await sender.post(f"http://127.0.0.1:{unused.getsockname()[1]}/", {}, b"{}")
            assert (answer.status, bool(answer.error)) == (None, True)
    finally:
        await sender.close()


# -- pure -------------------------------------------------------------------------------------------------------------


def a_due(**changes: Any) -> Due:
    order = an_order(transition=msgspec.structs.replace(an_order().transition, actor=SYSTEM))
    whole = Due(
        number=1,
        delivery_id=new_id(),
        hook_id=new_id(),
        url="https://hooks.example/",
        secrets=[new_secret()],
        hook_failures=0,
        order_id=order.order_id,
        version=1,
        attempts=0,
        age_s=0,
        wait_s=0,
        created_at=utc_now(),
        accepted_at=utc_now(),
        order_body=msgspec.json.encode(order).decode(),
    )
    return msgspec.structs.replace(whole, **changes)


def test_retries_go_from_seconds_to_half_a_day_and_end_after_three_days() -> None:
    assert [round(pause_before(n, 0.5)) for n in (1, 2, 3, 14, 15, 99)] == [5, 10, 20, 40960, 43200, 43200]
    assert [round(pause_before(1, chance), 6) for chance in (0.0, 1.0)] == [4, 6]
    age, attempts = 0.0, 0
    while True:
        verdict = judge(a_due(attempts=attempts, age_s=age), Answer(duration_ms=1, status=500), 0.5)
        attempts += 1
        if verdict.state == "given_up":
            break
        age += verdict.pause_s
    assert 15 < attempts < 25
    assert 3 <= age / 86400 < 3.6


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_2xx_is_delivered(status: int) -> None:
    verdict = judge(a_due(age_s=1e9), Answer(duration_ms=1, status=status), 0.5)
    assert (verdict.state, verdict.error) == ("delivered", None)


def test_what_else_an_answer_may_mean() -> None:
    slow_down = judge(a_due(), Answer(duration_ms=1, status=429, retry_after_s=600), 0.5)
    assert (slow_down.state, slow_down.pause_s) == ("due", 600)
    assert judge(a_due(), Answer(duration_ms=1, status=503, retry_after_s=10**6), 0.5).pause_s == 43200
    gone = judge(a_due(age_s=1e9), Answer(duration_ms=1, status=410), 0.5)
    assert (gone.state, gone.gone) == ("due", True)
    test = judge(a_due(order_id=None, version=None), Answer(duration_ms=1, error="refused"), 0.5)
    assert (test.state, test.counts) == ("given_up", False)


def test_the_signature_is_that_of_the_published_scheme() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    at = datetime.fromtimestamp(1614265330.7, UTC)
    headers = signed_headers([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", at, b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_body_has_every_field_of_the_order() -> None:
    told = msgspec.json.decode(hooks_api.render(a_due()))
    assert set(told["data"]) == set(OrderView.__struct_fields__)
    assert set(told) == {"type", "timestamp", "data", "transition"}
    assert hooks_store.AILING > hooks_delivery.DISABLE_AFTER
