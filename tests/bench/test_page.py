"""How figures are judged and told beside their floors and goals."""

import sys

import pytest

from lostwax.local.places import PROJECT

if str(PROJECT / "bench") not in sys.path:
    sys.path.append(str(PROJECT / "bench"))

from _budgets import BUDGETS, Budget
from _page import Metric, Outcome, number, page, summary, verdict

LATE = Budget("wait", "door", "p99_ms", "ms", floor=300, goal=60)
TIMES = Budget("rate", "relay", "published", "x peer", floor=1, goal=2, by="ratio", at_least=True)


def ran(bench: str, metric: str, value: float, ratio: float | None = None) -> Outcome:
    return Outcome(bench, "2026-01-02 03:04", True, 12, "two cores", "abc", 0.5,
                   {metric: Metric(value, "ms", None if ratio is None else 100, ratio)})  # fmt: skip


@pytest.mark.parametrize(
    ("value", "said"), [(59, "goal"), (60, "goal"), (61, "floor"), (300, "floor"), (301, "**missed**")]
)
def test_a_figure_that_may_be_at_most_so_much(value: float, said: str) -> None:
    assert verdict(LATE, ran("door", "p99_ms", value), True)[1] == said


@pytest.mark.parametrize(("ratio", "said"), [(2, "goal"), (1, "floor"), (0.99, "**missed**")])
def test_a_ratio_that_should_be_at_least_so_much_shows_both_sides(ratio: float, said: str) -> None:
    figure, reached = verdict(TIMES, ran("relay", "published", 100 * ratio, ratio), True)
    assert reached == said
    assert f"{number(100 * ratio)} to 100" in figure


def test_a_figure_without_a_floor_is_not_said_to_reach_it() -> None:
    without = Budget("wait", "door", "p99_ms", "ms", floor=None, goal=60)
    assert verdict(without, ran("door", "p99_ms", 61), True)[1] == "goal missed"


def test_what_is_not_there_is_not_called_reached() -> None:
    assert verdict(TIMES, None, False)[1] == "not yet"
    assert verdict(TIMES, None, True)[1] == "not run"
    assert verdict(TIMES, ran("relay", "lag", 1), True)[1] == "not yet"
    assert verdict(TIMES, ran("relay", "published", 1), True)[1] == "no peer in this run"
    failed = Outcome("relay", "2026-01-02 03:04", True, 1, "two cores", "abc", 0.5, failed="no Kafka")
    assert "no Kafka" in verdict(TIMES, failed, True)[1]


def test_the_page_has_a_row_for_each_figure_and_each_benchmark() -> None:
    outcomes = {"door": ran("door", "p99_ms", 61)}
    told = page([LATE, TIMES], outcomes, ["door", "relay"], "How it is measured.", "./lostwax bench")
    assert "| wait | door: `p99_ms` | 61 | ms | 300 | 60 | floor |" in told
    assert "| rate | relay: `published` |  | x peer | at least 1 | at least 2 | not run |" in told
    assert "| door | 2026-01-02 03:04 | quick | 12 | 0.5 | abc | p99_ms 61 ms |" in told
    assert "How it is measured." in told
    assert "two cores" in told
    assert "61" in summary([LATE, TIMES], outcomes, ["door"])


def test_a_budget_is_stated_once_and_its_goal_is_not_below_its_floor() -> None:
    assert len({(b.bench, b.metric) for b in BUDGETS}) == len(BUDGETS)
    for budget in BUDGETS:
        if budget.floor is not None and budget.goal is not None:
            assert (budget.goal >= budget.floor) is budget.at_least or budget.goal == budget.floor
