"""One answer as JSON, CSV or Parquet."""

import csv
import io
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lostwax.kit.problems import Problem

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


class Format(StrEnum):
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


MEDIA = {
    Format.JSON: "application/json",
    Format.CSV: "text/csv",
    Format.PARQUET: "application/vnd.apache.parquet",
}


def format_wanted(named: str | None, accept: str) -> Format:
    """`format=` decides, else the Accept header; JSON when neither says. Raises the 400 or 406 Problem."""
    if named is not None:
        try:
            return Format(named)
        except ValueError:
            raise Problem(
                400, "bad-parameter", "A query parameter is wrong", f"format: one of {', '.join(Format)}."
            ) from None
    asked = [part.split(";")[0].strip().lower() for part in accept.split(",") if part.strip()]
    for type_ in asked:
        if type_ in ("*/*", "application/*", "application/json", "application/problem+json"):
            return Format.JSON
        if type_ in ("text/csv", "text/*"):
            return Format.CSV
        if type_ in (MEDIA[Format.PARQUET], "application/x-parquet"):
            return Format.PARQUET
    if asked:
        raise Problem(406, "not-acceptable", "No such format here", f"There are: {', '.join(MEDIA.values())}.")
    return Format.JSON


def plain(value: Any) -> Any:
    """A cell as JSON and CSV have it: times as text, decimals as text so that none is rounded."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def csv_text(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """With a byte order mark, so that Excel reads UTF-8. A text that a spreadsheet would take for a formula gets an
    apostrophe before it; numbers stay numbers."""

    def cell(value: Any) -> Any:
        value = plain(value)
        return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value

    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([cell(name) for name in names])
    writer.writerows([[cell(value) for value in row] for row in rows])
    return b"\xef\xbb\xbf" + out.getvalue().encode()


def parquet_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def table_of(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Typed by what stands in the columns; one of several kinds becomes text."""

    def column(values: list[Any]) -> pa.Array:
        try:
            return pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            return pa.array([None if value is None else str(plain(value)) for value in values], pa.string())

    return pa.Table.from_arrays([column([row[i] for row in rows]) for i in range(len(names))], list(names))
