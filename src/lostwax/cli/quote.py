"""`quote`: ask what a model costs in several alloys, before anything is ordered."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(quote)


def quote(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="The 3D model: STL or OBJ in mm, or 3MF.")
    ],
    alloy: Annotated[list[str], typer.Option(help="As often as you like, e.g. --alloy gold-14k --alloy brass.")],
    finish: Annotated[list[str] | None, typer.Option(help="Likewise; polished unless given.")] = None,
    quantity: Annotated[int, typer.Option(min=1, max=1000)] = 1,
    ring_size: Annotated[float | None, typer.Option(help="EU: inner circumference, mm.")] = None,
    scale: Annotated[float | None, typer.Option(help="Uniform factor on the drawn model.")] = None,
    engraving: Annotated[str | None, typer.Option()] = None,
    stack: Annotated[str, typer.Option("--stack", help="Which local stack; started when it does not run.")] = "dev",
) -> None:
    """Upload the model and show its price in each alloy and finish, at most 24 of them. Nothing is ordered.

    Another partner API than the local one: LOSTWAX_PARTNER_URL and LOSTWAX_API_KEY in the environment.
    """
    import httpx
    from rich.console import Console

    from lostwax.cli.order import partner_of, told, upload

    console = Console()
    url, key = partner_of(stack, console)
    made = {"quantity": quantity, "ring_size": ring_size, "scale": scale, "engraving": engraving}
    options = [{"alloy": a, "finish": f, **made} for f in finish or ["polished"] for a in alloy]
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
        body = {"model": upload(client, console, file), "options": options}
        headers = {"Idempotency-Key": f"quote-{time.time_ns()}"}
        accepted = told(client.post("/v1/quotes", json=body, headers=headers), console, 202)
        with console.status("pricing; Ctrl-C leaves the quote alone"):
            while True:
                seen = told(client.get(f"/v1/quotes/{accepted['quote_id']}"), console, 200)
                if seen["state"] != "requested":
                    break
                time.sleep(0.1)
    _show(console, seen)
    if seen["state"] == "failed":
        raise typer.Exit(1)


def _show(console: "Console", seen: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name, justify in (("option", "right"), ("alloy", "left"), ("finish", "left"), ("pieces", "right")):
        table.add_column(name, justify="left" if justify == "left" else "right")
    table.add_column("price", justify="right")
    for option in seen["options"]:
        failure = option["failure"]
        price = (
            f"{option['amount']} {option['currency']}" if failure is None else f"[red]{escape(failure['detail'])}[/]"
        )
        table.add_row(str(option["option"]), option["alloy"], option["finish"], str(option["quantity"]), price)
    console.print(table)
    held = "" if seen["expires_at"] is None else f", held until {seen['expires_at'][:10]}"
    console.print(f"quote {seen['quote_id']}{held}", highlight=False)
