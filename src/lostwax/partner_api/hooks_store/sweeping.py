"""The log is swept."""

from lostwax.kit.postgres import Connection
from lostwax.partner_api.hooks_store.rows import Settled, plain


async def sweep_log(connection: Connection, days: float, limit: int) -> list[Settled] | None:
    """Delete settled deliveries older than `days`, of the `limit` oldest; returns those that are as old and still due,
    to be given up. None: nothing (more) is as old."""
    rows = await connection.fetch(
        """
        SELECT number, hook_id, order_id, version, state FROM (
            SELECT number, hook_id, order_id, version, state, created_at FROM hook_deliveries ORDER BY number LIMIT $2
        ) oldest WHERE created_at < now() - make_interval(secs => $1 * 86400)
        """,
        days,
        limit,
    )
    if not rows:
        return None
    over = [r["number"] for r in rows if r["state"] in ("delivered", "given_up")]
    await connection.execute("DELETE FROM hook_deliveries WHERE number = ANY($1)", over)
    return [
        Settled(
            number=r["number"],
            hook_id=plain(r["hook_id"]),
            order_id=plain(r["order_id"]),
            version=r["version"],
            state="given_up",
            error=f"not delivered in {days:g} days",
        )
        for r in rows
        if r["state"] == "due"
    ]


async def forget_old_secrets(connection: Connection) -> None:
    """Those that sign no more."""
    await connection.execute(
        "UPDATE hooks SET old_secret = NULL, old_secret_until = NULL WHERE old_secret_until < now()"
    )


async def sweep_removed(connection: Connection, limit: int) -> bool:
    """Delete `limit` rows of removed hooks, and then the hooks; False: nothing is left of any."""
    # A while after the removal: transactions that still saw the hook are over.
    rows = await connection.fetch("SELECT hook_id FROM hooks WHERE removed_at < now() - interval '10 minutes'")
    removed = [r["hook_id"] for r in rows]
    if not removed:
        return False
    for table, key in (("hook_deliveries", "number"), ("hook_orders", "order_id")):
        done = await connection.execute(
            f"DELETE FROM {table} WHERE (hook_id, {key}) IN"
            f" (SELECT hook_id, {key} FROM {table} WHERE hook_id = ANY($1) LIMIT $2)",
            removed,
            limit,
        )
        if done != "DELETE 0":
            return True
    await connection.execute("DELETE FROM hooks WHERE hook_id = ANY($1)", removed)
    return False


async def sweep_tracks(connection: Connection, days: float, limit: int) -> bool:
    """Forget orders that rest: without a row they count as come as far as requests.version, which they have. Their
    requests are locked, so that none takes a change meanwhile. False: nothing is left to forget."""
    done = await connection.execute(
        """
        WITH resting AS (
            SELECT t.hook_id, t.order_id FROM hook_orders t JOIN requests r USING (order_id)
            WHERE t.changed_at < now() - make_interval(secs => $1 * 86400) AND t.settled = t.known
            LIMIT $2 FOR UPDATE OF r SKIP LOCKED
        )
        DELETE FROM hook_orders t USING resting n
        WHERE t.hook_id = n.hook_id AND t.order_id = n.order_id AND t.settled = t.known
        """,
        days,
        limit,
    )
    return done == f"DELETE {limit}"
