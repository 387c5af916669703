"""Change capture: the one list of the tables and columns that leave a service's database for reports.

What is not listed never leaves: publications hold these columns alone, and the role that captures may read no others. A
column that a service adds later is ignored until it is listed here. Nothing that lets anybody in is ever listed (keys,
badges, secrets, sessions), nor plumbing (outbox, keys of idempotence), and of people only their names.
"""

from collections.abc import Mapping

import msgspec

from lostwax.contracts.topics import DAY_MS, Topic

ROLE = "capture"
"""The database role that captures: REPLICATION, and SELECT on the captured columns."""

PUBLICATION = "capture"
"""The publication of these columns in each database."""

UNCHANGED = "__debezium_unavailable_value"
"""Stands for a large value (over 2 kB) that an update has not touched: keep the one that is known."""

PARTITIONS = 4
RETENTION_MS = 7 * DAY_MS


class CapturedTable(msgspec.Struct, frozen=True):
    """`columns`: PostgreSQL's type by name, the key's first; `left_out`: what is kept back on purpose.

    A record of a deleted row tells its key and nothing else.
    """

    database: str
    table: str
    key: tuple[str, ...]
    columns: Mapping[str, str]
    left_out: tuple[str, ...] = ()

    @property
    def topic(self) -> Topic:
        """Where its changes come, as Debezium's envelope in JSON; keyed by the key, so in order for each row."""
        return Topic(
            f"cdc.{self.database}.{self.table}",
            written_by=(),
            read_by=("reporting",),
            partitions=PARTITIONS,
            by_bucket=False,
            retention_ms=RETENTION_MS,
        )


TABLES: tuple[CapturedTable, ...] = (
    CapturedTable(
        "orders",
        "orders",
        ("order_id",),
        {
            "order_id": "uuid",
            "version": "integer",
            "status": "text",
            "account": "uuid",
            "channel": "text",
            "model_sha256": "text",
            "submitted_at": "timestamptz",
            "status_since": "timestamptz",
            "body": "jsonb",
        },
        left_out=("price_job_id", "kept_price"),
    ),
    CapturedTable(
        "orders",
        "order_history",
        ("order_id", "version"),
        {"order_id": "uuid", "version": "integer", "status": "text", "at": "timestamptz", "body": "jsonb"},
    ),
    CapturedTable(
        "orders",
        "commands",
        ("command_id",),
        {
            "command_id": "uuid",
            "order_id": "uuid",
            "accepted": "boolean",
            "version": "integer",
            "code": "text",
            "decided_at": "timestamptz",
        },
    ),
    CapturedTable(
        "orders",
        "quotes",
        ("quote_id",),
        {
            "quote_id": "uuid",
            "version": "integer",
            "state": "text",
            "account": "uuid",
            "model_sha256": "text",
            "requested_at": "timestamptz",
            "body": "jsonb",
        },
        left_out=("needs_model",),
    ),
    CapturedTable(
        "orders",
        "models",
        ("sha256",),
        {"sha256": "text", "size_bytes": "bigint", "stored_at": "timestamptz"},
        left_out=("remove_after",),
    ),
    CapturedTable(
        "partner_api",
        "clients",
        ("client_id",),
        {"client_id": "uuid", "name": "text", "created_at": "timestamptz", "suspended_at": "timestamptz"},
        left_out=("own_limit", "rate_per_s", "burst"),
    ),
    CapturedTable(
        "partner_api",
        "requests",
        ("order_id",),
        {
            "order_id": "uuid",
            "client_id": "uuid",
            "accepted_at": "timestamptz",
            "version": "integer",
            "status": "text",
        },
        left_out=("idempotency_key", "request_hash", "body", "order_body", "accepted_in"),
    ),
    CapturedTable(
        "partner_api",
        "quotes",
        ("quote_id",),
        {"quote_id": "uuid", "client_id": "uuid", "requested_at": "timestamptz", "version": "integer"},
        left_out=("idempotency_key", "request_hash", "body", "quote_body"),
    ),
    CapturedTable(
        "partner_api",
        "commands",
        ("command_id",),
        {
            "command_id": "uuid",
            "order_id": "uuid",
            "client_id": "uuid",
            "action": "text",
            "state": "text",
            "code": "text",
            "issued_at": "timestamptz",
            "decided_at": "timestamptz",
        },
        left_out=("detail",),
    ),
    CapturedTable(
        "shop",
        "requests",
        ("order_id",),
        {
            "order_id": "uuid",
            "client_id": "uuid",
            "accepted_at": "timestamptz",
            "version": "integer",
            "status": "text",
        },
        left_out=("idempotency_key", "request_hash", "body", "order_body", "accepted_in"),
    ),
    CapturedTable(
        "shop",
        "quotes",
        ("quote_id",),
        {"quote_id": "uuid", "client_id": "uuid", "requested_at": "timestamptz", "version": "integer"},
        left_out=("idempotency_key", "request_hash", "body", "quote_body"),
    ),
    CapturedTable(
        "shop",
        "commands",
        ("command_id",),
        {
            "command_id": "uuid",
            "order_id": "uuid",
            "client_id": "uuid",
            "action": "text",
            "state": "text",
            "code": "text",
            "issued_at": "timestamptz",
            "decided_at": "timestamptz",
        },
        left_out=("detail",),
    ),
    CapturedTable(
        "mes",
        "operators",
        ("operator_id",),
        {
            "operator_id": "uuid",
            "name": "text",
            "created_at": "timestamptz",
            "role": "text",
            "active": "boolean",
            "version": "integer",
        },
    ),
    CapturedTable(
        "mes",
        "claims",
        ("claim_id",),
        {
            "claim_id": "uuid",
            "order_id": "uuid",
            "operator_id": "uuid",
            "state": "text",
            "reason": "text",
            "claimed_at": "timestamptz",
            "confirmed_at": "timestamptz",
            "ended_at": "timestamptz",
            "confirmed_version": "integer",
            "ended_by": "text",
        },
    ),
    CapturedTable(
        "mes",
        "steps",
        ("command_id",),
        {
            "command_id": "uuid",
            "order_id": "uuid",
            "operator_id": "uuid",
            "action": "text",
            "state": "text",
            "code": "text",
            "issued_at": "timestamptz",
            "decided_at": "timestamptz",
        },
        left_out=("detail",),
    ),
    CapturedTable(
        "crm",
        "staff",
        ("staff_id",),
        {
            "staff_id": "uuid",
            "name": "text",
            "role": "text",
            "created_at": "timestamptz",
            "withdrawn_at": "timestamptz",
            "version": "integer",
        },
    ),
    CapturedTable(
        "crm",
        "requests",
        ("order_id",),
        {
            "order_id": "uuid",
            "client_id": "uuid",
            "accepted_at": "timestamptz",
            "version": "integer",
            "status": "text",
        },
        left_out=("idempotency_key", "request_hash", "body", "order_body", "accepted_in"),
    ),
    CapturedTable(
        "crm",
        "quotes",
        ("quote_id",),
        {"quote_id": "uuid", "client_id": "uuid", "requested_at": "timestamptz", "version": "integer"},
        left_out=("idempotency_key", "request_hash", "body", "quote_body"),
    ),
    CapturedTable(
        "crm",
        "commands",
        ("command_id",),
        {
            "command_id": "uuid",
            "order_id": "uuid",
            "staff_id": "uuid",
            "action": "text",
            "state": "text",
            "code": "text",
            "issued_at": "timestamptz",
            "decided_at": "timestamptz",
        },
        left_out=("detail",),
    ),
    CapturedTable(
        "crm",
        "customers",
        ("customer_id",),
        {
            "customer_id": "uuid",
            "kind": "text",
            "seller_id": "uuid",
            "merged_into": "uuid",
            "created_at": "timestamptz",
        },
        # Who a customer is stays with the sellers.
        left_out=("name", "consent_at", "consent_how", "version", "words"),
    ),
    CapturedTable(
        "crm",
        "layouts",
        ("layout_id",),
        {
            "layout_id": "uuid",
            "order_id": "uuid",
            "revision": "integer",
            "state": "text",
            "staff_id": "uuid",
            "at": "timestamptz",
            "answered_at": "timestamptz",
        },
        left_out=("sha256", "name", "size_bytes", "note", "answered_by"),
    ),
    CapturedTable(
        "crm",
        "layout_waits",
        ("order_id", "since"),
        {"order_id": "uuid", "since": "timestamptz", "party": "text", "ended_at": "timestamptz"},
    ),
    CapturedTable(
        "crm",
        "tasks",
        ("task_id",),
        {
            "task_id": "uuid",
            "seller_id": "uuid",
            "order_id": "uuid",
            "customer_id": "uuid",
            "created_at": "timestamptz",
            "done_at": "timestamptz",
        },
        left_out=("text", "due_on", "created_by"),
    ),
)

TOPICS: tuple[Topic, ...] = tuple(table.topic for table in TABLES)


def tables_of(database: str) -> tuple[CapturedTable, ...]:
    """What is captured of a database (of each shard, for `orders`)."""
    return tuple(table for table in TABLES if table.database == database)


def columns_of(database: str) -> dict[str, tuple[str, ...]]:
    """The captured columns of a database, by table."""
    return {table.table: tuple(table.columns) for table in tables_of(database)}
