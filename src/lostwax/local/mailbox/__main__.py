"""python -m lostwax.local.mailbox --folder F --smtp-port N --http-port N"""

import argparse
import asyncio
import email
import email.policy
import re
import signal
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from aiosmtpd.smtp import SMTP, Envelope, Session
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lostwax.kit.house import House
from lostwax.kit.http import answer, build_app
from lostwax.kit.problems import Problem

WEB = Path(__file__).parent / "web"
_LINK = re.compile(r"https?://[^\s<>\"']+")
_SHOWN = 500


class Came(msgspec.Struct, frozen=True):
    """A letter that came. `links`: the addresses in its text."""

    number: int
    at: datetime
    sender: str
    to: list[str]
    subject: str
    message_id: str
    text: str
    links: list[str]


class Box:
    """Letters, each a file; those of an earlier run are there again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.letters = [self._read(path) for path in sorted(folder.glob("[0-9]*.eml"))]

    async def handle_DATA(self, _: SMTP, __: Session, envelope: Envelope) -> str:
        number = self.letters[-1].number + 1 if self.letters else 1
        path = self._folder / f"{number:08d}.eml"
        content = envelope.content if isinstance(envelope.content, bytes) else str(envelope.content).encode()
        path.write_bytes(b"X-To: " + ", ".join(envelope.rcpt_tos).encode() + b"\r\n" + content)
        self.letters.append(self._read(path))
        return "250 OK"

    def _read(self, path: Path) -> Came:
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        body = message.get_body(("plain",))
        text = body.get_content() if body is not None else ""
        return Came(
            number=int(path.stem),
            at=datetime.fromtimestamp(path.stat().st_mtime, UTC),
            sender=str(message["From"] or ""),
            to=[one.strip() for one in str(message["X-To"] or "").split(",")],
            subject=str(message["Subject"] or ""),
            message_id=str(message["Message-ID"] or ""),
            text=text,
            links=_LINK.findall(text),
        )


def linked(text: str) -> Markup:
    """A text for a page, with its addresses as links."""
    shown, end = Markup(""), 0
    for found in _LINK.finditer(text):
        shown += escape(text[end : found.start()]) + Markup('<a href="{0}" rel="noreferrer">{0}</a>').format(found[0])
        end = found.end()
    return shown + escape(text[end:])


def routes(box: Box) -> list[Route]:
    house = House("Mail", WEB, ("page.css",))

    def chosen(request: Request) -> list[Came]:
        to = request.query_params.get("to", "").strip().lower()
        return [one for one in box.letters if not to or to in (address.lower() for address in one.to)][-_SHOWN:]

    async def listed(request: Request) -> Response:
        to = request.query_params.get("to", "")
        return house.page(request, "letters.html", letters=chosen(request)[::-1], to=to, count=len(box.letters))

    async def shown(request: Request) -> Response:
        number = request.path_params["number"]
        letter = next((one for one in box.letters if one.number == number), None)
        if letter is None:
            raise Problem(404, "not-found", "No such letter", "See the list.")
        return house.page(request, "letter.html", letter=letter, text=linked(letter.text))

    async def as_json(request: Request) -> Response:
        return answer({"count": len(box.letters), "letters": chosen(request)})

    return [
        house.route("/", listed),
        house.route("/letters/{number:int}", shown),
        Route("/letters.json", as_json),
        house.files(),
    ]


async def serve(folder: Path, smtp_port: int, http_port: int) -> None:
    box, loop = Box(folder), asyncio.get_running_loop()
    smtp = await loop.create_server(
        lambda: SMTP(box, enable_SMTPUTF8=True, hostname="localhost", loop=loop), "127.0.0.1", smtp_port
    )
    app: Any = build_app("mailbox", [], checks={}, extra_routes=routes(box))
    config = uvicorn.Config(app, host="127.0.0.1", port=http_port, lifespan="off", log_level="warning", ws="none")
    server = uvicorn.Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: setattr(server, "should_exit", True))
    try:
        await server._serve()
    finally:
        smtp.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="lostwax.local.mailbox")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--smtp-port", type=int, required=True)
    parser.add_argument("--http-port", type=int, required=True)
    given = parser.parse_args()
    asyncio.run(serve(given.folder, given.smtp_port, given.http_port))


if __name__ == "__main__":
    main()
