"""Pages of a list: the parameters `limit` and `after`, the same at every door."""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta
from starlette.requests import Request

from lostwax.kit.http import Parameter, query

MOST_ROWS, USUAL_ROWS = 200, 50
AN_ID: Mapping[str, Any] = {"type": "string", "format": "uuid"}


def page_parameters(
    after: Mapping[str, Any] = AN_ID, *, most: int = MOST_ROWS, usual: int = USUAL_ROWS
) -> tuple[Parameter, Parameter]:
    """For OpenAPI: `limit`, read by `rows_wanted`, and `after`, of the schema given."""
    limit = {"type": "integer", "minimum": 1, "maximum": most, "default": usual}
    return (
        Parameter("limit", "query", limit, "rows a page"),
        Parameter("after", "query", dict(after), "`next` of the page before"),
    )


def rows_wanted(request: Request, *, most: int = MOST_ROWS, usual: int = USUAL_ROWS) -> int:
    """How many rows the page may have. Raises the 400 Problem."""
    limit: int = query(request, "limit", Annotated[int, Meta(ge=1, le=most)], usual)
    return limit
