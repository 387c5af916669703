"""The page that `docs/benchmarks.md` is: each figure beside floor and goal, from the last run of each benchmark."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from _budgets import Budget


class Metric(msgspec.Struct, frozen=True):
    value: float
    unit: str
    ceiling: float | None = None
    ratio: float | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What a run of a benchmark left behind: the JSON object of its last line, or why it `failed`. `at` in UTC, `load`
    the machine's load average when it began."""

    bench: str
    at: str
    quick: bool
    seconds: float
    machine: str
    commit: str
    load: float
    metrics: dict[str, Metric] = {}
    failed: str = ""


def verdict(budget: Budget, outcome: Outcome | None, exists: bool) -> tuple[str, str]:
    """The figure and what it reaches, in words."""
    if outcome is not None and outcome.failed:
        return "", f"**the benchmark failed**: {outcome.failed}"
    metric = None if outcome is None else outcome.metrics.get(budget.metric)
    if metric is None:
        return "", "not yet" if not exists or outcome is not None else "not run"
    figure = metric.value if budget.by == "value" else metric.ratio
    if figure is None:
        return f"{number(metric.value)} {metric.unit}", "no peer in this run"
    shown = number(figure)
    if budget.by == "ratio" and metric.ceiling is not None:
        shown += f" ({number(metric.value)} to {number(metric.ceiling)} {metric.unit})"
    if budget.reached(figure, budget.goal):
        return shown, "goal"
    if budget.floor is None:
        return shown, "goal missed"
    return shown, "floor" if budget.reached(figure, budget.floor) else "**missed**"


def page(
    budgets: Sequence[Budget], outcomes: Mapping[str, Outcome], benches: Iterable[str], preface: str, command: str
) -> str:
    """`benches`: those that there are; `preface`: what people wrote about how it is measured and why what is missed."""
    there = set(benches)
    ran = sorted(outcomes.values(), key=lambda o: o.at)
    lines = ["# Benchmarks: every figure beside its floor and its goal", "", preface.strip(), ""]
    for machine in dict.fromkeys(o.machine for o in ran):
        lines += [f"Machine: {machine}."]
    if ran:
        lines += [f"Written by `{command}` from the last run of each, {ran[0].at} to {ran[-1].at} UTC.", ""]
    lines += ["| what | bench: metric | figure | unit | floor | goal | reached |", "|---|---|--:|---|--:|--:|---|"]
    for budget in budgets:
        figure, said = verdict(budget, outcomes.get(budget.bench), budget.bench in there)
        sign = "at least " if budget.at_least else ""
        floor, goal = ("" if b is None else f"{sign}{number(b)}" for b in (budget.floor, budget.goal))
        lines.append(
            f"| {budget.what} | {budget.bench}: `{budget.metric}` | {figure} | {budget.unit} | {floor} | {goal} |"
            f" {said} |"
        )
    lines += ["", "What every run measured:", ""]
    lines += ["| bench | when | how | seconds | load before | commit | figures |", "|---|---|---|--:|--:|---|---|"]
    for name in sorted(there | set(outcomes)):
        outcome = outcomes.get(name)
        if outcome is None:
            lines.append(f"| {name} | not run | | | | | |")
            continue
        figures = outcome.failed or "; ".join(_told(key, metric) for key, metric in outcome.metrics.items())
        lines.append(
            f"| {name} | {outcome.at} | {'quick' if outcome.quick else 'whole'} | {outcome.seconds:.0f} |"
            f" {outcome.load:.1f} | {outcome.commit} | {figures} |"
        )
    return "\n".join([*lines, ""])


def summary(budgets: Sequence[Budget], outcomes: Mapping[str, Outcome], benches: Iterable[str]) -> str:
    """The same table for a terminal, of the benchmarks that ran."""
    there = set(benches)
    rows = []
    for budget in budgets:
        if budget.bench in outcomes:
            figure, said = verdict(budget, outcomes[budget.bench], budget.bench in there)
            bounds = " / ".join("-" if b is None else number(b) for b in (budget.floor, budget.goal))
            rows.append(f"{budget.what:58.58} {figure:>34.34} {budget.unit:12.12} {bounds:>16} {said.replace('*', '')}")
    return "\n".join([f"{'':58} {'figure':>34} {'':12} {'floor / goal':>16} reached", *rows])


def number(value: float) -> str:
    """A figure as people read it: four digits, thousands parted."""
    if value == 0 or (abs(value) < 0.001):
        return f"{value:.2g}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _told(key: str, metric: Metric) -> str:
    ratio = "" if metric.ratio is None else f" ({number(metric.ratio)} of {number(metric.ceiling or 0)})"
    return f"{key} {number(metric.value)} {metric.unit}{ratio}".replace("|", "/")
