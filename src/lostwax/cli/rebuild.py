"""`rebuild`: have a service's lists in Redis built anew, or reports' warehouse, and watch it."""

import os
import time
from typing import Annotated, Any, NoReturn

import typer

SERVICES = {
    "mes": "mes",
    "crm": "crm",
    "partner-api": "partner_api",
    "shop": "shop",
    "orders": "orders",
    "reporting": "reporting",
}
_LIMIT_S = 600.0


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(rebuild)


def rebuild(
    service: Annotated[str, typer.Argument(help="mes, crm, partner-api, shop, orders or reporting.")],
    stack: Annotated[str, typer.Option("--stack", help="Which local stack.")] = "dev",
    url: Annotated[
        str | None,
        typer.Option(help="Where the service answers, instead of a local stack; signs with LOSTWAX_SERVICE_KEY."),
    ] = None,
) -> None:
    """Have the lists in Redis built anew from the database; ends when they are in force. People can go on working.

    Of reporting, the warehouse: emptied and filled from new copies of every database; until then reports tell less.
    """
    import httpx
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from lostwax.kit.rebuilding import RebuildView

    if service not in SERVICES:
        _give_up(f"no lists in {service}: there are {', '.join(SERVICES)}", code=2)
    caller = _Caller(SERVICES[service], stack, url)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        asked_at = _time(caller.ask("POST")["asked_at"])
        began, view = time.monotonic(), None
        with Progress(*columns) as bar:
            task = bar.add_task(f"{service}: asked", total=None)
            while view is None or view.built_at is None or view.built_at < asked_at:
                if time.monotonic() - began > _LIMIT_S:
                    _give_up(f"not done within {_LIMIT_S:.0f} s: {view}")
                time.sleep(0.1)
                view = _as(RebuildView, caller.ask("GET"))
                if view.state == "idle":
                    _give_up(f"{service}: {view.detail or 'it was started anew meanwhile: ask again'}")
                if view.state == "building":
                    bar.update(task, completed=view.done, total=view.total or None)
                bar.update(task, description=f"{service}: {view.detail or view.state}")
            whole = bar.tasks[0].total or 0
            bar.update(task, completed=whole, total=whole)
    except (httpx.HTTPError, OSError) as error:
        _give_up(f"{service} does not answer: {error}")
    typer.echo(f"{service}: built anew in {time.monotonic() - began:.1f} s, as of {view.built_at:%H:%M:%S} UTC")


class _Caller:
    """Calls one service's /v1/rebuild with a fresh token each time."""

    def __init__(self, service: str, stack: str, url: str | None) -> None:
        from lostwax.kit.auth import ServiceSigner
        from lostwax.local.places import STACKS
        from lostwax.local.stack import NotRunning, Stack

        self._audience = service
        if url is not None:
            if (key := os.environ.get("LOSTWAX_SERVICE_KEY")) is None:
                _give_up("set LOSTWAX_SERVICE_KEY, the console's, with its public half in LOSTWAX_SERVICE_KEYS", code=2)
            import json

            self._url, self._token = url, ServiceSigner(json.loads(key)["kid"], key).token
            return
        try:
            attached = Stack.attach(STACKS / stack)
            self._url, self._token = attached.url(service), attached.console_token
        except NotRunning:
            _give_up(f"no stack {stack} runs: ./lostwax up", code=2)

    def ask(self, method: str) -> Any:
        import httpx

        headers = {"Authorization": f"Bearer {self._token(self._audience)}"}
        response = httpx.request(method, f"{self._url}/v1/rebuild", headers=headers, timeout=10)
        if response.is_error:
            _give_up(f"{response.status_code}: {response.text}")
        return response.json()


def _as(type_: Any, value: Any) -> Any:
    import msgspec

    return msgspec.convert(value, type_)


def _time(text: str) -> Any:
    from datetime import datetime

    return _as(datetime, text)


def _give_up(why: str, code: int = 1) -> NoReturn:
    typer.echo(why, err=True)
    raise typer.Exit(code)
