"""A door's commands: sent to Orders once, and what became of each, in the door's own table `commands`.

Every door keeps that table in its own database, by its own migration; only the column that says who sent a command has
a name of its own.
"""

from collections.abc import Iterable
from uuid import UUID

import msgspec

from lostwax.contracts.orders import Command, Outcome
from lostwax.contracts.topics import Topic
from lostwax.kit import outbox
from lostwax.kit.postgres import Connection


class CommandView(msgspec.Struct, frozen=True):
    """What you asked for. `state`: pending, accepted, or refused with `code` and `detail`."""

    command_id: UUID
    order_id: UUID
    action: str
    state: str
    code: str | None = None
    detail: str | None = None


class Commands:
    """The table of one door, which writes to `topic`. `sender` is its column of who sent a command."""

    def __init__(self, topic: Topic, sender: str) -> None:
        self._topic = topic
        self._sender = sender

    async def send(self, connection: Connection, command: Command, action: str, sender: UUID) -> CommandView:
        """In the caller's transaction: send a command, unless this very one was sent before; how it stands."""
        done = await connection.execute(
            f"INSERT INTO commands (command_id, order_id, {self._sender}, action, issued_at)"
            " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (command_id) DO NOTHING",
            command.command_id,
            command.order_id,
            sender,
            action,
            command.issued_at,
        )
        if done == "INSERT 0 1":
            await outbox.add(connection, [outbox.message(self._topic, command.order_id, command)])
        sent = await self.find(connection, command.command_id)
        assert sent is not None
        return sent

    async def find(self, connection: Connection, command_id: UUID, sender: UUID | None = None) -> CommandView | None:
        """A command, of `sender` only when given: another's is as absent as one that never was."""
        row = await connection.fetchrow(
            "SELECT command_id, order_id, action, state, code, detail FROM commands"
            f" WHERE command_id = $1 AND ($2::uuid IS NULL OR {self._sender} = $2)",
            command_id,
            sender,
        )
        if row is None:
            return None
        return CommandView(
            UUID(int=row["command_id"].int),
            UUID(int=row["order_id"].int),
            row["action"],
            row["state"],
            row["code"],
            row["detail"],
        )

    async def take_outcomes(self, connection: Connection, outcomes: Iterable[Outcome]) -> None:
        """Keep what became of this door's commands; those of others are not known here."""
        by_command = {o.command_id: o for o in outcomes}
        decided = [by_command[i] for i in sorted(by_command)]
        await connection.execute(
            """
            UPDATE commands AS c
            SET state = CASE WHEN n.accepted THEN 'accepted' ELSE 'refused' END, code = n.code, detail = n.detail,
                decided_at = n.at
            FROM unnest($1::uuid[], $2::bool[], $3::text[], $4::text[], $5::timestamptz[])
                 AS n(command_id, accepted, code, detail, at)
            WHERE c.command_id = n.command_id AND c.state = 'pending'
            """,
            [o.command_id for o in decided],
            [o.accepted for o in decided],
            [o.code for o in decided],
            [o.detail for o in decided],
            [o.at for o in decided],
        )
