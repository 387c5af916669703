"""What SQL of analysts is allowed: one SELECT over the warehouse's tables, with functions from a list.

The statement is taken apart by DuckDB's own parser and walked; what is not on a list is refused, so that a function,
table function or kind of table that a later version brings is refused too. It is then run read-only on a connection
that reaches no file and no network, which alone would stop a write: two locks on one door.
"""

from collections.abc import Collection, Iterator
from typing import Any

import duckdb
import msgspec

LONGEST_SQL = 20_000

_NAMES = (
    "count count_star sum avg min max percentile quantile_cont quantile_disc median mode stddev stddev_samp stddev_pop "
    "variance var_samp var_pop corr arg_min arg_max any_value first last bool_and bool_or approx_count_distinct "
    "row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value "
    "+ - * / // % || ** ^ ~~ !~~ ~~* !~~* ~~~ like_escape not_like_escape ilike_escape not_ilike_escape "
    "abs ceil ceiling floor round sign sqrt ln log log10 log2 exp power pow greatest least mod trunc "
    "lower upper length len substr substring trim ltrim rtrim starts_with prefix suffix contains strpos position "
    "left right concat split_part reverse replace nullif coalesce ifnull if "
    "date_trunc date_part date_diff datediff year month week day dayofweek isodow hour minute quarter epoch strftime "
    "to_timestamp make_date now current_date current_timestamp "
)
FUNCTIONS = frozenset(_NAMES.split())
"""Names as DuckDB's parser gives them. None makes something large out of something small (repeat, lpad, range)."""

_TABLE_KINDS = frozenset({"BASE_TABLE", "SUBQUERY", "JOIN", "EMPTY", "EMPTY_FROM", "EXPRESSION_LIST"})
_KINDS_OF_TABLES = _TABLE_KINDS | {"TABLE_FUNCTION", "SHOW_REF", "PIVOT", "COLUMN_DATA", "DELIM_GET", "BOUND_TABLE_REF"}
_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "CTE_NODE"})


class Refused(Exception):
    """The SQL is not allowed; the message says what, and what is."""


def check_sql(sql: str, tables: Collection[str]) -> None:
    """Raises Refused unless `sql` is one SELECT over `tables`."""
    if len(sql) > LONGEST_SQL:
        raise Refused(f"The statement has {len(sql)} characters; at most {LONGEST_SQL}.")
    tree = _parsed(sql)
    statements = tree.get("statements", [])
    if len(statements) != 1:
        raise Refused(f"Send one statement: these are {len(statements)}.")
    known = {name.lower() for name in tables}
    for node in _walk(tree):
        _check(node, known | _named(tree))


def _parsed(sql: str) -> dict[str, Any]:
    with duckdb.connect(config={"enable_external_access": False, "threads": 1, "memory_limit": "64MB"}) as parser:
        try:
            found = parser.execute("SELECT json_serialize_sql($sql)", {"sql": sql}).fetchone()
        except duckdb.Error as error:
            raise Refused(f"This cannot be read as SQL: {str(error).splitlines()[0]}") from None
    tree: dict[str, Any] = msgspec.json.decode(found[0] if found else "{}")
    if tree.get("error"):
        message = str(tree.get("error_message", "")).splitlines()[0]
        if "SELECT" in message:
            raise Refused("Only a SELECT may be sent: the warehouse is only read here.")
        raise Refused(f"This cannot be read as SQL: {message}")
    return tree


def _walk(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of the tree; a deep one does not exhaust the stack."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _named(tree: dict[str, Any]) -> set[str]:
    """Names that the statement itself gives to subqueries by WITH."""
    maps = [node["cte_map"]["map"] for node in _walk(tree) if isinstance(node.get("cte_map"), dict)]
    return {str(entry["key"]).lower() for map_ in maps for entry in map_}


def _check(node: dict[str, Any], tables: set[str]) -> None:
    kind = node.get("type")
    if kind == "BASE_TABLE":
        name = str(node.get("table_name", ""))
        if node.get("catalog_name") or node.get("schema_name") or name.lower() not in tables:
            raise Refused(f"There is no table {name} to be read. Tables: {', '.join(sorted(tables))}.")
    elif kind in _KINDS_OF_TABLES and kind not in _TABLE_KINDS:
        raise Refused(f"A {str(kind).lower().replace('_', ' ')} is not offered here; read from tables.")
    elif isinstance(kind, str) and kind.endswith("_NODE") and kind not in _NODES:
        raise Refused(f"A {kind.lower().replace('_', ' ')} is not offered here.")
    if "function_name" in node:
        function = str(node["function_name"]).lower()
        if function not in FUNCTIONS or node.get("catalog") or node.get("schema"):
            raise Refused(f"The function {function} is not offered here. There are: {', '.join(sorted(FUNCTIONS))}.")
    if node.get("class") in ("LAMBDA", "PARAMETER"):
        raise Refused("Parameters and lambdas are not offered here; write the values into the statement.")
