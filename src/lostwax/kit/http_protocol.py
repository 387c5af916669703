"""uvicorn's HTTP/1.1 with less work for each request (docs/decisions/0017-what-an-order-costs.md).

An answer whose length is declared goes out in one piece, its headers checked together, not one by one; a connection
has one timer while it lives, not one after each answer; an address is taken apart without a second parser. All else is
uvicorn's own.
"""

import asyncio
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import (
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)


class Cycle(RequestResponseCycle):
    """One request and its answer. The head of an answer waits for the body when its length says that one comes at
    once; whatever is not plain goes uvicorn's way, which refuses what is wrong."""

    _head: Any = None

    async def send(self, message: Any) -> None:
        if not self.response_started:
            if message["type"] == "http.response.start" and any(n == b"content-length" for n, _ in message["headers"]):
                self._head = message
                return
            head, self._head = self._head, None
            if head is not None:
                if self._write_whole(head, message):
                    return
                await super().send(head)
        await super().send(message)

    def _write_whole(self, head: Any, message: Any) -> bool:
        """Write head and body together and end the answer; False, with nothing done, where that is not so simple."""
        if (
            not self.keep_alive
            or self.disconnected
            or self.flow.write_paused
            or self.default_headers
            or message["type"] != "http.response.body"
            or message.get("more_body", False)
            or self.scope["method"] == "HEAD"
        ):
            return False
        body = message.get("body", b"")
        parts = [STATUS_LINE[head["status"]]]
        values = []
        for name, value in head["headers"]:
            if name == b"content-length":
                if value != str(len(body)).encode():
                    return False
            elif name in (b"connection", b"transfer-encoding"):
                return False
            values.append(value)
            parts += (name, b": ", value, b"\r\n")
        if HEADER_VALUE_RE.search(b"".join(values)):
            return False
        parts += (b"\r\n", body)
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(b"".join(parts))
        self.message_event.set()
        self.on_response()
        return True


class Protocol(HttpToolsProtocol):
    """One connection. No web sockets, no limit of concurrency: nobody here sets either."""

    _idle_since: float | None = None

    def on_headers_complete(self) -> None:
        parser, scope, url = self.parser, self.scope, self.url
        http_version = parser.get_http_version()
        scope["method"] = parser.get_method().decode("ascii")
        if http_version != "1.1":
            scope["http_version"] = http_version
        if url.startswith(b"/") and not url.startswith(b"//") and b"#" not in url:
            raw_path, _, query = url.partition(b"?")
        else:
            parsed = httptools.parse_url(url)
            raw_path, query = parsed.path, parsed.query or b""
        path = raw_path.decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"], scope["query_string"] = raw_path, query
        before = self.cycle
        self.cycle = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=http_version != "1.0" and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            # Sent before the answer to the one before: it waits for its turn.
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._close_if_idle_for(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        """Called with every piece of a request."""
        self._idle_since = None

    def _close_if_idle_for(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self._idle_since is None or self.transport.is_closing():
            return  # a request is under way: its answer begins to wait anew
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s <= 0:
            self.transport.close()
        else:
            self._close_if_idle_for(left_s)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        super().connection_lost(exc)
