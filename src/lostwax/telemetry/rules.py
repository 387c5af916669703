"""Rules of alerts, and what becomes of alerts as readings come in: pure."""

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Any, Literal

import msgspec

from lostwax.contracts import metrics as measured
from lostwax.telemetry.domain import BadQuestion, Reading, duration, newest, quantile, together

FORGOTTEN_AFTER = timedelta(minutes=15)
"""So long an alert stays as it is while what it is about is not measured; then it counts as resolved."""

MOST_OF_A_RULE = 50
_METRICS = {m.name: m for m in measured.ALL}
_PLACE = re.compile(r"\{([a-z_.]+)\}")
_WIDEST = timedelta(days=8)
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class BadRules(Exception):
    """The file of rules cannot be meant; the text says where, and how to mend it."""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As docs/how-to/when-an-alert-rings.md tells. Durations are texts: `90s`, `15m`, `6h`, `7d`."""

    name: str
    severity: Literal["warning", "critical"]
    summary: str
    measure: Literal["value", "share", "p50", "p95", "p99", "age", "unseen"] = "value"
    metric: str = ""
    by: tuple[str, ...] = ()
    where: dict[str, str] = {}
    part: dict[str, str] = {}
    at_least: float = 0
    over: str = "5m"
    above: float | str | None = None
    below: float | str | None = None
    limits: dict[str, float | str] = {}
    lasting: str = msgspec.field(default="0s", name="for")

    def limit(self, labels: Mapping[str, str]) -> float | None:
        """Where it begins to be wrong for these labels; None: never."""
        given = self.limits.get(labels[self.by[0]]) if self.limits else self.above if self.below is None else self.below
        return None if given is None else _number(given)

    @property
    def unit(self) -> str:
        """Of its values."""
        if self.measure in ("age", "unseen"):
            return "s"
        return "share" if self.measure == "share" else _METRICS[self.metric].unit


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rule: list[Rule] = []


class Measured(msgspec.Struct, frozen=True):
    labels: dict[str, str]
    value: float


class Alert(msgspec.Struct, frozen=True):
    """Something that is wrong: `pending` until it has been so for as long as its rule wants, then `firing`. `since`:
    when it began to be wrong, `measured_at`: when it was last seen to be so."""

    rule: str
    severity: str
    labels: dict[str, str]
    state: Literal["pending", "firing"]
    summary: str
    value: float
    limit: float
    unit: str
    since: datetime
    measured_at: datetime

    @property
    def key(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        return self.rule, tuple(sorted(self.labels.items()))


class Notice(msgspec.Struct, frozen=True):
    """What a web hook is told, at least once: a repetition has the same `id`. `why` tells of a resolved one."""

    id: str
    state: Literal["firing", "resolved"]
    at: datetime
    alert: Alert
    why: str = ""


def parse(text: str) -> list[Rule]:
    """Rules of a TOML file. Raises BadRules."""
    try:
        rules = msgspec.convert(tomllib.loads(text), _File).rule
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BadRules(str(error)) from None
    names = [rule.name for rule in rules]
    for rule in rules:
        if names.count(rule.name) > 1:
            raise BadRules(f"two rules are named {rule.name}")
        try:
            _check(rule)
        except (BadRules, BadQuestion) as error:
            raise BadRules(f"rule {rule.name}: {error}") from None
    return rules


def _check(rule: Rule) -> None:
    if rule.measure == "unseen":
        labels: tuple[str, ...] = ("service",)
        if rule.metric or rule.by != labels:
            raise BadRules('unseen takes no metric, and by = ["service"]')
    else:
        metric = _METRICS.get(rule.metric)
        if metric is None:
            raise BadRules(f"no metric {rule.metric!r}; contracts/metrics.py names them all")
        labels = ("service", "instance", *metric.attributes)
        if rule.measure in _QUANTILES and metric.kind != "histogram":
            raise BadRules(f"{rule.measure} is of histograms, and {metric.name} is a {metric.kind}")
        if (rule.measure == "share") != bool(rule.part) or (rule.part and metric.kind == "gauge"):
            raise BadRules("share, of a counter or histogram, needs `part`, and nothing else does")
    if wrong := [name for name in (*rule.by, *rule.where, *rule.part) if name not in labels]:
        raise BadRules(f"{', '.join(wrong)} is no label here; there are {', '.join(labels)}")
    if [rule.above is not None, rule.below is not None, bool(rule.limits)].count(True) != 1:
        raise BadRules("give one of above, below and limits")
    if rule.limits and not rule.by:
        raise BadRules("limits are by the first label of `by`")
    for given in (rule.above, rule.below, *rule.limits.values()):
        if given is not None:
            _number(given)
    if wrong := [name for name in _PLACE.findall(rule.summary) if name not in (*rule.by, "value", "limit")]:
        raise BadRules(f"summary: {', '.join(wrong)} is not in `by`, nor value or limit")
    duration(rule.lasting)
    if not timedelta(seconds=10) <= duration(rule.over) <= _WIDEST:
        raise BadRules(f"over: from 10s to {_WIDEST.days}d")


def _number(given: float | str) -> float:
    return duration(given).total_seconds() if isinstance(given, str) else float(given)


def measure(rule: Rule, found: Iterable[Reading], seen: Mapping[str, datetime], now: datetime) -> list[Measured]:
    """What a rule looks at, of what came within its `over`. Gauges: the newest reading of each set of labels, of those
    in seconds the highest, else their sum. `seen`: when each service last sent anything."""
    if rule.measure == "unseen":
        return [Measured({"service": name}, (now - at).total_seconds()) for name, at in sorted(seen.items())]
    groups: dict[tuple[str, ...], list[Reading]] = defaultdict(list)
    for reading in found:
        if reading.name == rule.metric and _fits(reading, rule.where):
            groups[tuple(_label(reading, name) for name in rule.by)].append(reading)
    values = [(dict(zip(rule.by, key, strict=True)), _value(rule, here, now)) for key, here in sorted(groups.items())]
    return [Measured(labels, value) for labels, value in values if value is not None]


def _value(rule: Rule, here: Sequence[Reading], now: datetime) -> float | None:
    if rule.measure == "age":
        return (now - max(r.at for r in here if r.at is not None)).total_seconds()
    if rule.measure in _QUANTILES:
        _, buckets, bounds = together(here)
        return quantile(_QUANTILES[rule.measure], buckets, bounds) if sum(buckets) >= max(1, rule.at_least) else None
    metric = _METRICS[rule.metric]
    if rule.measure == "share":
        whole = sum(_count(r) for r in here)
        part = sum(_count(r) for r in here if _fits(r, rule.part))
        return part / whole if whole and part >= rule.at_least else 0.0
    if metric.kind == "gauge":
        values = [r.value for r in newest(here)]
        return max(values) if metric.unit == "s" else sum(values)
    return sum(_count(r) for r in here)


def _count(reading: Reading) -> float:
    return sum(reading.buckets) if reading.buckets else reading.value


def _label(reading: Reading, name: str) -> str:
    own = {"service": reading.service, "instance": reading.instance}
    return own.get(name) or reading.labels.get(name.replace(".", "_"), "")


def _fits(reading: Reading, wanted: Mapping[str, str]) -> bool:
    return all(fnmatchcase(_label(reading, name), pattern) for name, pattern in wanted.items())


def evaluate(
    rules: Sequence[Rule], before: Iterable[Alert], found: Mapping[str, Sequence[Measured]], now: datetime
) -> tuple[list[Alert], list[Notice]]:
    """Alerts as they are now, and what is to be told. `found`: what each rule measured, by its name."""
    known = {alert.key: alert for alert in before}
    alerts: list[Alert] = []
    notices: list[Notice] = []
    for rule in rules:
        wrong = 0
        for one in found.get(rule.name, ()):
            limit = rule.limit(one.labels)
            was = known.pop((rule.name, tuple(sorted(one.labels.items()))), None)
            if limit is None or not (one.value < limit if rule.below is not None else one.value > limit):
                if was is not None and was.state == "firing":
                    said = f"it is {_text(one.value, rule.unit)} now"
                    notices.append(_notice("resolved", was, now, said))
                continue
            wrong += 1
            if wrong > MOST_OF_A_RULE:
                continue
            since = now if was is None else was.since
            alert = Alert(
                rule.name,
                rule.severity,
                one.labels,
                "firing" if now - since >= duration(rule.lasting) else "pending",
                _summary(rule, one, limit),
                one.value,
                limit,
                rule.unit,
                since,
                now,
            )
            alerts.append(alert)
            if alert.state == "firing" and (was is None or was.state == "pending"):
                notices.append(_notice("firing", alert, now))
    names = {rule.name for rule in rules}
    for alert in known.values():
        if alert.rule in names and now - alert.measured_at < FORGOTTEN_AFTER:
            alerts.append(alert)
        elif alert.state == "firing":
            why = "it is not measured any more" if alert.rule in names else "its rule is gone"
            notices.append(_notice("resolved", alert, now, why))
    return sorted(alerts, key=_order), notices


def _order(alert: Alert) -> Any:
    return alert.state != "firing", alert.severity != "critical", alert.since, alert.key


def _notice(state: Literal["firing", "resolved"], alert: Alert, now: datetime, why: str = "") -> Notice:
    text = f"{alert.key}{alert.since.isoformat()}{state}"
    return Notice(blake2b(text.encode(), digest_size=16).hexdigest(), state, now, alert, why)


def blind(why: str, since: datetime, now: datetime, *, over: bool = False) -> Notice:
    """That nothing can be seen: the one alert that has no rule."""
    seconds = (now - since).total_seconds()
    alert = Alert("telemetry-blind", "critical", {}, "firing", f"No alert can ring: {why}", seconds, 0, "s", since, now)
    return _notice("resolved" if over else "firing", alert, now, "it sees again" if over else "")


def _summary(rule: Rule, one: Measured, limit: float) -> str:
    texts = {**one.labels, "value": _text(one.value, rule.unit), "limit": _text(limit, rule.unit)}
    return _PLACE.sub(lambda place: texts[place[1]], rule.summary)


def _text(value: float, unit: str) -> str:
    if unit == "s":
        for seconds, name in ((86_400, "d"), (3600, "h"), (60, "min")):
            if value >= 2 * seconds:
                return f"{value / seconds:.0f} {name}"
        return f"{value:.3g} s"
    if unit == "By":
        return f"{value / 2**20:.0f} MiB"
    return f"{value:.1%}" if unit == "share" else f"{value:.6g}"
