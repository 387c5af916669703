"""Ids: evenly spread, sorted by time, readable on the telephone, derived the same for ever."""

from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lostwax.contracts.ids import (
    BUCKETS,
    PARTITIONS,
    bucket_of,
    bucket_of_digest,
    derived_id,
    new_id,
    parse_code,
    partition_of,
    short_code,
)


def test_new_ids_are_uuid7_and_grow() -> None:
    ids = [new_id() for _ in range(2000)]
    assert {i.version for i in ids} == {7}
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


def test_20000_ids_are_spread_evenly_over_all_buckets_and_partitions() -> None:
    buckets = Counter(bucket_of(new_id()) for _ in range(20_000))
    assert set(buckets) == set(range(BUCKETS))
    expected = 20_000 / BUCKETS
    # chi-square with 1,023 degrees of freedom: mean 1,023, deviation 45. Seven deviations never happen by chance.
    assert sum((n - expected) ** 2 / expected for n in buckets.values()) < 1023 + 7 * 45
    partitions = Counter(partition_of(b) for b in buckets.elements())
    assert set(partitions) == set(range(PARTITIONS))
    assert max(partitions.values()) < 1.2 * min(partitions.values())


@given(st.uuids())
def test_the_bucket_is_the_lowest_ten_bits(id_: UUID) -> None:
    assert bucket_of(id_) == int(id_.hex[-3:], 16) % 1024
    digest = id_.hex * 2
    assert bucket_of_digest(digest) == int(digest, 16) % 1024
    assert 0 <= partition_of(bucket_of(id_)) < PARTITIONS


@given(st.uuids())
def test_a_short_code_names_the_lowest_50_bits(id_: UUID) -> None:
    code = short_code(id_)
    assert len(code) == 11
    assert code[5] == "-"
    assert not set(code) & set("ILOU")
    assert parse_code(code) == id_.int % 2**50


@given(st.uuids(), st.data())
def test_a_code_as_people_type_it_is_understood(id_: UUID, data: st.DataObject) -> None:
    """Any case, dashes and blanks anywhere, O for 0, I or L for 1."""
    heard = {"0": "0Oo", "1": "1IiLl"}
    typed = ""
    for c in short_code(id_).replace("-", ""):
        typed += data.draw(st.sampled_from(["", "-", " "]))
        typed += data.draw(st.sampled_from(heard.get(c, c.upper() + c.lower())))
    assert parse_code(typed) == id_.int % 2**50


@pytest.mark.parametrize("text", ["", "ABCDE", "ABCDE-FGHJKM", "ABCDE-FGHJU", "ABCDE-FGHJ!", "ÄBCDE-FGHJK"])
def test_what_is_no_code_is_none(text: str) -> None:
    assert parse_code(text) is None


@given(st.text(max_size=15))
def test_no_text_breaks_the_parser(text: str) -> None:
    value = parse_code(text)
    assert value is None or 0 <= value < 2**50


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
def test_a_derived_id_is_a_function_of_its_parts(parts: list[str]) -> None:
    id_ = derived_id(*parts)
    assert id_ == derived_id(*parts)
    assert id_.version == 8
    assert id_.variant == "specified in RFC 4122"
    assert id_ != derived_id(*parts, "")
    assert id_ != derived_id(parts[0] + "x", *parts[1:])


def test_parts_do_not_run_together() -> None:
    assert derived_id("ab", "c") != derived_id("a", "bc")


def test_derived_ids_never_change_between_releases() -> None:
    """Jobs and commands in flight carry them."""
    assert derived_id("price", "0197f0a0-0000-7000-8000-000000000001", "1") == UUID(
        "7947f20c-22c0-8be2-aa79-61718743167c"
    )
