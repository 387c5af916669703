"""Questions about telemetry, and what answers mean: pure."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lostwax.contracts import metrics as measured
from lostwax.contracts.ids import new_id, short_code
from lostwax.telemetry import domain
from lostwax.telemetry.domain import BadQuestion, Reading

NOW = datetime(2026, 11, 25, 8, 0, tzinfo=UTC)


def a_span(span_id: str, parent_id: str = "", after_ms: int = 0, **changes: Any) -> dict[str, Any]:
    at = NOW + timedelta(milliseconds=after_ms)
    return {
        "@timestamp": at.isoformat(),
        "service": "orders",
        "name": span_id,
        "kind": "internal",
        "status": "ok",
        "duration_us": 1000,
        "trace_id": "a" * 32,
        "span_id": span_id,
        "parent_id": parent_id,
    } | changes


def test_an_order_is_asked_for_by_id_or_by_its_code_however_it_was_typed() -> None:
    order_id = new_id()
    code = short_code(order_id)
    assert domain.order_terms(f" {order_id} ") == {"order_id": str(order_id)}
    assert domain.order_terms(code.lower().replace("-", " ")) == {"code": code}
    for wrong in ("", "nothing", "*", '{"match_all":{}}'):
        with pytest.raises(BadQuestion):
            domain.order_terms(wrong)


@given(st.integers(0, 2**45), st.text(max_size=40), st.integers(0, 2**53))
def test_a_cursor_comes_back_as_it_went(at: int, index: str, number: int) -> None:
    assert domain.place(domain.cursor([at, index, number])) == [at, index, number]


@pytest.mark.parametrize("text", ["", "x", "bm90IGpzb24", "WzEsMl0", "é", "W10"])
def test_what_is_no_cursor_is_refused_in_words(text: str) -> None:
    with pytest.raises(BadQuestion, match="next"):
        domain.place(text)


@pytest.mark.parametrize("wrong", ["yesterday", "2026-11-25T08:00:00", "15", "-1h", "99999999d"])
def test_a_time_that_cannot_be_meant_is_refused(wrong: str) -> None:
    with pytest.raises(BadQuestion):
        domain.moment(wrong, NOW)


def test_times_are_absolute_or_back_from_now() -> None:
    assert domain.moment("15m", NOW) == NOW - timedelta(minutes=15)
    assert domain.moment("2026-11-25T09:00:00+01:00", NOW) == NOW


def test_a_trace_is_told_as_a_tree_and_a_span_without_its_parent_is_told_too() -> None:
    told = domain.hops([a_span("c", "b", 2), a_span("b", "a", 1), a_span("a"), a_span("lost", "gone", 3)])
    assert [(hop.name, hop.depth) for hop in told] == [("a", 0), ("b", 1), ("c", 2), ("lost", 0)]
    assert [hop.after_us for hop in told] == [0, 1000, 2000, 3000]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef"), st.integers(0, 9)), max_size=12))
def test_every_span_is_told_once_even_in_a_circle_of_parents(spans: list[tuple[str, str, int]]) -> None:
    told = domain.hops([a_span(own, parent, after) for own, parent, after in spans])
    assert sorted(hop.span_id for hop in told) == sorted({own for own, _, _ in spans})


def test_counters_become_rates_over_all_processes() -> None:
    found = [Reading("orders", name, {"topic": "t"}, 0, 30.0) for name in ("one", "two")]
    (line,) = domain.lines(measured.MESSAGES_SENT, found, ["service"], 60)
    assert line.labels == {"service": "orders"}
    assert [p.value for p in line.points] == [1.0]


def test_depths_add_up_and_ages_do_not() -> None:
    found = [Reading("orders", name, {"relay": name}, 0, value) for name, value in (("one", 3.0), ("two", 4.0))]
    assert domain.lines(measured.OUTBOX_DEPTH, found, [], 60)[0].points[0].value == 7
    assert domain.lines(measured.OUTBOX_AGE, found, [], 60)[0].points[0].value == 4


def test_percentiles_come_from_the_buckets_of_all_processes() -> None:
    bounds = (1.0, 2.0)
    found = [
        Reading("orders", "one", {"http_route": "/a"}, 0, 5.0, (10, 0, 0), bounds),
        Reading("orders", "two", {"http_route": "/a"}, 0, 15.0, (0, 10, 0), bounds),
    ]
    (line,) = domain.lines(measured.HTTP_REQUESTS, found, ["http.route"], 10)
    (point,) = line.points
    assert line.labels == {"http.route": "/a"}
    assert (point.value, point.mean, point.p50) == (2.0, 1.0, 1.0)
    assert point.p99 is not None
    assert 1.9 < point.p99 <= 2.0
