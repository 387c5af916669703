"""Letters on a real mail server: they arrive whole, wait while it hangs, drips or refuses, are sent once by several
processes, and nothing that somebody wrote becomes a header or a link."""

import asyncio
import contextlib
import email
import email.policy
import socket
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import NewDatabase

from lostwax.contracts.ids import new_id
from lostwax.crm import main as crm_main
from lostwax.kit import mail
from lostwax.kit.mail import Due, Letter, Postman, SmtpSettings, filled, message_of, write
from lostwax.kit.postgres import Pool, open_pool
from lostwax.shop import main as shop_main


class Office(NamedTuple):
    """A database with a table of letters, and by how much the clock is ahead."""

    pool: Pool
    ahead: list[timedelta]
    dsn: str


class Box:
    """What came, and what the server says to whom."""

    def __init__(self) -> None:
        self.came: list[Envelope] = []
        self.refused: dict[str, str] = {}

    async def handle_RCPT(self, _: SMTP, __: Session, envelope: Envelope, address: str, ___: list[str]) -> str:
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _: SMTP, __: Session, envelope: Envelope) -> str:
        self.came.append(envelope)
        return "250 OK"


@pytest.fixture
def box() -> Iterator[tuple[Box, SmtpSettings]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    handler = Box()
    controller = Controller(handler, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield handler, SmtpSettings(f"smtp://127.0.0.1:{port}", "sellers@lostwax.test", "https://crm.test/")
    finally:
        controller.stop()


@pytest.fixture(scope="module", params=[crm_main, shop_main], ids=["crm", "shop"])
async def of_service(request: pytest.FixtureRequest, new_database: NewDatabase) -> AsyncIterator[Office]:
    """Each service that writes letters has its table by its own migrations."""
    dsn = await new_database(Path(request.param.__file__).parent / "migrations")
    async with await open_pool(dsn, name="test") as made:
        yield Office(made, [timedelta()], dsn)


@pytest.fixture
async def office(of_service: Office) -> Office:
    """Without letters, and with the clock right."""
    await of_service.pool.execute("DELETE FROM mails")
    of_service.ahead[0] = timedelta()
    return of_service


def now_in(office: Office) -> datetime:
    return datetime.now(UTC) + office.ahead[0]


def postman(office: Office, settings: SmtpSettings) -> Postman:
    return Postman(office.pool, office.dsn, settings, now=lambda: now_in(office))


async def a_letter(office: Office, address: str, **more: Any) -> Letter:
    letter = Letter(new_id(), address, "Ваш макет", "Look: {link}\n.\nend", "layout", "/l/lwl_secret", **more)
    async with office.pool.acquire() as connection:
        assert await write(connection, [letter], now_in(office)) == 1
        assert await write(connection, [letter], now_in(office)) == 0  # the same again is the same letter
    return letter


async def state_of(office: Office, letter: Letter) -> asyncpg.Record:
    row = await office.pool.fetchrow("SELECT * FROM mails WHERE mail_id = $1", letter.mail_id)
    assert row is not None
    return row


async def test_a_letter_arrives_whole_and_its_secret_is_forgotten(
    office: Office, box: tuple[Box, SmtpSettings]
) -> None:
    letter = await a_letter(office, "olga@example.org")
    assert await postman(office, box[1]).send_due() == 1
    (envelope,) = box[0].came
    text = envelope.content.decode() if isinstance(envelope.content, bytes) else str(envelope.content)
    assert envelope.rcpt_tos == ["olga@example.org"]
    assert "https://crm.test/l/lwl_secret" in text
    assert f"<{letter.mail_id}@lostwax.test>" in text
    row = await state_of(office, letter)
    assert (row["state"], row["secret"]) == ("sent", None)
    assert await postman(office, box[1]).send_due() == 0


async def test_a_letter_is_sent_as_soon_as_it_is_written_or_as_it_may_wait(
    office: Office, box: tuple[Box, SmtpSettings]
) -> None:
    at_work = asyncio.create_task(postman(office, box[1]).run())
    try:
        for address, after in (("now@example.org", None), ("later@example.org", timedelta(seconds=1))):
            written = time.monotonic()
            async with office.pool.acquire() as connection, connection.transaction():
                letter = Letter(new_id(), address, "Ring", "It is here.", "news")
                await write(connection, [letter], now_in(office), after)
            while not box[0].came:
                assert time.monotonic() - written < 20, f"{address} did not come"
                await asyncio.sleep(0.02)
            assert box[0].came.pop().rcpt_tos == [address]
            assert time.monotonic() - written >= (after or timedelta()).total_seconds()
    finally:
        at_work.cancel()
        await asyncio.gather(at_work, return_exceptions=True)


async def test_a_refused_address_is_given_up_and_a_busy_server_is_asked_again(
    office: Office, box: tuple[Box, SmtpSettings]
) -> None:
    box[0].refused |= {"none@example.org": "550 no such box", "busy@example.org": "451 come later"}
    never, later = await a_letter(office, "none@example.org"), await a_letter(office, "busy@example.org")
    assert await postman(office, box[1]).send_due() == 2
    given_up, waiting = await state_of(office, never), await state_of(office, later)
    assert (given_up["state"], given_up["secret"], given_up["trouble"]) == ("failed", None, "550 no such box")
    assert (waiting["state"], waiting["secret"], waiting["attempts"]) == ("waiting", "/l/lwl_secret", 1)
    box[0].refused.clear()
    assert await postman(office, box[1]).send_due() == 0  # not at once
    office.ahead[0] = timedelta(minutes=1)
    assert await postman(office, box[1]).send_due() == 1
    assert (await state_of(office, later))["state"] == "sent"


async def test_a_server_that_hangs_loses_nothing_and_two_processes_send_once(
    office: Office, box: tuple[Box, SmtpSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail, "_WORD_S", 0.5)

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3)
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    letter = await a_letter(office, "olga@example.org")
    hanging = SmtpSettings(f"smtp://127.0.0.1:{port}", "s@lostwax.test", "https://crm.test")
    assert await postman(office, hanging).send_due() == 1
    server.close()
    row = await state_of(office, letter)
    assert (row["state"], row["trouble"][-9:]) == ("waiting", "timed out")
    office.ahead[0] = timedelta(hours=1)
    assert sum(await asyncio.gather(*(postman(office, box[1]).send_due() for _ in range(3)))) == 1
    assert len(box[0].came) == 1


async def test_a_server_that_drips_is_left_before_the_lease_is_over(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail, "_LETTER_S", 0.6)

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            for _n in range(30):
                writer.write(b"220-wait\r\n")
                await writer.drain()
                await asyncio.sleep(0.1)
        writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    letter = await a_letter(office, "olga@example.org")
    dripping = SmtpSettings(f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}", "s@lostwax.test", "https://x")
    began = asyncio.get_running_loop().time()
    assert await postman(office, dripping).send_due() == 1
    assert asyncio.get_running_loop().time() - began < 3
    server.close()
    assert (await state_of(office, letter))["state"] == "waiting"


async def test_a_server_that_is_away_for_days_loses_nothing_but_what_is_of_no_use_any_more(
    office: Office, box: tuple[Box, SmtpSettings]
) -> None:
    nowhere = SmtpSettings("smtp://127.0.0.1:1", "s@lostwax.test", "https://x")
    letter = await a_letter(office, "olga@example.org")
    over = await a_letter(office, "lost@example.org", until=now_in(office) + timedelta(hours=1))
    for _ in range(16):
        await postman(office, nowhere).send_due()
        office.ahead[0] += timedelta(hours=6)
    assert (await state_of(office, letter))["state"] == "waiting"
    gone = await state_of(office, over)
    assert (gone["state"], gone["secret"]) == ("failed", None)
    assert await postman(office, box[1]).send_due() == 1
    assert [e.rcpt_tos for e in box[0].came] == [["olga@example.org"]]
    office.ahead[0] += timedelta(days=5)
    late = await a_letter(office, "olga@example.org")
    office.ahead[0] += timedelta(days=6)
    await postman(office, nowhere).send_due()
    assert (await state_of(office, late))["state"] == "failed"


@pytest.mark.parametrize(
    "address", ["a@example.org\r\nBcc: b@example.org", "a@example.org, b@example.org", "nobody", '"a b"@example.org']
)
async def test_what_is_no_address_is_given_up_at_once(
    office: Office, box: tuple[Box, SmtpSettings], address: str
) -> None:
    letter = await a_letter(office, address)
    assert await postman(office, box[1]).send_due() == 1
    assert (await state_of(office, letter))["state"] == "failed"
    assert box[0].came == []


@given(st.text(), st.text())
def test_what_somebody_wrote_is_never_a_header_or_a_link(name: str, subject: str) -> None:
    settings = SmtpSettings("smtp://x", "shop@lostwax.test", "https://shop.test")
    body = filled("Dear {name},\n{link}", {"name": name})
    assert body.count("{link}") == 1
    due = Due(new_id(), "a@example.org", subject, body, "/o/secret", 1, datetime.now(UTC), None)
    try:
        made = message_of(settings, due, datetime.now(UTC))
    except (ValueError, UnicodeError):
        return
    headers = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"]
    mime = ["Content-Type", "Content-Transfer-Encoding", "MIME-Version"]
    try:
        raw = made.as_bytes(policy=email.policy.SMTP)
    except UnicodeError:  # lone surrogates, which no JSON body and no database lets in
        return
    read = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(read, EmailMessage)
    assert sorted(read.keys()) == sorted([*headers, *mime])
    assert read.get_content_type() == "text/plain"
