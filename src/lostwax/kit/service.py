"""Running a service: one event loop for HTTP, relay and consumers; a shutdown that drains, commits and leaves."""

import asyncio
import gc
import logging
import signal
from collections.abc import Coroutine, Sequence
from contextlib import nullcontext
from typing import Any

import uvicorn
import uvloop
from starlette.types import ASGIApp

from lostwax.kit.http_protocol import Protocol

log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: the service decides the order in which things stop."""

    def install_signal_handlers(self) -> None:
        return

    def capture_signals(self) -> Any:
        return nullcontext()


async def serve(
    name: str,
    app: ASGIApp,
    *,
    host: str,
    port: int,
    background: Sequence[tuple[str, Coroutine[Any, Any, None]]],
    trusted_proxies: str = "",
) -> None:
    """Serve until SIGTERM or SIGINT, then stop in order: no new requests, finish requests, finish and commit
    messages. A background task that ends by itself ends the service with an error. `trusted_proxies`: addresses or
    networks, by comma, from which X-Forwarded-For and -Proto are believed; from everywhere else they are not."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    server = _Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            loop="none",
            http=Protocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=trusted_proxies,
            date_header=False,
            timeout_graceful_shutdown=10,
            timeout_keep_alive=30,
            backlog=1024,
        )
    )
    failed: list[str] = []
    tasks = [asyncio.create_task(work, name=task_name) for task_name, work in background]

    def ended(task: "asyncio.Task[None]") -> None:
        if not task.cancelled():
            failed.append(task.get_name())
            log.error("background task ended", extra={"task": task.get_name()}, exc_info=task.exception())
            stop.set()

    for task in tasks:
        task.add_done_callback(ended)
    http = asyncio.create_task(server.serve(), name="http")
    log.info("started", extra={"host": host, "port": port})
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait([http, waiting], return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await asyncio.wait([http], timeout=15)
    for task in reversed(tasks):
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=30)
    waiting.cancel()
    log.info("stopped")
    if failed or (http.done() and not stop.is_set()):
        raise SystemExit(f"{name} stopped by itself: {failed or 'http'}")


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a service's main coroutine to its end on uvloop."""
    # What was imported lives as long as the process, and messages are freed by their count: let the collector look
    # less often, and never at the former.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    uvloop.run(main)
