"""The three data streams: their templates, and what is done to them on schedule: a new backing index when the present
one is large or old, and away with those that nobody needs any more."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

PREFIX = "lostwax-"

_WORD: Mapping[str, Any] = {"type": "keyword", "ignore_above": 1024}
_NOT_SEARCHED: Mapping[str, Any] = {"type": "object", "enabled": False}
_WHO: Mapping[str, Any] = {"@timestamp": {"type": "date"}, "service": _WORD, "instance": _WORD}
_ORDER: Mapping[str, Any] = {"order_id": _WORD, "code": _WORD}
_ATTRIBUTES: Mapping[str, Any] = {"type": "flat_object"}


class Stream(msgspec.Struct, frozen=True):
    """A data stream. `properties` is its whole mapping: anything else in a document is refused."""

    signal: str
    properties: Mapping[str, Any]

    @property
    def name(self) -> str:
        return PREFIX + self.signal


LOGS = Stream(
    "logs",
    {
        **_WHO,
        **_ORDER,
        "level": _WORD,
        "message": {"type": "text", "norms": False},
        "trace_id": _WORD,
        "span_id": _WORD,
        "attributes": _ATTRIBUTES,
    },
)
TRACES = Stream(
    "traces",
    {
        **_WHO,
        **_ORDER,
        "trace_id": _WORD,
        "span_id": _WORD,
        "parent_id": _WORD,
        "links": _WORD,
        "name": _WORD,
        "kind": _WORD,
        "duration_us": {"type": "long"},
        "status": _WORD,
        "attributes": _ATTRIBUTES,
    },
)
METRICS = Stream(
    "metrics",
    {
        **_WHO,
        "name": _WORD,
        "kind": _WORD,
        "unit": _WORD,
        "series": _WORD,
        "labels": _ATTRIBUTES,
        "value": {"type": "double"},
        "interval_s": {"type": "float"},
        "count": {"type": "long"},
        "bounds": {"type": "double", "index": False},
        "buckets": {"type": "long", "index": False},
    },
)
ALL = (LOGS, TRACES, METRICS)


def template(stream: Stream, *, replicas: int) -> dict[str, Any]:
    """The index template of a stream, as OpenSearch takes it."""
    return {
        "index_patterns": [stream.name],
        "data_stream": {},
        "priority": 100,
        "template": {
            "settings": {
                "number_of_shards": 1,
                "number_of_replicas": replicas,
                "refresh_interval": "2s",
                "codec": "best_compression",
                "translog.durability": "async",
                # read again after a kill: 512 MB, which is the default, took minutes beside other work
                "translog.flush_threshold_size": "16mb",
            },
            "mappings": {"dynamic": "strict", "properties": dict(stream.properties)},
        },
    }


def rollover_conditions(days: float) -> dict[str, Any]:
    """When a stream gets a new backing index: a quarter of its time to live, so that what is thrown away at once is no
    more than that; at the latest at this size."""
    return {"conditions": {"max_age": f"{max(1, round(days * 24 / 4))}h", "max_size": "5gb"}}


class BackingIndex(msgspec.Struct, frozen=True):
    """One index behind a stream. `newest`: the time of its newest document, None when it is empty."""

    name: str
    writing: bool
    newest: datetime | None


def outlived(backing: list[BackingIndex], kept: timedelta, now: datetime) -> list[str]:
    """Names of the indices that hold nothing younger than `kept`; never the one that is written to."""
    return [i.name for i in backing if not i.writing and (i.newest is None or i.newest < now - kept)]


def at_ms(milliseconds: float | None) -> datetime | None:
    """A time as OpenSearch's aggregations give it."""
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
