"""`dead`: messages that a reader gave up on: look at them, send them back after the mend, or discard them."""

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from lostwax.cli.where import StackName, kafka_address

if TYPE_CHECKING:
    from lostwax.contracts.topics import Topic
    from lostwax.kit.dead import Letter, Letters
    from lostwax.kit.kafka import Publisher

TopicName = Annotated[str, typer.Argument(help="E.g. orders.commands, or orders.commands.dead.")]
Offset = Annotated[int | None, typer.Argument(min=0, help="As `list` shows it.")]

_RAW_BYTES = 2000
_AT_ONCE = 500


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    dead = typer.Typer(no_args_is_help=True)
    for command in (show, replay, discard):
        dead.command()(command)
    dead.command("list")(list_letters)
    app.add_typer(dead, name="dead", help="Dead letters: what a reader gave up on, until it is replayed or discarded.")


def list_letters(
    topic: Annotated[str | None, typer.Option(help="Only this topic's.")] = None, stack: StackName = "dev"
) -> None:
    """Show what nobody has replayed or discarded yet."""
    from rich.console import Console
    from rich.table import Table

    from lostwax.contracts.topics import ALL

    topics = ALL if topic is None else (_topic(topic),)
    found = [letter for letters in _read(stack, topics).values() for letter in letters.open.values()]
    if not found:
        typer.echo("no dead letters")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("topic", "offset", "given up at", "by", "key", "reason"):
        table.add_column(
            heading, justify="right" if heading == "offset" else "left", overflow="fold", no_wrap=heading == "topic"
        )
    for letter in found:
        table.add_row(
            letter.topic.removesuffix(".dead"),
            str(letter.offset),
            letter.text("dead_at")[:19].replace("T", " "),
            letter.text("dead_group"),
            letter.subject.replace("[", r"\["),
            f"{letter.reason}: {_short(letter.detail)}".replace("[", r"\["),
        )
    Console().print(table)


def show(topic: TopicName, offset: Annotated[int, typer.Argument(min=0)], stack: StackName = "dev") -> None:
    """Show one dead letter: its headers, why it was given up, and its body."""
    chosen = _topic(topic)
    letters = _read(stack, (chosen,))[chosen]
    letter = _one(letters, chosen, offset)
    typer.echo(f"{letter.topic} {letter.offset}, key {letter.key}")
    for name in sorted(letter.headers):
        typer.echo(f"  {name:16} {letter.text(name)}")
    typer.echo(_body(letter))


def replay(
    topic: TopicName,
    offset: Offset = None,
    everything: Annotated[bool, typer.Option("--all", help="All open dead letters of the topic.")] = False,
    stack: StackName = "dev",
) -> None:
    """Send a dead letter back to where it came from, for its reader to handle it now that the fault is mended."""
    from lostwax.kit import dead
    from lostwax.kit.clock import utc_now

    chosen, letters, publisher = _chosen(topic, offset, everything, stack)

    async def send(some: "Sequence[Letter]") -> None:
        await dead.replay(publisher, chosen, some, by=_who(), at=utc_now())

    _settle(letters, send, "replayed")


def discard(
    topic: TopicName,
    reason: Annotated[str, typer.Option(help="Why; kept for whoever asks.")],
    offset: Offset = None,
    everything: Annotated[bool, typer.Option("--all", help="All open dead letters of the topic.")] = False,
    stack: StackName = "dev",
) -> None:
    """Settle a dead letter that shall never be handled; what waited behind it goes on."""
    from lostwax.kit import dead
    from lostwax.kit.clock import utc_now
    from lostwax.orders.worker import PARKING

    if not reason.strip():
        _give_up("--reason must say why")
    chosen, letters, publisher = _chosen(topic, offset, everything, stack)

    async def settle(some: "Sequence[Letter]") -> None:
        await dead.discard(publisher, chosen, some, reason, tell=chosen in PARKING, by=_who(), at=utc_now())

    _settle(letters, settle, "discarded")


def _settle(letters: "Sequence[Letter]", settle: "Callable[[Sequence[Letter]], Awaitable[None]]", done: str) -> None:
    """Settle the letters some at a time, and say of each that it is done."""
    import asyncio

    from lostwax.kit.dead import NoSuchLetter
    from lostwax.kit.kafka import NotPublished

    async def all_of_them() -> None:
        for start in range(0, len(letters), _AT_ONCE):
            some = letters[start : start + _AT_ONCE]
            await settle(some)
            for letter in some:
                typer.echo(f"{letter.topic} {letter.offset} {done}, key {letter.subject}")

    try:
        asyncio.run(all_of_them())
    except (NoSuchLetter, NotPublished) as error:
        _give_up(str(error))


def _chosen(topic: str, offset: int | None, everything: bool, stack: str) -> "tuple[Topic, list[Letter], Publisher]":
    """The topic, the letters that are meant, and what sends to their broker."""
    from lostwax.kit.kafka import Publisher

    if (offset is None) != everything:
        _give_up("give an offset, or --all")
    chosen = _topic(topic)
    letters = _read(stack, (chosen,))[chosen]
    meant = list(letters.open.values()) if offset is None else [_one(letters, chosen, offset)]
    return chosen, meant, Publisher(kafka_address(stack), client_id="lostwax-dead")


def _topic(name: str) -> "Topic":
    from lostwax.contracts.topics import ALL

    by_name = {topic.name: topic for topic in ALL}
    if (topic := by_name.get(name.removesuffix(".dead"))) is None:
        _give_up(f"no topic {name}: there are {', '.join(by_name)}")
    return topic


def _one(letters: "Letters", topic: "Topic", offset: int) -> "Letter":
    from lostwax.kit.dead import AlreadySettled, NoSuchLetter

    try:
        return letters.at(topic, offset)
    except (AlreadySettled, NoSuchLetter) as error:
        _give_up(str(error), code=1)


def _read(stack: str, topics: "Sequence[Topic]") -> "dict[Topic, Letters]":
    from confluent_kafka import KafkaException

    from lostwax.kit.dead import read

    try:
        return read(kafka_address(stack), topics)
    except KafkaException as error:
        _give_up(f"Kafka does not answer: {error}")


def _body(letter: "Letter") -> str:
    """The message as JSON when it can be decoded; else its bytes, as text where they are."""
    import msgspec

    from lostwax.contracts import catalogue

    value = letter.value or b""
    try:
        decoded = catalogue.decode(letter.text("ce_type"), value)
        return msgspec.json.format(msgspec.json.encode(decoded), indent=2).decode()
    except (KeyError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        cut = value[:_RAW_BYTES]
        more = f"\n.. {len(value) - len(cut)} bytes more" if len(value) > len(cut) else ""
        try:
            shown = cut.decode()
        except UnicodeDecodeError:
            shown = repr(cut)
        why = f"no type {error}" if isinstance(error, KeyError) else str(error)
        return f"{len(value)} bytes that do not decode ({why}):\n{shown}{more}"


def _who() -> str:
    import getpass
    import socket

    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        return f"{os.getuid()}@{socket.gethostname()}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 120 else f"{line[:119]}…"


def _give_up(why: str, code: int = 2) -> NoReturn:
    typer.echo(why, err=True)
    raise typer.Exit(code)
