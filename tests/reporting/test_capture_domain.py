"""Change capture's decisions, without servers."""

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from lostwax.contracts.capture import TABLES
from lostwax.reporting.capture_domain import (
    LONGEST_DELAY,
    STUCK_AFTER,
    Care,
    Deed,
    Seen,
    Slot,
    Source,
    connector_config,
    decide,
    lag,
    sources,
    stands_still,
    trouble,
)

SOURCE = Source("orders-1", "postgresql://capture:hush@db:5433/orders")
WANTED = connector_config(SOURCE)
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
STREAMING = Slot(active=True, lost=False, held_bytes=10, behind_bytes=5, confirmed=95)
IDLE = msgspec.structs.replace(STREAMING, active=False)
LOST = msgspec.structs.replace(IDLE, lost=True)


def seen(
    config: Mapping[str, str] | None = WANTED,
    state: str | None = "RUNNING",
    slot: Slot | None = STREAMING,
    at: datetime = NOON,
    written: int = 100,
    **more: Any,
) -> Seen:
    return Seen(config, state, more.pop("trace", ""), slot, written, at, **more)


def test_a_source_names_its_connector_slot_and_database() -> None:
    assert (SOURCE.database, SOURCE.connector, SOURCE.slot) == ("orders", "capture-orders-1", "capture_orders_1")


@pytest.mark.parametrize("urls", [["orders"], ["nothing=postgresql://x/y"], ["mes=a", "mes=b"]])
def test_settings_that_mean_nothing_are_refused(urls: list[str]) -> None:
    with pytest.raises(ValueError, match="LOSTWAX_CAPTURE_URLS"):
        sources(urls)


def test_a_connector_holds_no_password_and_only_what_is_listed() -> None:
    assert "hush" not in str(WANTED)
    assert (WANTED["database.hostname"], WANTED["database.port"], WANTED["database.dbname"]) == ("db", "5433", "orders")
    columns = set(WANTED["column.include.list"].split(","))
    assert columns == {f"public.{t.table}.{c}" for t in TABLES if t.database == "orders" for c in t.columns}


def test_both_shards_write_to_the_same_topics_under_prefixes_of_their_own() -> None:
    other = connector_config(Source("orders-0", SOURCE.dsn))
    assert other["transforms.route.replacement"] == WANTED["transforms.route.replacement"] == "cdc.orders.$1"
    assert other["topic.prefix"] != WANTED["topic.prefix"]
    assert other["slot.name"] != WANTED["slot.name"]


@pytest.mark.parametrize("config", [None, {**WANTED, "poll.interval.ms": "9"}])
def test_an_absent_or_changed_connector_is_registered(config: Mapping[str, str] | None) -> None:
    assert decide(WANTED, seen(config), Care())[0] is Deed.REGISTER


def test_what_streams_or_copies_is_left_alone() -> None:
    assert decide(WANTED, seen(), Care())[0] is Deed.NOTHING
    copying = seen(slot=IDLE, copying=True)
    assert decide(WANTED, copying, Care(idle_since=NOON - timedelta(hours=1)))[0] is Deed.NOTHING


def test_running_is_not_streaming_after_a_while() -> None:
    deed, care = decide(WANTED, seen(slot=IDLE), Care())
    assert deed is Deed.NOTHING
    assert decide(WANTED, seen(slot=IDLE, at=NOON + STUCK_AFTER), care)[0] is Deed.RESTART


def test_a_lost_slot_leads_to_a_new_copy_at_once() -> None:
    assert decide(WANTED, seen(slot=LOST), Care())[0] is Deed.COPY_ANEW
    # A connector that cannot have its slot keeps a transaction open as one that copies does.
    assert decide(WANTED, msgspec.structs.replace(seen(slot=LOST), copying=True), Care())[0] is Deed.COPY_ANEW
    assert decide(WANTED, msgspec.structs.replace(seen(slot=IDLE), copying=True), Care())[0] is Deed.NOTHING


def test_failed_tasks_are_restarted_later_and_later_and_from_the_start_once_they_stream() -> None:
    at, care, deeds = NOON, Care(), []
    for _ in range(1200):
        deed, care = decide(WANTED, seen(state="FAILED", slot=IDLE, at=at), care)
        if deed is Deed.RESTART:
            deeds.append(at)
        at += timedelta(seconds=1)
    gaps = [later - earlier for earlier, later in itertools.pairwise(deeds)]
    assert gaps == sorted(gaps)
    assert gaps[0] <= timedelta(seconds=5)
    assert gaps[-1] <= LONGEST_DELAY
    assert len(deeds) < 12
    _, care = decide(WANTED, seen(at=at), care)
    assert (care.tried, care.again_at) == (0, None)


@pytest.mark.parametrize("state", ["PAUSED", "STOPPED"])
def test_what_a_person_paused_stays_paused(state: str) -> None:
    assert decide(WANTED, seen(state=state, slot=IDLE), Care(idle_since=NOON - timedelta(days=1)))[0] is Deed.NOTHING
    for slot in (IDLE, STREAMING):  # Debezium goes on reading while it is paused, until its queue is full
        assert trouble(seen(state=state, slot=slot)) == f"{state.lower()} by hand"


def test_lag_is_the_age_of_what_kafka_has_for_certain() -> None:
    care = Care(samples=((NOON - timedelta(seconds=20), 90), (NOON - timedelta(seconds=10), 95), (NOON, 100)))
    assert lag(seen(), care) == timedelta(seconds=10)
    assert lag(seen(slot=msgspec.structs.replace(STREAMING, confirmed=100)), care) == timedelta(0)
    assert lag(seen(slot=msgspec.structs.replace(STREAMING, confirmed=1)), care) is None
    assert lag(seen(slot=None), care) is None


def test_trouble_is_told_in_words() -> None:
    assert trouble(seen()) is None
    assert trouble(seen(None, None, None)) == "not registered"
    assert "invalidated" in (trouble(seen(slot=LOST)) or "")
    assert trouble(seen(state="FAILED", slot=IDLE, trace="Boom: no\n at x")) == "failed: Boom: no"
    assert "does not exist" in (trouble(seen(slot=None)) or "")


def test_waiting_for_a_lost_slot_in_a_transaction_is_no_copying() -> None:
    deed, care = decide(WANTED, seen(slot=LOST, copying=True), Care())
    assert deed is Deed.COPY_ANEW
    assert decide(WANTED, seen(slot=None, copying=True), care)[0] is Deed.NOTHING


def test_a_slot_stands_still_when_it_has_not_moved_though_something_was_written() -> None:
    _, before = decide(WANTED, seen(), Care())
    assert stands_still(seen(), before)
    assert not stands_still(seen(), Care())
    assert not stands_still(seen(slot=msgspec.structs.replace(STREAMING, confirmed=96)), before)
    assert not stands_still(seen(slot=msgspec.structs.replace(STREAMING, behind_bytes=0)), before)
    assert not stands_still(seen(slot=IDLE), before)
    assert not stands_still(seen(slot=None), before)
