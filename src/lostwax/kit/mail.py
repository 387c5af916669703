"""Letters by SMTP, for every service that writes some. A letter is written in the transaction that it tells of, and
sent from there when the mail server takes it: one that hangs, refuses or is away holds up nobody and loses nothing.

What SMTP cannot promise: when the server has taken a letter and its last word does not reach us (a process dies, a line
is cut), the letter is sent again. Both carry the same Message-ID, by which mail programs know them.

A service has a table `mails` with the columns that are named here, by its own migration.
"""

import asyncio
import contextlib
import logging
import math
import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from urllib.parse import unquote, urlsplit
from uuid import UUID

import aiosmtplib
import msgspec

from lostwax.kit.listening import follow
from lostwax.kit.postgres import UNREACHABLE, Connection, Pool

log = logging.getLogger(__name__)

_WORD_S = 15.0
"""How long the mail server may take for each word."""

_LETTER_S = 60.0
"""And for a letter as a whole, so that one that drips ends long before the lease does."""

_LEASE = timedelta(minutes=5)
_AT_ONCE = 4
_KEPT_TRYING = timedelta(days=5)
"""RFC 5321, 4.5.4.1: give up after four to five days."""

_LONGEST_PAUSE = timedelta(minutes=30)
_SERVER_AGAIN_S, _DATABASE_AGAIN_S = 60.0, 5.0
_SWEEP_EVERY_S = 3600.0
_KEPT_AFTERWARDS = timedelta(days=180)

_WRITTEN = "mails"
"""The channel on which a database tells that a letter was written."""

_PLACE = re.compile(r"\{([a-z]+)\}")


class SmtpSettings(msgspec.Struct, frozen=True):
    """`url`: smtp://user:password@host:25, or smtps://; over smtp STARTTLS is used where it is offered, and is a must
    where there is a password. '': letters wait. `sender`: the address that they come from. `public_url`: where people
    reach this service's links."""

    url: str
    sender: str
    public_url: str


class Letter(msgspec.Struct, frozen=True):
    """`mail_id`: the same for the same letter, which is then written once. `{link}` in the body stands for the address
    that `path` has at the public URL; `path` lets somebody in, and is forgotten once the letter is sent or given up.
    `until`: when it is of no use any more."""

    mail_id: UUID
    address: str
    subject: str
    body: str
    kind: str
    path: str | None = None
    order_id: UUID | None = None
    until: datetime | None = None


class Due(msgspec.Struct, frozen=True):
    """A letter about to be sent."""

    mail_id: UUID
    address: str
    subject: str
    body: str
    secret: str | None
    attempts: int
    created_at: datetime
    until: datetime | None


def filled(text: str, values: Mapping[str, str]) -> str:
    """A text with `{name}` replaced, in one go: what a value says is never read as a place, and `{link}` in one never
    becomes a link."""
    inert = {name: value.replace("{", "(").replace("}", ")") for name, value in values.items()}
    return _PLACE.sub(lambda found: inert.get(found[1], found[0]), text)


async def write(connection: Connection, letters: Sequence[Letter], at: datetime, after: timedelta | None = None) -> int:
    """Put letters into the caller's transaction; those that were written before are left alone. `after`: how long they
    wait, in case something makes them needless. Returns how many are new."""
    if not letters:
        return 0
    done = await connection.execute(
        """
        INSERT INTO mails (mail_id, address, subject, body, kind, secret, order_id, until, next_at, created_at)
        SELECT n.*, $9::timestamptz + $10::interval, $9
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::uuid[],
                    $8::timestamptz[]) AS n
        ON CONFLICT (mail_id) DO NOTHING
        """,
        [one.mail_id for one in letters],
        [one.address for one in letters],
        [one.subject for one in letters],
        [one.body for one in letters],
        [one.kind for one in letters],
        [one.path for one in letters],
        [one.order_id for one in letters],
        [one.until for one in letters],
        at,
        after or timedelta(),
    )
    new = int(done.rpartition(" ")[2])
    if new:
        await connection.execute(f"NOTIFY {_WRITTEN}")
    return new


async def withdraw(connection: Connection, order_ids: Sequence[UUID], kinds: Sequence[str]) -> None:
    """Letters of these kinds about these orders that nobody has tried to send yet are needless now."""
    await connection.execute(
        "UPDATE mails SET state = 'superseded', secret = NULL"
        " WHERE order_id = ANY($1) AND kind = ANY($2) AND state = 'waiting' AND attempts = 0",
        list(order_ids),
        list(kinds),
    )


def message_of(settings: SmtpSettings, mail: Due, at: datetime) -> EmailMessage:
    """Raises ValueError for a header that would be more than one."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = settings.sender, _wire_address(mail.address), mail.subject
    host = parseaddr(settings.sender)[1].rpartition("@")[2] or "localhost"
    message["Date"], message["Message-ID"] = format_datetime(at), f"<{mail.mail_id}@{host}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.body.replace("{link}", settings.public_url.rstrip("/") + (mail.secret or "")))
    return message


def _wire_address(address: str) -> str:
    """One address, its host as DNS writes it. Raises ValueError."""
    local, _, host = address.rpartition("@")
    if not local or not host or not address.isprintable() or any(c in address for c in ' ,;<>"'):
        raise ValueError("this is no address")
    return f"{local}@{host.encode('idna').decode()}"


async def deliver(settings: SmtpSettings, mail: Due, at: datetime) -> None:
    """Raises OSError, aiosmtplib.SMTPException or ValueError."""
    message = message_of(settings, mail, at)
    address = urlsplit(settings.url)
    secure = address.scheme == "smtps"
    server = aiosmtplib.SMTP(
        hostname=address.hostname or "localhost",
        port=address.port or (465 if secure else 25),
        username=unquote(address.username) if address.username else None,
        password=unquote(address.password or "") if address.username else None,
        timeout=_WORD_S,
        use_tls=secure,
        start_tls=None if secure or not address.password else True,
        tls_context=ssl.create_default_context(),
    )
    try:
        async with asyncio.timeout(_LETTER_S):
            await server.connect()
            await server.send_message(message)
        # It is taken: whatever becomes of the farewell, it is not sent again.
        with contextlib.suppress(OSError, aiosmtplib.SMTPException):
            await asyncio.wait_for(server.quit(), 2)
    finally:
        server.close()


class Postman:
    """Sends what a service's table holds."""

    def __init__(self, pool: Pool, dsn: str, settings: SmtpSettings, *, now: Callable[[], datetime]) -> None:
        self._pool, self._dsn, self._settings, self._now = pool, dsn, settings, now
        self._written = asyncio.Event()
        self._away = 0

    async def send_due(self) -> int:
        """Send some of what is due now; returns how many letters were tried."""
        async with self._pool.acquire() as connection:
            due = await _take_due(connection, self._now())
        sent = await asyncio.gather(*(self._send(mail) for mail in due))
        self._away = 0 if any(sent) or not due else self._away + 1
        return len(due)

    async def _send(self, mail: Due) -> bool:
        """Whether the server took it, or said why not."""
        now = self._now()
        if mail.until is not None and mail.until <= now:
            await self._set_trouble(mail, "its link ended before a mail server took it", None)
            return True
        try:
            await deliver(self._settings, mail, now)
        except (OSError, aiosmtplib.SMTPException, ValueError) as error:
            again = _again(now, mail, error)
            log.warning("a letter was not taken", extra={"mail": str(mail.mail_id), "error": _said(error)})
            await self._set_trouble(mail, _said(error), again)
            return not isinstance(error, OSError)
        async with self._pool.acquire() as connection:
            await connection.execute(
                "UPDATE mails SET state = 'sent', sent_at = $2, secret = NULL, trouble = NULL WHERE mail_id = $1",
                mail.mail_id,
                self._now(),
            )
        return True

    async def _set_trouble(self, mail: Due, trouble: str, again: datetime | None) -> None:
        """`again` None: it is given up."""
        async with self._pool.acquire() as connection:
            await connection.execute(
                "UPDATE mails SET trouble = $2, next_at = coalesce($3, next_at),"
                " state = CASE WHEN $3::timestamptz IS NULL THEN 'failed' ELSE state END,"
                " secret = CASE WHEN $3::timestamptz IS NULL THEN NULL ELSE secret END"
                " WHERE mail_id = $1 AND state = 'waiting'",
                mail.mail_id,
                trouble,
                again,
            )

    async def run(self) -> None:
        """Until cancelled. Harmless in several processes at once."""
        if not self._settings.url:
            log.warning("no mail server is set: letters wait")
        async with asyncio.TaskGroup() as group:
            group.create_task(follow(self._dsn, _WRITTEN, self._heard))
            group.create_task(self._work())

    async def _heard(self, *_: object) -> None:
        self._written.set()

    async def _work(self) -> None:
        swept_at = -math.inf
        while True:
            self._written.clear()
            try:
                # With the server away, one look at a time: each letter would wait for it in vain.
                while self._settings.url and await self.send_due() == _AT_ONCE and not self._away:
                    pass
                if time.monotonic() - swept_at > _SWEEP_EVERY_S:
                    await self._sweep()
                    swept_at = time.monotonic()
                rest_s = await self._until_next()
            except UNREACHABLE as error:
                log.warning("database away", extra={"error": repr(error)})
                rest_s = _DATABASE_AGAIN_S
            if self._away:  # and a new letter is no reason to ask it sooner
                await asyncio.sleep(min(_SERVER_AGAIN_S, 2.0**self._away))
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(rest_s):
                        await self._written.wait()

    async def _sweep(self) -> None:
        async with self._pool.acquire() as connection:
            await connection.execute(
                "DELETE FROM mails WHERE state <> 'waiting' AND created_at < $1", self._now() - _KEPT_AFTERWARDS
            )

    async def _until_next(self) -> float:
        """Seconds until a letter is due that is written already; an hour at most."""
        async with self._pool.acquire() as connection:
            at = await connection.fetchval("SELECT min(next_at) FROM mails WHERE state = 'waiting'")
        if at is None or not self._settings.url:
            return _SWEEP_EVERY_S
        left: timedelta = at - self._now()
        return min(_SWEEP_EVERY_S, max(0.05, left.total_seconds()))


async def _take_due(connection: Connection, now: datetime) -> list[Due]:
    """Letters that are due; nobody else takes them before the lease is over, so that a process that dies with one
    holds it up that long."""
    rows = await connection.fetch(
        """
        UPDATE mails SET attempts = attempts + 1, next_at = $1::timestamptz + $2::interval
        WHERE mail_id IN (SELECT mail_id FROM mails WHERE state = 'waiting' AND next_at <= $1
                          ORDER BY next_at LIMIT $3 FOR UPDATE SKIP LOCKED)
        RETURNING mail_id, address, subject, body, secret, attempts, created_at, until
        """,
        now,
        _LEASE,
        _AT_ONCE,
    )
    return [Due(**dict(row) | {"mail_id": UUID(int=row["mail_id"].int)}) for row in rows]


def _again(now: datetime, mail: Due, error: Exception) -> datetime | None:
    """When to try again; None for what no trying helps, as an address that there is not."""
    hopeless = isinstance(error, ValueError | aiosmtplib.SMTPNotSupported)
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        hopeless = all(one.code >= 550 for one in error.recipients)
    elif isinstance(error, aiosmtplib.SMTPRecipientRefused | aiosmtplib.SMTPDataError):
        hopeless = error.code >= 550
    if hopeless or now - mail.created_at > _KEPT_TRYING:
        return None
    return now + min(_LONGEST_PAUSE, timedelta(seconds=5 * 2 ** min(mail.attempts, 10)))


def _said(error: Exception) -> str:
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        return "; ".join(f"{one.code} {one.message}" for one in error.recipients)[:300]
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return f"{error.code} {error.message}"[:300]
    if isinstance(error, TimeoutError):
        return "the mail server did not answer in time: timed out"
    return (str(error) or type(error).__name__)[:300]
