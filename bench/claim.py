"""`lostwax bench claim`: one order, a hundred operators at once; how long each waits for the answer, the winner's 200
or the others' 409. Every order of the run is won once."""

import asyncio
import time
from typing import Any

from _load import load
from _people import a_partner, operators, order_body, order_head, upload_model
from _stack import fresh_stack
from _wait import in_queue
from lostwax.local.stack import Stack

AT_ONCE = 100


def run(quick: bool) -> dict[str, Any]:
    """Prints a line; returns the metrics."""
    with fresh_stack() as stack:
        return asyncio.run(_run(stack, 20 if quick else 100))


async def _run(stack: Stack, orders: int) -> dict[str, Any]:
    _, key = await a_partner(stack)
    credentials = await operators(stack, AT_ONCE)
    model = upload_model(stack, key)
    # One more, for everybody's first request.
    load(
        host="127.0.0.1", port=stack.process("partner_api").port, head=order_head(key), body=order_body(model),
        seconds=30, in_flight=4, most=orders + 1, tag="claim",
    )  # fmt: skip
    ids = await in_queue(stack, credentials[0], orders + 1)
    port = stack.process("mes").port
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in credentials]
    latencies: list[float] = []
    try:
        for number, order_id in enumerate(ids):
            results = await asyncio.gather(
                *(_claim(*pair, order_id, token) for pair, token in zip(connections, credentials, strict=True))
            )
            statuses = sorted(status for status, _ in results)
            assert statuses == [200] + [409] * (AT_ONCE - 1), statuses
            if number:
                latencies += [seconds for _, seconds in results]
    finally:
        for _, writer in connections:
            writer.close()
    latencies.sort()
    p50, p95, p99 = (1000 * latencies[int(share * len(latencies))] for share in (0.5, 0.95, 0.99))
    print(f"{len(ids) - 1} orders, {AT_ONCE} at once: p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f} ms")
    return {
        name: {"value": value, "unit": "ms", "ceiling": None, "ratio": None}
        for name, value in (("p50_ms", p50), ("p95_ms", p95), ("p99_ms", p99))
    }


async def _claim(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, order_id: str, credential: str
) -> tuple[int, float]:
    began = time.perf_counter()
    head = f"POST /v1/orders/{order_id}/claim HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {credential}\r\n"
    writer.write(f"{head}Content-Length: 0\r\n\r\n".encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    return int(answer[9:12]), time.perf_counter() - began
