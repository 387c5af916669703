"""`order`: place one order as a partner, and follow it live."""

import hashlib
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import httpx
    from rich.console import Console

_PARTS_AT_ONCE = 4
_TRIES = 5
ENDS = ("SHIPPED", "CLOSED", "CANCELLED", "PRICE_FAILED")


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(order)


def order(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="The 3D model: STL or OBJ in mm, or 3MF.")
    ],
    alloy: Annotated[str, typer.Option(help="E.g. sterling-925, gold-14k, gold-18k, platinum-950, brass.")],
    finish: Annotated[str, typer.Option(help="E.g. as-cast, polished, satin, rhodium-plated.")],
    quantity: Annotated[int, typer.Option(min=1, max=1000)] = 1,
    ring_size: Annotated[float | None, typer.Option(help="EU: inner circumference, mm.")] = None,
    scale: Annotated[float | None, typer.Option(help="Uniform factor on the drawn model.")] = None,
    engraving: Annotated[str | None, typer.Option()] = None,
    accept: Annotated[bool, typer.Option("--accept", help="Accept the price without asking.")] = False,
    stack: Annotated[str, typer.Option("--stack", help="Which local stack; started when it does not run.")] = "dev",
) -> None:
    """Upload the model, order it, show the price with its breakdown, then follow the order until it is shipped.

    Another partner API than the local one: LOSTWAX_PARTNER_URL and LOSTWAX_API_KEY in the environment.
    """
    import httpx
    from rich.console import Console

    console = Console()
    url, key = partner_of(stack, console)
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
        sha256 = upload(client, console, file)
        wish = {
            "model": sha256,
            "alloy": alloy,
            "finish": finish,
            "quantity": quantity,
            "ring_size": ring_size,
            "scale": scale,
            "engraving": engraving,
        }
        submission = f"order-{time.time_ns()}"
        response = client.post("/v1/orders", json=wish, headers={"Idempotency-Key": submission})
        accepted = told(response, console, 202)
        began = time.monotonic()
        console.print(f"accepted as [bold]{accepted['code']}[/]  {accepted['order_id']}", highlight=False)
        for seen in _follow(client, console, accepted["order_id"]):
            status = seen["status"]
            console.print(f"{time.monotonic() - began:7.2f} s  {status}", highlight=False)
            if status == "PRICE_CALCULATED":
                _show_price(console, seen["quote"])
                if not accept and not (console.is_terminal and typer.confirm("Accept this price?", default=True)):
                    console.print("not accepted; the price is held until " + seen["quote"]["expires_at"][:10])
                    return
                quote = seen["quote"]
                body = {"quote_id": quote["quote_id"], "amount": quote["amount"]}
                told(client.post(f"/v1/orders/{accepted['order_id']}/accept", json=body), console, 202)
            elif status == "PRICE_FAILED":
                failure = seen["failure"]
                console.print(f"[red]no price[/] ({failure['code']}): {failure['detail']}", highlight=False)
                console.print(f"to be mended by: {failure['mended_by']}")
                raise typer.Exit(1)
            elif status == "SHIPPED":
                shipment = seen["shipment"]
                console.print(f"with {shipment['carrier']}, {shipment['tracking_number']}")


def partner_of(stack: str, console: "Console") -> tuple[str, str]:
    """Address and key: the environment's, else the local stack's with a key made for the command line."""
    if "LOSTWAX_PARTNER_URL" in os.environ:
        return os.environ["LOSTWAX_PARTNER_URL"], os.environ["LOSTWAX_API_KEY"]
    import asyncpg

    from lostwax.local.places import STACKS, Missing
    from lostwax.local.setup import write_private
    from lostwax.local.stack import Stack, StackFailed
    from lostwax.partner_api.keys import add_client

    try:
        with console.status("looking for the stack"):
            running = Stack.start(STACKS / stack, owned=False, fresh=False, preferred_ports=True)
    except (StackFailed, Missing) as failure:
        console.print(str(failure), style="red", markup=False, highlight=False)
        raise typer.Exit(2) from failure
    remembered = running.folder / "command-line.key"
    if not remembered.exists():
        import asyncio

        async def make() -> str:
            connection = await asyncpg.connect(running.env("partner_api")["LOSTWAX_DATABASE_URL"])
            try:
                return (await add_client(connection, "Command line"))[1]
            finally:
                await connection.close()

        write_private(remembered, asyncio.run(make()))
    return running.url("partner_api"), remembered.read_text().strip()


def upload(client: "httpx.Client", console: "Console", file: Path) -> str:
    """Register and upload the model unless it is there already; its sha-256. An upload that was interrupted goes on
    where it was."""
    import httpx

    digest, size = hashlib.sha256(), 0
    with file.open("rb") as content:
        while chunk := content.read(1024 * 1024):
            digest.update(chunk)
            size += len(chunk)
    sha256 = digest.hexdigest()
    model = told(
        client.post("/v1/models", json={"name": file.name, "size_bytes": size, "sha256": sha256}), console, 200, 201
    )
    link = model["upload"]
    if link is not None:
        with console.status(f"uploading {size / 1e6:.1f} MB"):
            data = file.read_bytes()
            sent = httpx.request(link["method"], link["url"], content=data, headers=link["headers"], timeout=300)
        if sent.status_code != 200:
            console.print(f"upload refused: {sent.status_code} {sent.text}", style="red", markup=False)
            raise typer.Exit(1)
    elif model["multipart"] is not None:
        _upload_parts(client, console, file, size, f"/v1/models/{sha256}/upload", model["multipart"])
    return sha256


def _upload_parts(
    client: "httpx.Client", console: "Console", file: Path, size: int, path: str, going: dict[str, Any]
) -> None:
    """Upload the parts that are missing, four at a time, and complete the upload. Ends with 1 when interrupted or when
    the line stays down; what is there stays there."""
    from concurrent.futures import ThreadPoolExecutor

    import httpx
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress, httpx.Client(timeout=300) as storage:
        bar = progress.add_task("uploading", total=size)

        def send(link: dict[str, Any]) -> None:
            with file.open("rb") as content:
                content.seek((link["number"] - 1) * going["part_size_bytes"])
                part = content.read(link["size_bytes"])
            upload = link["upload"]
            storage.request(upload["method"], upload["url"], content=part, headers=upload["headers"]).raise_for_status()
            progress.advance(bar, len(part))

        pool = ThreadPoolExecutor(_PARTS_AT_ONCE)
        failures = 0
        try:
            while going["links"]:
                before = len(going["present"])
                progress.update(bar, completed=min(size, before * going["part_size_bytes"]))
                sending = [pool.submit(send, link) for link in going["links"]]
                broken = [error for one in sending if (error := one.exception()) is not None]
                going = told(client.get(path), console, 200)
                failures = failures + 1 if broken and len(going["present"]) == before else 0
                if failures == _TRIES:
                    console.print(f"the upload does not go on: {broken[0]!r}", style="red", markup=False)
                    raise typer.Exit(1)
                if broken:
                    time.sleep(1)
        except KeyboardInterrupt:
            console.print("interrupted; the same command again goes on where it was")
            raise typer.Exit(1) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        progress.update(bar, completed=size)
    told(client.post(f"{path}/complete"), console, 200)


def _follow(client: "httpx.Client", console: "Console", order_id: str) -> Iterator[dict[str, Any]]:
    """The order each time its status has changed, until it ends."""
    import httpx

    status = None
    following = "following; Ctrl-C leaves the order alone"
    with console.status(following) as line:
        asked_at = time.monotonic()
        while status not in ENDS:
            try:
                response = client.get(f"/v1/orders/{order_id}")
            except httpx.TransportError:
                response = httpx.Response(503)
            if response.status_code == 503:
                time.sleep(0.5)  # restarting, most likely; the order is safe
                continue
            seen: dict[str, Any] = told(response, console, 200)
            if seen["status"] != status:
                status = seen["status"]
                line.update(following)
                yield seen
                asked_at = time.monotonic()
            else:
                if status == "SUBMITTED" and time.monotonic() - asked_at > 1:
                    line.update(_place(client, order_id) or following)
                    asked_at = time.monotonic()
                time.sleep(0.1)


def _place(client: "httpx.Client", order_id: str) -> str | None:
    """Where the order's price stands, in words; None when nobody can say."""
    import httpx

    try:
        response = client.get(f"/v1/orders/{order_id}/price-job")
    except httpx.TransportError:
        return None
    if response.status_code != 200:
        return None
    job = response.json()
    words = "being priced" if job["place"] == 0 else f"place {job['place']} in the queue of {job['lane']} prices"
    if job["expected_at"] is not None:
        expected = datetime.fromisoformat(job["expected_at"]).astimezone()
        words += f", expected at {expected:%H:%M:%S}"
    return words + (f", asked {job['attempts']} times" if job["attempts"] > 1 else "")


def _show_price(console: "Console", quote: dict[str, Any]) -> None:
    from rich.table import Table

    geometry = quote["geometry"]
    x, y, z = geometry["box_mm"]
    console.print(
        f"volume {geometry['volume_mm3']:.4f} mm3, area {geometry['area_mm2']:.2f} mm2,"
        f" box {x:.2f} x {y:.2f} x {z:.2f} mm, {geometry['triangles']} triangles",
        highlight=False,
    )
    for note in geometry["notes"]:
        console.print(f"note: {note}", style="yellow", markup=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in ("quantity", "unit", "unit price", quote["currency"]):
        table.add_column(name, justify="left" if name == "unit" else "right")
    for line in quote["lines"]:
        table.add_row(line["name"], line["quantity"], line["unit"], line["unit_price"], line["amount"])
    table.add_row("[bold]total[/]", "", "", "", f"[bold]{quote['amount']}[/]")
    console.print(table)


def told(response: "httpx.Response", console: "Console", *expected: int) -> Any:
    """The answer's JSON; prints the problem and ends with 1 when it is another than expected."""
    if response.status_code in expected:
        return response.json()
    try:
        problem = response.json()
        console.print(f"{problem['title']}. {problem.get('detail', '')}", style="red", markup=False)
    except (ValueError, KeyError):
        console.print(f"{response.status_code} {response.text[:500]}", style="red", markup=False)
    raise typer.Exit(1)
