"""Which faults a run makes, and in which order."""

from collections import Counter

import pytest

from lostwax.chaos.eyes import first_id_of
from lostwax.chaos.faults import (
    KILLS,
    SHORTEST_HOLD_S,
    Fault,
    Kind,
    around_s,
    hold_that_fits,
    matrix,
    only,
    plan,
    shortened,
)
from lostwax.contracts.ids import new_id
from lostwax.kit.clock import utc_now

SERVICES, SERVERS = ("orders", "mes"), ("pg-main", "kafka")
PROXIED, SMALL = (*SERVERS, "orders-http"), ("pg-main",)


def faults(*, small: tuple[str, ...] = SMALL) -> list[Fault]:
    return matrix(SERVICES, SERVERS, PROXIED, small)


def test_everything_is_killed_three_times_and_stopped_once_and_servers_lose_their_network() -> None:
    counted = Counter((f.kind, f.target) for f in faults())
    everything = (*SERVICES, *SERVERS)
    assert {t: counted[Kind.KILL, t] for t in everything} == dict.fromkeys(everything, KILLS)
    assert {t: counted[Kind.STOP, t] for t in everything} == dict.fromkeys(everything, 1)
    for kind in (Kind.SLOW, Kind.CUT, Kind.HALF_OPEN):
        assert {t for k, t in counted if k is kind} == set(PROXIED)
    assert counted[Kind.FULL, "pg-main"] == 1
    assert counted.total() == 4 * (KILLS + 1) + 3 * 3 + 1


def test_without_a_small_disk_none_is_filled() -> None:
    assert not [f for f in faults(small=()) if f.kind is Kind.FULL]


def test_only_takes_what_any_word_names() -> None:
    everything = faults(small=())
    named = {"kill orders", "cut pg-main", "cut kafka", "cut orders-http"}
    assert {f.name for f in only(everything, ["kill orders", "cut"])} == named
    assert only(everything, []) == everything
    assert only(everything, ["earthquake"]) == []


def test_a_seed_repeats_a_plan_and_another_makes_another() -> None:
    everything = faults()
    assert plan(everything, 7, None) == plan(everything, 7, None) != plan(everything, 8, None)
    assert Counter(plan(everything, 7, None)) == Counter(everything)
    assert plan(everything, 7, 120) == plan(everything, 7, 120)


def test_a_short_plan_has_one_of_each_kind_before_a_second_of_any() -> None:
    short = shortened(faults(), 3)
    for seed in range(20):
        planned = plan(short, seed, 60, around=5)
        assert {f.kind for f in planned[: len(Kind)]} == set(Kind)
        assert sum(f.seconds + 5 for f in planned) <= 60
        assert Counter(planned) <= Counter(short)


@pytest.mark.parametrize("minutes", [0.6, 1, 2, 3])
def test_a_run_that_is_short_holds_each_fault_so_briefly_that_one_of_each_kind_fits(minutes: float) -> None:
    everything = faults()
    hold_s = hold_that_fits(everything, 60 * minutes)
    assert hold_s is not None
    assert hold_s >= SHORTEST_HOLD_S
    for seed in range(20):
        planned = plan(shortened(everything, hold_s), seed, 60 * minutes, around_s(hold_s))
        assert {f.kind for f in planned} == set(Kind)


def test_a_long_run_needs_no_shorter_holds_and_a_hopeless_one_says_so() -> None:
    assert hold_that_fits(faults(), 3600) is None
    hopeless = hold_that_fits(faults(), 20)
    assert hopeless is not None
    assert hopeless < SHORTEST_HOLD_S


def test_a_plan_is_never_empty() -> None:
    assert len(plan(faults(), 1, 0.1)) == 1


def test_nothing_is_held_longer_than_wished() -> None:
    assert {f.seconds for f in shortened(faults(), 2)} == {0, 2}


def test_ids_are_told_apart_by_the_time_of_acceptance() -> None:
    now = utc_now().timestamp()
    assert first_id_of(now - 1) < new_id() < first_id_of(now + 1)
