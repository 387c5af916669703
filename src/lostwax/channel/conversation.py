"""What customers and sellers say to each other about an order: a table `messages` of each service that shows it, and
the messages between them. Every function works in its caller's transaction."""

from uuid import UUID

from lostwax.contracts import topics
from lostwax.contracts.conversation import MessageSent, Side
from lostwax.kit import outbox
from lostwax.kit.postgres import Connection
from lostwax.kit.problems import Problem

MOST_OF_ORDER = 500
"""Messages about an order: nobody fills the disk by one."""

_SENT = "message_id, order_id, channel, side, name, text, sent_at, asks, layout_id, revision"


async def keep(connection: Connection, sent: MessageSent) -> bool:
    """Keep a message; False: it was kept before."""
    row = await connection.fetchrow(
        f"INSERT INTO messages ({_SENT}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
        " ON CONFLICT (message_id) DO NOTHING RETURNING 1",
        sent.message_id,
        sent.order_id,
        sent.channel,
        sent.side.value,
        sent.name,
        sent.text.replace("\0", ""),
        sent.sent_at,
        sent.asks,
        sent.layout_id,
        sent.revision,
    )
    return row is not None


async def say(connection: Connection, sent: MessageSent) -> MessageSent:
    """Keep a message and send it to the other side; what was said before under its id stays as it was, and is
    returned. Raises the 409 Problem when too much was said about this order."""
    if not await keep(connection, sent):
        before = await connection.fetchrow(f"SELECT {_SENT} FROM messages WHERE message_id = $1", sent.message_id)
        assert before is not None
        return _message(before)
    count = await connection.fetchval("SELECT count(*) FROM messages WHERE order_id = $1", sent.order_id)
    if count > MOST_OF_ORDER:
        raise Problem(
            409, "too-many-messages", "Too much was said about this order", f"At most {MOST_OF_ORDER} messages."
        )
    await outbox.add(connection, [outbox.message(topics.ORDER_MESSAGES, sent.order_id, sent)])
    return sent


async def about(connection: Connection, order_id: UUID) -> list[MessageSent]:
    """What was said about an order, the oldest first."""
    rows = await connection.fetch(
        f"SELECT {_SENT} FROM messages WHERE order_id = $1 ORDER BY sent_at, message_id LIMIT $2",
        order_id,
        MOST_OF_ORDER,
    )
    return [_message(row) for row in rows]


def _message(row: object) -> MessageSent:
    fields = dict(row)  # type: ignore[call-overload]
    for name in ("message_id", "order_id", "layout_id"):
        fields[name] = None if fields[name] is None else UUID(int=fields[name].int)
    return MessageSent(**fields | {"side": Side(fields["side"])})
