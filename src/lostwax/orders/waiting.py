"""SQL of commands that wait: for their order, or behind an earlier command of it that lies in the dead letters.

Every function takes a connection and works in its caller's transaction.
"""

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

import asyncpg
import msgspec

from lostwax.contracts.orders import Command
from lostwax.kit.postgres import Connection

GIVING_UP_LOCK = 7_301
"""Held by the one connection of a shard that gives up early commands."""
LAST = 2**63 - 1
"""Position of a command of which nobody knows where it stood: behind all others."""

_encode = msgspec.json.Encoder().encode
_command = msgspec.json.Decoder(Command)


class Origin(msgspec.Struct, frozen=True):
    """The record that carried a command: its place (topic/partition/offset), its offset as position among the commands
    of its order, the place of the dead letter that it was, and what a dead letter of it would need."""

    place: str | None = None
    position: int | None = None
    replayed_from: str | None = None
    source: str | None = None
    message_id: str | None = None
    traceparent: str | None = None


class Arrival(msgspec.Struct, frozen=True):
    """A command as it came."""

    command: Command
    origin: Origin

    @property
    def position(self) -> int:
        return LAST if self.origin.position is None else self.origin.position


class DeadCommand(msgspec.Struct, frozen=True):
    """A dead-lettered command by the place at which it was given up, and its position in its order's sequence.
    `command_id` is None where it could not be read."""

    place: str
    order_id: UUID
    position: int
    command_id: UUID | None = None


def first_positions(dead: Iterable[DeadCommand]) -> dict[UUID, int]:
    """By order: the position of its first dead-lettered command; whatever stands behind it waits."""
    first: dict[UUID, int] = {}
    for mark in dead:
        first[mark.order_id] = min(mark.position, first.get(mark.order_id, LAST))
    return first


async def keep_early_commands(connection: Connection, arrivals: Sequence[Arrival]) -> None:
    if not arrivals:
        return
    await connection.execute(
        """
        INSERT INTO early_commands (command_id, order_id, body, position, place, source, message_id, traceparent,
                                    received_at)
        SELECT command_id, order_id, body, position, place, source, message_id, traceparent,
               now() + n * interval '1 microsecond'
        FROM unnest($1::uuid[], $2::uuid[], $3::jsonb[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[])
             WITH ORDINALITY AS e(command_id, order_id, body, position, place, source, message_id, traceparent, n)
        ON CONFLICT (command_id) DO NOTHING
        """,
        [a.command.command_id for a in arrivals],
        [a.command.order_id for a in arrivals],
        [_encode(a.command).decode() for a in arrivals],
        [a.origin.position for a in arrivals],
        [a.origin.place for a in arrivals],
        [a.origin.source for a in arrivals],
        [a.origin.message_id for a in arrivals],
        [a.origin.traceparent for a in arrivals],
    )


async def take_early_commands(connection: Connection, order_ids: Iterable[UUID]) -> list[Arrival]:
    """Remove and return the commands that waited for these orders, in the order in which they came; not those that
    have been given up."""
    rows = await connection.fetch(
        """
        WITH taken AS (DELETE FROM early_commands WHERE order_id = ANY($1) AND given_up_at IS NULL RETURNING *)
        SELECT * FROM taken ORDER BY position NULLS FIRST, received_at
        """,
        list(order_ids),
    )
    return [_early(r) for r in rows]


def _early(row: asyncpg.Record) -> Arrival:
    origin = Origin(row["place"], row["position"], None, row["source"], row["message_id"], row["traceparent"])
    return Arrival(_command.decode(row["body"]), origin)


async def orders_never_come(connection: Connection, older_than_s: float, most: int) -> list[UUID]:
    """Orders that commands have waited for longer than this; at most as many as `most` of these commands have."""
    rows = await connection.fetch(
        """
        SELECT order_id FROM early_commands
        WHERE given_up_at IS NULL AND received_at < now() - make_interval(secs => $1) ORDER BY received_at LIMIT $2
        """,
        older_than_s,
        most,
    )
    return sorted({UUID(int=r["order_id"].int) for r in rows})


async def give_up(connection: Connection, order_ids: Iterable[UUID], older_than_s: float) -> list[Arrival]:
    """Mark the commands that have waited for these orders for too long; those that their order has taken meanwhile
    are not there any more."""
    rows = await connection.fetch(
        """
        UPDATE early_commands SET given_up_at = now()
        WHERE order_id = ANY($1) AND given_up_at IS NULL AND received_at < now() - make_interval(secs => $2)
        RETURNING *
        """,
        list(order_ids),
        older_than_s,
    )
    return [_early(r) for r in rows]


async def given_up(connection: Connection) -> list[Arrival]:
    """Commands that are marked and may not be in the dead letters yet."""
    rows = await connection.fetch(
        "SELECT * FROM early_commands WHERE given_up_at IS NOT NULL ORDER BY position NULLS FIRST, received_at"
    )
    return [_early(r) for r in rows]


async def forget_given_up(connection: Connection, command_ids: Iterable[UUID]) -> None:
    await connection.execute(
        "DELETE FROM early_commands WHERE command_id = ANY($1) AND given_up_at IS NOT NULL", list(command_ids)
    )


async def dead_commands(
    connection: Connection, order_ids: Iterable[UUID], places: Iterable[str] = ()
) -> dict[str, DeadCommand]:
    """The dead-lettered commands of these orders, and those given up at these places."""
    rows = await connection.fetch(
        "SELECT place, order_id, position, command_id FROM dead_commands WHERE order_id = ANY($1) OR place = ANY($2)",
        list(order_ids),
        list(places),
    )
    return {
        r["place"]: DeadCommand(
            r["place"],
            UUID(int=r["order_id"].int),
            r["position"],
            None if r["command_id"] is None else UUID(int=r["command_id"].int),
        )
        for r in rows
    }


async def mark_dead_commands(connection: Connection, marks: Sequence[DeadCommand]) -> None:
    """Remember that these are in the dead letters; what is marked already stays as it is."""
    await connection.execute(
        "INSERT INTO dead_commands (place, order_id, position, command_id)"
        " SELECT * FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::uuid[]) ON CONFLICT (place) DO NOTHING",
        [m.place for m in marks],
        [m.order_id for m in marks],
        [m.position for m in marks],
        [m.command_id for m in marks],
    )


async def move_dead_command(connection: Connection, place: str, to: str) -> bool:
    """One that was replayed is dead again, at another place; its position stays. False when it is not marked."""
    done = await connection.fetchval("UPDATE dead_commands SET place = $2 WHERE place = $1 RETURNING true", place, to)
    return bool(done)


async def forget_dead_commands(connection: Connection, places: Iterable[str]) -> None:
    await connection.execute("DELETE FROM dead_commands WHERE place = ANY($1)", list(places))


async def park_commands(connection: Connection, arrivals: Sequence[Arrival]) -> None:
    if not arrivals:
        return
    await connection.execute(
        """
        INSERT INTO parked_commands (command_id, order_id, position, body)
        SELECT command_id, order_id, position, body
        FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::jsonb[])
             WITH ORDINALITY AS p(command_id, order_id, position, body, n)
        ORDER BY n
        """,
        [a.command.command_id for a in arrivals],
        [a.command.order_id for a in arrivals],
        [a.position for a in arrivals],
        [_encode(a.command).decode() for a in arrivals],
    )


async def take_parked_commands(connection: Connection, before: Mapping[UUID, int | None]) -> list[Arrival]:
    """Remove and return the parked commands of these orders, in their sequence: all of an order's (None), or those
    that stand before a position."""
    rows = await connection.fetch(
        """
        WITH taken AS (
            DELETE FROM parked_commands p USING unnest($1::uuid[], $2::bigint[]) AS o(order_id, before)
            WHERE p.order_id = o.order_id AND (o.before IS NULL OR p.position < o.before)
            RETURNING p.position, p.arrival, p.body)
        SELECT position, body FROM taken ORDER BY position, arrival
        """,
        list(before),
        list(before.values()),
    )
    return [Arrival(_command.decode(r["body"]), Origin(position=r["position"])) for r in rows]
