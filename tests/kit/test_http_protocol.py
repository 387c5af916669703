"""What goes over the wire between a client and a service, byte by byte."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from starlette.responses import Response, StreamingResponse

from lostwax.kit.http import answer
from lostwax.kit.http_protocol import Protocol

one_arrived = asyncio.Event()
Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def app(scope: Any, receive: Any, send: Any) -> None:
    path = scope["path"]
    if path == "/slow":
        await asyncio.sleep(0.3)
    if path == "/stream":

        async def pieces() -> AsyncIterator[bytes]:
            yield b"one"
            await one_arrived.wait()
            yield b"two"

        await StreamingResponse(pieces())(scope, receive, send)
    elif path == "/wrong-header":
        await answer({}, headers={"location": "a\r\nset-cookie: b"})(scope, receive, send)
    elif path == "/wrong-length":
        await Response(b"abc", headers={"content-length": "2"})(scope, receive, send)
    elif path == "/fails":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        raise RuntimeError("before the body")
    else:
        body = (await receive())["body"].decode()
        query = scope["query_string"].decode()
        await answer({"path": path, "query": query, "body": body}, headers={"X-Own": "1"})(scope, receive, send)


@asynccontextmanager
async def served(keep_alive_s: int = 30) -> AsyncIterator[Callable[[], Awaitable[Wire]]]:
    config = uvicorn.Config(
        app, port=0, http=Protocol, ws="none", lifespan="off", log_config=None, timeout_keep_alive=keep_alive_s,
        server_header=False, date_header=False, access_log=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn's doing
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield lambda: asyncio.open_connection("127.0.0.1", port)
    finally:
        server.should_exit = True
        await running


async def one_answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return head, await reader.readexactly(length)


def get(path: str, method: str = "GET", more: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: here\r\n{more}\r\n".encode()


async def test_answers_one_after_the_other_on_one_connection() -> None:
    async with served() as connect:
        reader, writer = await connect()
        for number in range(3):
            writer.write(get(f"/a%20b?n={number}", "POST", "Content-Length: 2\r\n") + b"hi")
            head, body = await one_answer(reader)
            assert (
                head
                == b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-own: 1\r\n\r\n"
                % (len(body))
            )
            assert body == b'{"path":"/a b","query":"n=%d","body":"hi"}' % number
        writer.close()


async def test_answers_in_order_what_was_sent_at_once() -> None:
    async with served() as connect:
        reader, writer = await connect()
        writer.write(get("/slow") + get("/1") + get("/2"))
        assert [b'"path":"/slow"' in (await one_answer(reader))[1], b'"/1"' in (await one_answer(reader))[1]] == [
            True
        ] * 2
        assert b'"/2"' in (await one_answer(reader))[1]
        writer.close()


@pytest.mark.parametrize("url", ["http://here/x?y=1", "/x?y=1", "/x?y=1#z"])
async def test_takes_every_form_of_an_address(url: str) -> None:
    async with served() as connect:
        reader, writer = await connect()
        writer.write(get(url))
        assert (await one_answer(reader))[1] == b'{"path":"/x","query":"y=1","body":""}'
        writer.close()


async def test_closes_when_asked_to_and_says_so() -> None:
    async with served() as connect:
        for asked in ("Connection: close\r\n", ""):
            reader, writer = await connect()
            writer.write(get("/", more=asked) if asked else b"GET / HTTP/1.0\r\n\r\n")
            async with asyncio.timeout(5):
                assert b"connection: close\r\n" in (everything := await reader.read())
            assert everything.endswith(b'"body":""}')


async def test_a_head_alone_has_no_body() -> None:
    async with served() as connect:
        reader, writer = await connect()
        writer.write(get("/x", "HEAD") + get("/y"))
        async with asyncio.timeout(5):
            assert b"content-length: 34\r\n" in await reader.readuntil(b"\r\n\r\n")
        assert b'"/y"' in (await one_answer(reader))[1]
        writer.close()


async def test_pieces_are_sent_as_they_come() -> None:
    async with served() as connect:
        reader, writer = await connect()
        writer.write(get("/stream"))
        async with asyncio.timeout(5):
            await reader.readuntil(b"one")
            one_arrived.set()
            await reader.readuntil(b"two\r\n0\r\n\r\n")
        writer.close()


@pytest.mark.parametrize("path", ["/wrong-header", "/wrong-length", "/fails"])
async def test_nothing_wrong_goes_out(path: str) -> None:
    async with served() as connect:
        reader, writer = await connect()
        writer.write(get(path))
        async with asyncio.timeout(5):
            everything = await reader.read()
        assert b"set-cookie" not in everything
        assert b" 500 " in everything or not everything.partition(b"\r\n\r\n")[2]


async def test_closes_an_idle_connection_in_time_and_no_busy_one() -> None:
    async with served(keep_alive_s=1) as connect:
        reader, writer = await connect()
        loop = asyncio.get_running_loop()
        for _ in range(4):
            writer.write(get("/slow"))
            await one_answer(reader)
            await asyncio.sleep(0.2)
        idle_since = loop.time() - 0.2
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        assert loop.time() - idle_since > 0.9
        writer.close()


async def test_continues_when_asked_whether_to() -> None:
    async with served() as connect:
        reader, writer = await connect()
        writer.write(get("/x", "POST", "Content-Length: 2\r\nExpect: 100-continue\r\n"))
        async with asyncio.timeout(5):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hi")
        assert b'"body":"hi"' in (await one_answer(reader))[1]
        writer.close()


async def test_a_request_that_is_none_is_refused() -> None:
    async with served() as connect:
        reader, writer = await connect()
        writer.write(b"nonsense\r\n\r\n")
        async with asyncio.timeout(5):
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
