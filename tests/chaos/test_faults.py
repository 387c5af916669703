"""Which faults a run makes, and in which order."""

from collections import Counter

from lostwax.chaos.eyes import first_id_of
from lostwax.chaos.faults import KILLS, Kind, matrix, only, plan, shortened
from lostwax.contracts.ids import new_id
from lostwax.kit.clock import utc_now

SERVICES, SERVERS = ("orders", "mes"), ("pg-main", "kafka")


def test_everything_is_killed_three_times_and_stopped_once_and_servers_lose_their_network() -> None:
    counted = Counter((f.kind, f.target) for f in matrix(SERVICES, SERVERS, "pg-main"))
    everything = (*SERVICES, *SERVERS)
    assert {t: counted[Kind.KILL, t] for t in everything} == dict.fromkeys(everything, KILLS)
    assert {t: counted[Kind.STOP, t] for t in everything} == dict.fromkeys(everything, 1)
    for kind in (Kind.SLOW, Kind.CUT, Kind.HALF_OPEN):
        assert {t for k, t in counted if k is kind} == set(SERVERS)
    assert counted[Kind.FULL, "pg-main"] == 1
    assert counted.total() == 4 * (KILLS + 1) + 2 * 3 + 1


def test_without_a_small_disk_none_is_filled() -> None:
    assert not [f for f in matrix(SERVICES, SERVERS, None) if f.kind is Kind.FULL]


def test_only_takes_what_any_word_names() -> None:
    faults = matrix(SERVICES, SERVERS, None)
    assert {f.name for f in only(faults, ["kill orders", "cut"])} == {"kill orders", "cut pg-main", "cut kafka"}
    assert only(faults, []) == faults
    assert only(faults, ["earthquake"]) == []


def test_a_seed_repeats_a_plan_and_another_makes_another() -> None:
    faults = matrix(SERVICES, SERVERS, "kafka")
    assert plan(faults, 7, None) == plan(faults, 7, None) != plan(faults, 8, None)
    assert Counter(plan(faults, 7, None)) == Counter(faults)
    assert plan(faults, 7, 120) == plan(faults, 7, 120)


def test_a_short_plan_has_one_of_each_kind_before_a_second_of_any() -> None:
    faults = shortened(matrix(SERVICES, SERVERS, "kafka"), 3)
    for seed in range(20):
        planned = plan(faults, seed, 60, around_s=5)
        assert {f.kind for f in planned[: len(Kind)]} == set(Kind)
        assert sum(f.seconds + 5 for f in planned) <= 60
        assert Counter(planned) <= Counter(faults)


def test_a_plan_is_never_empty() -> None:
    assert len(plan(matrix(SERVICES, SERVERS, None), 1, 0.1)) == 1


def test_nothing_is_held_longer_than_wished() -> None:
    assert {f.seconds for f in shortened(matrix(SERVICES, SERVERS, None), 2)} == {0, 2}


def test_ids_are_told_apart_by_the_time_of_acceptance() -> None:
    now = utc_now().timestamp()
    assert first_id_of(now - 1) < new_id() < first_id_of(now + 1)
