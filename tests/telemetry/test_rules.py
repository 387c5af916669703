"""Rules of alerts, and what becomes of alerts: pure."""

import re
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import lostwax.telemetry
from lostwax.contracts import metrics as measured
from lostwax.contracts.limits import LIMITS
from lostwax.telemetry import rules
from lostwax.telemetry.domain import Reading
from lostwax.telemetry.rules import Alert, BadRules, Measured, Notice

NOW = datetime(2026, 11, 25, 8, 0, tzinfo=UTC)
HERE = Path(lostwax.telemetry.__file__).parent
DEFAULTS = (HERE / "alerts.toml").read_text()
PLACE = re.compile(r"\{[a-z_.]+\}")
DEAD = """
[[rule]]
name = "dead"
severity = "critical"
metric = "lostwax.dead.open"
by = ["topic"]
above = 0
for = "1m"
summary = "{value} of {topic}"
"""


def at(seconds: float, before: Sequence[Alert], *found: Measured) -> tuple[list[Alert], list[Notice]]:
    return rules.evaluate(rules.parse(DEAD), before, {"dead": found}, NOW + timedelta(seconds=seconds))


def two(value: float = 2) -> Measured:
    return Measured({"topic": "orders.requests"}, value)


def a_reading(value: float, name: str = measured.DEAD_OPEN.name, after_s: float = 0, **labels: str) -> Reading:
    return Reading("orders", "one", labels, 0, value, name=name, at=NOW + timedelta(seconds=after_s))


def test_an_alert_fires_when_it_has_been_wrong_for_long_enough_and_resolves_once() -> None:
    alerts, notices = at(0, [], two())
    assert ([a.state for a in alerts], notices) == (["pending"], [])
    alerts, notices = at(60, alerts, two(3))
    assert [(n.state, n.alert.summary) for n in notices] == [("firing", "3 of orders.requests")]
    fired = notices[0]
    alerts, notices = at(75, alerts, two(3))
    assert ([a.since for a in alerts], notices) == ([NOW], [])
    alerts, notices = at(90, alerts, two(0))
    assert (alerts, [n.state for n in notices]) == ([], ["resolved"])
    assert notices[0].id != fired.id


def test_what_was_wrong_for_a_moment_is_not_told() -> None:
    alerts, _ = at(0, [], two())
    assert at(30, alerts, two(0)) == ([], [])


def test_what_is_not_measured_any_more_stays_for_a_while_and_then_resolves() -> None:
    alerts, _ = at(60, at(0, [], two())[0], two())
    alerts, notices = at(300, alerts)
    assert ([a.state for a in alerts], notices) == (["firing"], [])
    alerts, (notice,) = at(60 + rules.FORGOTTEN_AFTER.total_seconds(), alerts)
    assert (alerts, notice.state, notice.why) == ([], "resolved", "it is not measured any more")


def test_an_alert_whose_rule_is_gone_resolves() -> None:
    alerts, _ = at(60, at(0, [], two())[0], two())
    assert [n.state for n in rules.evaluate([], alerts, {}, NOW)[1]] == ["resolved"]


def test_of_gauges_the_newest_reading_counts_whoever_took_it() -> None:
    (rule,) = rules.parse(DEAD)
    stale = a_reading(5, topic="orders.requests")
    newer = Reading("orders", "two", stale.labels, 0, 1, name=stale.name, at=NOW + timedelta(seconds=9))
    assert rules.measure(rule, [newer, stale], {}, NOW) == [two(1)]


def test_the_default_rules_have_the_limits_of_the_audit() -> None:
    stuck = next(r for r in rules.parse(DEFAULTS) if r.name == "orders-stuck")
    assert {s: stuck.limit({"status": s}) for s in stuck.limits} == {s: t.total_seconds() for s, t in LIMITS.items()}


@pytest.mark.parametrize(
    ("name", "readings", "summary"),
    [
        ("orders-stuck", [a_reading(601, "lostwax.orders.oldest", status="SUBMITTED")], "since 10 min"),
        ("reader-behind", [a_reading(6000, "lostwax.consumer.lag", group="mes", topic="t")], "mes has 6000"),
        ("outbox-waits", [a_reading(130, "lostwax.outbox.age", relay="crm")], "outbox of crm for 2 min"),
        ("dead-letters", [a_reading(1, topic="t")], "1 dead letters of t"),
        ("audit-not-clean", [a_reading(3, "lostwax.audit.findings", kind="missing")], "3 orders"),
        ("audit-late", [a_reading(0, "lostwax.audit.findings", after_s=-27 * 3600, kind="missing")], "27 h old"),
        ("slot-grows", [a_reading(2.0**30, "lostwax.capture.held", source="mes")], "keeps 1024 MiB"),
        ("capture-stands", [a_reading(0, "lostwax.capture.streaming", source="mes")], "No changes of mes"),
    ],
)
def test_each_default_rule_rings_for_what_it_is_about(name: str, readings: list[Reading], summary: str) -> None:
    (rule,) = (r for r in rules.parse(DEFAULTS) if r.name == name)
    ((alert,), _) = rules.evaluate([rule], [], {name: rules.measure(rule, readings, {}, NOW)}, NOW)
    assert summary in alert.summary
    assert rules.measure(rule, [a_reading(1, "process.memory.usage")], {}, NOW) == []


def test_failing_requests_are_a_share_and_a_few_do_not_count() -> None:
    (rule,) = (r for r in rules.parse(DEFAULTS) if r.name == "requests-fail")

    def share(failed: int) -> float:
        name, bounds = measured.HTTP_REQUESTS.name, (1.0,)
        found = [
            Reading("orders", "one", {"http_response_status_code": code}, 0, 0.0, (count, 0), bounds, name, NOW)
            for code, count in (("202", 90), ("503", failed))
        ]
        return rules.measure(rule, found, {}, NOW)[0].value

    assert (share(4), share(10)) == (0.0, 0.1)


def test_a_service_that_says_nothing_is_unseen() -> None:
    (rule,) = (r for r in rules.parse(DEFAULTS) if r.name == "service-unseen")
    found = rules.measure(rule, [], {"mes": NOW - timedelta(seconds=90), "crm": NOW}, NOW)
    ((alert,), _) = rules.evaluate([rule], [], {rule.name: found}, NOW)
    assert alert.labels == {"service": "mes"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("lostwax.dead.open", "lostwax.nothing"), "no metric"),
        (('by = ["topic"]', 'by = ["colour"]'), "colour is no label"),
        (("above = 0", ""), "one of above, below"),
        (("above = 0", "above = 0\nbelow = 1"), "one of above, below"),
        (('for = "1m"', 'for = "soon"'), "no duration"),
        (("{value} of", "{values} of"), "values is not in"),
        (("above = 0", 'above = 0\nmeasure = "p99"'), "of histograms"),
        (("above = 0", "above = 0\ncolour = 1"), "unknown field"),
        (("[[rule]]", "[[rule"), "at line"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused_in_words(change: tuple[str, str], says: str) -> None:
    with pytest.raises(BadRules, match=says):
        rules.parse(DEAD.replace(*change))


def test_the_page_says_every_default_alert_in_russian_with_the_same_places() -> None:
    words = tomllib.loads((HERE / "web" / "ru.toml").read_text())
    for rule in rules.parse(DEFAULTS):
        assert sorted(PLACE.findall(words[rule.summary])) == sorted(PLACE.findall(rule.summary)), rule.name


def test_the_page_says_in_russian_what_is_measured() -> None:
    words = tomllib.loads((HERE / "web" / "ru.toml").read_text())
    assert {text for metric in measured.ALL for text in (metric.description, metric.kind)} - words.keys() == set()
