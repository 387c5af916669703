"""What clients do with their hooks, and the log that they read."""

from datetime import datetime
from uuid import UUID

from lostwax.kit.postgres import Connection
from lostwax.partner_api.hooks_store.rows import CHANNEL, DeliveryRow, Hook, as_row

_HOOK = "hook_id, url, created_at, disabled_at, disabled_why"


async def lock_client(connection: Connection, client_id: UUID) -> None:
    await connection.execute("SELECT FROM clients WHERE client_id = $1 FOR UPDATE", client_id)


async def add_hook(connection: Connection, hook_id: UUID, client_id: UUID, url: str, secret: str) -> Hook | None:
    """None when the client has a hook with this URL already."""
    row = await connection.fetchrow(
        "INSERT INTO hooks (hook_id, client_id, url, secret) VALUES ($1, $2, $3, $4)"
        f" ON CONFLICT (client_id, url) WHERE removed_at IS NULL DO NOTHING RETURNING {_HOOK}",
        hook_id,
        client_id,
        url,
        secret,
    )
    return None if row is None else as_row(Hook, row)


async def hooks_of(connection: Connection, client_id: UUID) -> list[Hook]:
    """A client's hooks, oldest first."""
    rows = await connection.fetch(
        f"SELECT {_HOOK} FROM hooks WHERE client_id = $1 AND removed_at IS NULL ORDER BY hook_id", client_id
    )
    return [as_row(Hook, r) for r in rows]


async def hook(connection: Connection, client_id: UUID, hook_id: UUID) -> Hook | None:
    """A client's own hook; another's is as absent as one that never was."""
    row = await connection.fetchrow(
        f"SELECT {_HOOK} FROM hooks WHERE hook_id = $1 AND client_id = $2 AND removed_at IS NULL", hook_id, client_id
    )
    return None if row is None else as_row(Hook, row)


async def remove_hook(connection: Connection, client_id: UUID, hook_id: UUID) -> bool:
    """From now on nothing is sent there; its rows are swept later. False: no such hook."""
    done = await connection.execute(
        "UPDATE hooks SET removed_at = now(), secret = '', old_secret = NULL, old_secret_until = NULL"
        " WHERE hook_id = $1 AND client_id = $2 AND removed_at IS NULL",
        hook_id,
        client_id,
    )
    return done == "UPDATE 1"


async def change_secret(connection: Connection, hook_id: UUID, secret: str, grace_s: float) -> datetime:
    """Sign with this secret from now on, and with the one of before for `grace_s` seconds more; returns until when."""
    until = await connection.fetchval(
        "UPDATE hooks SET secret = $2, old_secret = secret, old_secret_until = now() + make_interval(secs => $3)"
        " WHERE hook_id = $1 RETURNING old_secret_until",
        hook_id,
        secret,
        grace_s,
    )
    assert isinstance(until, datetime)
    return until


async def enable_hook(connection: Connection, hook_id: UUID) -> None:
    """Try everything that is due at once, as if for the first time."""
    await connection.execute(
        "UPDATE hook_deliveries SET next_at = now(), attempts = 0, first_attempt_at = NULL"
        " WHERE hook_id = $1 AND state = 'due'",
        hook_id,
    )
    await connection.execute(
        "UPDATE hooks SET disabled_at = NULL, disabled_why = NULL, failures = 0, given_up = 0, retry_at = NULL"
        " WHERE hook_id = $1",
        hook_id,
    )


_DELIVERY = (
    "number, delivery_id, order_id, version, state, created_at, next_at, attempts, last_attempt_at, duration_ms,"
    " response_status, response_body, error"
)


async def add_test(connection: Connection, hook_id: UUID, delivery_id: UUID) -> DeliveryRow | None:
    """A delivery that only tests the way there. None while another one is under way."""
    row = await connection.fetchrow(
        f"""
        INSERT INTO hook_deliveries (delivery_id, hook_id, state)
        SELECT $2, $1, 'due' WHERE NOT EXISTS
            (SELECT FROM hook_deliveries WHERE hook_id = $1 AND state = 'due' AND order_id IS NULL)
        RETURNING {_DELIVERY}
        """,
        hook_id,
        delivery_id,
    )
    return None if row is None else as_row(DeliveryRow, row)


async def delivery(connection: Connection, hook_id: UUID, delivery_id: UUID) -> DeliveryRow | None:
    """A delivery of this hook, locked."""
    row = await connection.fetchrow(
        f"SELECT {_DELIVERY} FROM hook_deliveries WHERE hook_id = $1 AND delivery_id = $2 FOR UPDATE",
        hook_id,
        delivery_id,
    )
    return None if row is None else as_row(DeliveryRow, row)


async def send_again(connection: Connection, number: int) -> DeliveryRow:
    """A settled delivery is due once more, as if for the first time. Its order is fetched when it is sent."""
    row = await connection.fetchrow(
        "UPDATE hook_deliveries SET state = 'due', next_at = now(), attempts = 0, first_attempt_at = NULL"
        f" WHERE number = $1 RETURNING {_DELIVERY}",
        number,
    )
    return as_row(DeliveryRow, row)  # type: ignore[no-any-return]


async def deliveries_page(
    connection: Connection, hook_id: UUID, before: int | None, order_id: UUID | None, limit: int
) -> list[DeliveryRow]:
    """Deliveries of a hook, newest first, from below `before`; `order_id`: only of this order."""
    rows = await connection.fetch(
        f"""
        SELECT {_DELIVERY} FROM hook_deliveries
        WHERE hook_id = $1 AND ($2::bigint IS NULL OR number < $2) AND ($3::uuid IS NULL OR order_id = $3)
        ORDER BY number DESC LIMIT $4
        """,
        hook_id,
        before,
        order_id,
        limit,
    )
    return [as_row(DeliveryRow, r) for r in rows]


async def notify(connection: Connection) -> None:
    """Wake the deliverer once the transaction is committed."""
    await connection.execute(f"NOTIFY {CHANNEL}")
