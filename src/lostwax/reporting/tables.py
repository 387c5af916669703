"""The warehouse's tables; both warehouses hold exactly this.

Columns are text, integer (whole numbers, also 0 and 1 for no and yes), number or time (UTC). Reports need no function
of dates: days and months are columns, in the time zone of the workshop, and so are spans, in seconds. Money is in minor
units of `currency`. Every table ends with `deleted` (1: gone from its database), `origin` (which database told),
`position` (newest wins), `source_at` (when it was written there) and `captured_at` (when it was read here).
"""

from datetime import datetime
from typing import Any, Literal

import msgspec

Type = Literal["text", "integer", "number", "time"]
Keep = Literal["newest", "first", "last"]
Row = tuple[Any, ...]


class Column(msgspec.Struct, frozen=True):
    """`keep`: which value stands when a row comes again: the newest row's, or the least or greatest ever told (nulls do
    not count), for what later versions of a row no longer tell."""

    name: str
    type: Type
    meaning: str
    keep: Keep = "newest"


class Table(msgspec.Struct, frozen=True, cache_hash=True):
    """`columns`: the key's first, all of them text or integer; the marks last."""

    name: str
    key: tuple[str, ...]
    meaning: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)


class Gone(msgspec.Struct, frozen=True):
    """A row that was deleted where `origin` is; one that another origin told of since stands."""

    table: Table
    key: Row
    origin: str
    captured_at: datetime


_MARKS = (
    Column("deleted", "integer", "1 when it was deleted from its database, else 0"),
    Column("origin", "text", "the database, and for orders the shard, that told of it"),
    Column("position", "integer", "newest wins: an order's version, else the place in the database's log"),
    Column("source_at", "time", "when its database wrote it"),
    Column("captured_at", "time", "when reporting read it"),
)


def _table(name: str, key: tuple[str, ...], meaning: str, *columns: Column) -> Table:
    return Table(name, key, meaning, (*columns, *_MARKS))


_FACTS = (
    Column("code", "text", "the order's short code"),
    Column("channel", "text", "the door it came by"),
    Column("partner", "text", "the partner whose it is; the name stands in partners. Of another door: the door"),
    Column("alloy", "text", "the metal"),
    Column("finish", "text", "the finish"),
    Column("quantity", "integer", "pieces"),
    Column("amount_minor", "integer", "the price of all pieces in minor units of currency, null without a price"),
    Column("currency", "text", "of the amount"),
)

ORDERS = _table(
    "orders",
    ("order_id",),
    "every order as it is now",
    Column("order_id", "text", "its id"),
    *_FACTS,
    Column("reference", "text", "the customer's own"),
    Column("status", "text", "where it stands"),
    Column("status_since", "time", "since when"),
    Column("version", "integer", "how often it changed"),
    Column("model_sha256", "text", "its model"),
    Column("model_bytes", "integer", "size of its model's file"),
    Column("submitted_at", "time", "when it was ordered"),
    Column("submitted_day", "text", "YYYY-MM-DD"),
    Column("submitted_month", "text", "YYYY-MM"),
    Column("submitted_week", "text", "YYYY-Www, ISO"),
    Column("priced_at", "time", "when its price in force was found"),
    Column("approved_at", "time", "when the customer approved"),
    Column("approved_day", "text", "YYYY-MM-DD"),
    Column("approved_month", "text", "YYYY-MM"),
    Column("approved_week", "text", "YYYY-Www, ISO"),
    Column("promised_at", "time", "three weeks after approval"),
    Column("started_at", "time", "when it was first taken into manufacture", "first"),
    Column("completed_at", "time", "when it was last completed", "last"),
    Column("packed_at", "time", "when it was packed", "last"),
    Column("shipped_at", "time", "when it was shipped", "first"),
    Column("shipped_day", "text", "YYYY-MM-DD", "first"),
    Column("shipped_month", "text", "YYYY-MM", "first"),
    Column("shipped_week", "text", "YYYY-Www, ISO", "first"),
    Column("on_time", "integer", "1 shipped by promised_at, 0 later, null not shipped", "first"),
    Column("approved_to_shipped_s", "number", "seconds from approval to shipping", "first"),
    Column("closed_at", "time", "when the customer had it", "first"),
    Column("cancelled_at", "time", "when it was cancelled", "first"),
    Column("submitted_to_priced_s", "number", "seconds from order to the price in force"),
    Column("submitted_to_shipped_s", "number", "seconds from order to shipping", "first"),
    Column("reworked", "integer", "1 when it ever came back from the quality check, else null", "last"),
    Column("failure_code", "text", "why it has no price"),
    Column("triangles", "integer", "of its model, once priced"),
    Column("maker_id", "text", "the operator who has or made it"),
    Column("maker_name", "text", "their name"),
    Column("held_reason", "text", "why it rests, when it is on hold"),
    Column("held_from", "text", "the status that it left for the hold"),
    Column("carrier", "text", "who carries it"),
    Column("account", "text", "whose it is at its door: a partner's account, a customer's, or the sellers' desk's"),
)

HISTORY = _table(
    "history",
    ("order_id", "version"),
    "every version of every order: each step, by whom, and how long the status that it left had lasted",
    Column("order_id", "text", "the order"),
    Column("version", "integer", "from 1, raised by one in each step"),
    *_FACTS,
    Column("status", "text", "the status after the step"),
    Column("from_status", "text", "the status before it; null for the first"),
    Column("happened_at", "time", "when"),
    Column("day", "text", "YYYY-MM-DD of the step"),
    Column("month", "text", "YYYY-MM of the step"),
    Column("week", "text", "YYYY-Www of the step, ISO"),
    Column("happened_s", "number", "seconds since 1970 of the step, to subtract"),
    Column("former_s", "number", "seconds in from_status; null where the status stays, or a version between is not in"),
    Column("actor_id", "text", "who did it"),
    Column("actor_name", "text", "their name, of staff only"),
    Column("role", "text", "partner, customer, operator, supervisor, seller, administrator or system"),
    Column("reason", "text", "why, where one was given"),
    Column("submitted_s", "number", "seconds since the order was submitted"),
    Column("approved_s", "number", "seconds since it was approved"),
)

PRICES = _table(
    "prices",
    ("order_id", "version"),
    "every answer of pricing about an order: a price or a failure",
    Column("order_id", "text", "the order"),
    Column("version", "integer", "the order's version that it made"),
    *_FACTS,
    Column("asked_at", "time", "when the order was submitted; null when it was not the first asking"),
    Column("answered_at", "time", "when the answer came"),
    Column("day", "text", "YYYY-MM-DD of the answer"),
    Column("month", "text", "YYYY-MM of the answer"),
    Column("week", "text", "YYYY-Www of the answer, ISO"),
    Column("seconds", "number", "from asking to the answer; null when it was not the first asking"),
    Column("outcome", "text", "priced or failed"),
    Column("failure_code", "text", "why it failed"),
    Column("mended_by", "text", "who can mend it: customer, seller or operator"),
    Column("triangles", "integer", "of the model"),
    Column("volume_mm3", "number", "of the piece"),
    Column("model_bytes", "integer", "size of the model's file"),
    Column("tariff", "text", "the version of prices"),
)

CLAIMS = _table(
    "claims",
    ("claim_id",),
    "every order that an operator took, and how that ended",
    Column("claim_id", "text", "its id"),
    Column("order_id", "text", "the order"),
    Column("operator_id", "text", "who; the name stands in operators"),
    Column("state", "text", "pending, confirmed, done, released, reworked, cancelled or voided"),
    Column("reason", "text", "why it ended"),
    Column("claimed_at", "time", "from when"),
    Column("confirmed_at", "time", "when Orders agreed"),
    Column("ended_at", "time", "until when"),
    Column("day", "text", "YYYY-MM-DD of its end; of its beginning while it lasts"),
    Column("month", "text", "YYYY-MM of the same"),
    Column("week", "text", "YYYY-Www of the same, ISO"),
    Column("seconds", "number", "from confirmation to end, null while it lasts"),
    Column("ended_by", "text", "who ended it"),
)

COMMANDS = _table(
    "commands",
    ("door", "command_id"),
    "every command that somebody gave about an order, by the door that it came through",
    Column("door", "text", "partner_api, shop, mes or crm"),
    Column("command_id", "text", "its id"),
    Column("order_id", "text", "the order"),
    Column("giver_id", "text", "the partner, operator or member of staff"),
    Column("action", "text", "what was wished"),
    Column("state", "text", "pending, accepted or refused"),
    Column("refusal_code", "text", "why it was refused"),
    Column("issued_at", "time", "when it was given"),
    Column("day", "text", "YYYY-MM-DD"),
    Column("decided_at", "time", "when Orders answered"),
    Column("seconds", "number", "from giving to the answer"),
)

OUTCOMES = _table(
    "outcomes",
    ("command_id",),
    "what Orders decided of each command",
    Column("command_id", "text", "its id"),
    Column("order_id", "text", "the order"),
    Column("accepted", "integer", "1 or 0"),
    Column("version", "integer", "the order's version then"),
    Column("refusal_code", "text", "why it was refused"),
    Column("decided_at", "time", "when"),
)

REQUESTS = _table(
    "requests",
    ("order_id",),
    "every order that a partner, a customer of the shop or a seller was acknowledged",
    Column("order_id", "text", "the order"),
    Column("partner", "text", "which partner; the name stands in partners. At another door: the door"),
    Column("accepted_at", "time", "when it was acknowledged"),
    Column("accepted_day", "text", "YYYY-MM-DD"),
    Column("accepted_month", "text", "YYYY-MM"),
    Column("version", "integer", "the order's version that the partner sees; 0: not yet known to Orders"),
    Column("status", "text", "the status that the partner sees"),
)

QUOTES = _table(
    "quotes",
    ("quote_id",),
    "every quote that was asked for",
    Column("quote_id", "text", "its id"),
    Column("partner", "text", "who asked"),
    Column("state", "text", "where it stands"),
    Column("model_sha256", "text", "its model"),
    Column("version", "integer", "how often it changed"),
    Column("requested_at", "time", "when it was asked for"),
    Column("requested_day", "text", "YYYY-MM-DD"),
)

QUOTE_REQUESTS = _table(
    "quote_requests",
    ("quote_id",),
    "every quote that a partner, a customer of the shop or a seller was acknowledged",
    Column("quote_id", "text", "its id"),
    Column("partner", "text", "who asked"),
    Column("version", "integer", "the version that the partner sees"),
    Column("requested_at", "time", "when"),
    Column("requested_day", "text", "YYYY-MM-DD"),
)

MODELS = _table(
    "models",
    ("sha256",),
    "every stored model",
    Column("sha256", "text", "its content's"),
    Column("size_bytes", "integer", "of the file"),
    Column("stored_at", "time", "when it was stored"),
    Column("stored_day", "text", "YYYY-MM-DD"),
)

PARTNERS = _table(
    "partners",
    ("partner",),
    "who may order by the partner API",
    Column("partner", "text", "the account"),
    Column("name", "text", "its name"),
    Column("created_at", "time", "since when"),
    Column("suspended_at", "time", "since when it may not"),
)

OPERATORS = _table(
    "operators",
    ("operator_id",),
    "who works in the workshop",
    Column("operator_id", "text", "the id, as in claims"),
    Column("name", "text", "the name"),
    Column("role", "text", "the role"),
    Column("active", "integer", "1 or 0"),
    Column("created_at", "time", "since when"),
)

STAFF = _table(
    "staff",
    ("staff_id",),
    "all staff",
    Column("staff_id", "text", "the id, as in history"),
    Column("name", "text", "the name"),
    Column("role", "text", "seller, operator, supervisor or administrator"),
    Column("created_at", "time", "since when"),
    Column("withdrawn_at", "time", "since when no longer"),
)

CUSTOMERS = _table(
    "customers",
    ("customer_id",),
    "the sellers' customers, without who they are",
    Column("customer_id", "text", "its id"),
    Column("kind", "text", "person or firm"),
    Column("seller_id", "text", "whose customer it is; the name stands in staff"),
    Column("created_at", "time", "since when"),
    Column("created_day", "text", "YYYY-MM-DD"),
    Column("merged_into", "text", "the customer that it went into"),
)

LAYOUTS = _table(
    "layouts",
    ("layout_id",),
    "every revision of a model that was to be agreed with a customer: a round each",
    Column("layout_id", "text", "its id"),
    Column("order_id", "text", "the order"),
    Column("revision", "integer", "from 1"),
    Column("state", "text", "draft, sent, approved, answered (the customer wants it otherwise) or superseded"),
    Column("seller_id", "text", "who made it; the name stands in staff"),
    Column("made_at", "time", "when"),
    Column("day", "text", "YYYY-MM-DD"),
    Column("answered_at", "time", "when the customer answered"),
)

WAITS = _table(
    "layout_waits",
    ("order_id", "since"),
    "every span in which somebody was waited for while an order was talked about",
    Column("order_id", "text", "the order"),
    Column("since", "text", "from when, as its database writes it"),
    Column("party", "text", "seller or customer"),
    Column("since_at", "time", "from when"),
    Column("ended_at", "time", "until when; null while it lasts"),
    Column("day", "text", "YYYY-MM-DD of its end; of its beginning while it lasts"),
    Column("seconds", "number", "how long, null while it lasts"),
)

TASKS = _table(
    "tasks",
    ("task_id",),
    "what sellers are to do, without what it is",
    Column("task_id", "text", "its id"),
    Column("seller_id", "text", "who; the name stands in staff"),
    Column("order_id", "text", "about which order"),
    Column("customer_id", "text", "about which customer"),
    Column("created_at", "time", "when it was set"),
    Column("created_day", "text", "YYYY-MM-DD"),
    Column("done_at", "time", "when it was done"),
    Column("seconds", "number", "from setting to doing"),
)

TABLES: tuple[Table, ...] = (
    ORDERS,
    HISTORY,
    PRICES,
    CLAIMS,
    COMMANDS,
    OUTCOMES,
    REQUESTS,
    QUOTES,
    QUOTE_REQUESTS,
    MODELS,
    PARTNERS,
    OPERATORS,
    STAFF,
    CUSTOMERS,
    LAYOUTS,
    WAITS,
    TASKS,
)
