"""Alerts over the real flow, by Kafka and OpenSearch to a web hook; and what lines of a log may not do."""

import asyncio
import logging
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from confluent_kafka import Producer
from tests.builders import wait_for
from tests.telemetry.receiver import Receiver

import lostwax.telemetry
from lostwax.audit.run import Report
from lostwax.audit.telling import tell
from lostwax.audit.verdict import Finding, Kind
from lostwax.contracts.topics import TELEMETRY_LOGS
from lostwax.kit import otlp
from lostwax.kit.clock import utc_now
from lostwax.kit.webhooks import new_secret
from lostwax.local.stack import Stack
from lostwax.telemetry import rules
from lostwax.telemetry.alerting import Watch
from lostwax.telemetry.clients import Hook, OpenSearch

WRONG = Report(utc_now(), 0.1, 0, 0, {}, 0, 0, 1, {}, [Finding(Kind.GAP, None, "of a test")])
HTML = "<img src=x onerror=alert(1)> & <script>alert(2)</script>"


def bootstrap(stack: Stack) -> str:
    return stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"]


def ask(stack: Stack, path: str, **parameters: str | int) -> httpx.Response:
    headers = {"Authorization": f"Bearer {stack.console_token('telemetry')}"}
    return httpx.get(stack.url("telemetry") + path, params=parameters, headers=headers, timeout=30)


def say(stack: Stack, *lines: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap(stack)})
    logs = [otlp.Log(time.time_ns() + n, logging.INFO, text, {}, None) for n, text in enumerate(lines)]
    producer.produce(TELEMETRY_LOGS.name, otlp.encode_logs(otlp.resource("pricing", "test"), logs), key="pricing")
    assert producer.flush(20) == 0


async def test_an_audit_that_is_not_clean_rings_once_and_a_clean_one_resolves_it(seen: Stack, pager: Receiver) -> None:
    pager.failing = 2
    assert tell(msgspec.structs.replace(WRONG, at=utc_now()), bootstrap(seen))
    await wait_for(lambda: len(pager.of("audit-not-clean")) >= 3, 60)
    attempts = pager.of("audit-not-clean")
    assert {(a["id"], a["state"], a["alert"]["labels"]["kind"]) for a in attempts} == {
        (attempts[0]["id"], "firing", "gap")
    }
    alerts = ask(seen, "/v1/alerts").raise_for_status().json()
    assert (alerts["seeing"], [a["rule"] for a in alerts["alerts"]]) == (True, ["audit-not-clean"])
    assert ask(seen, "/v1/services").json()["audit"]["findings"] == {"gap": 1}

    seen.restart("telemetry")
    assert tell(msgspec.structs.replace(WRONG, at=utc_now(), findings=[]), bootstrap(seen))
    await wait_for(lambda: pager.of("audit-not-clean")[-1]["state"] == "resolved", 60)
    assert [a["state"] for a in pager.of("audit-not-clean")] == ["firing"] * 3 + ["resolved"]
    assert ask(seen, "/v1/services").json()["audit"]["clean"]


async def test_of_two_watches_one_evaluates(search: OpenSearch, seen: Stack) -> None:
    other = Watch(search, rules.parse(""), None, every_s=1, replicas=0, now=utc_now)
    before = await wait_for(lambda: ask(seen, "/v1/alerts").json()["evaluated_at"], 30)
    await other.look()
    view = await other.view()
    assert view.seeing
    await wait_for(lambda: ask(seen, "/v1/alerts").json()["evaluated_at"] > before, 30)


async def test_without_opensearch_nothing_rings_and_blindness_is_told(pager: Receiver) -> None:
    nowhere, now = OpenSearch("http://127.0.0.1:9", timeout_s=1), [utc_now()]
    hook = Hook(pager.url, pager.secret, utc_now)
    watched = rules.parse((Path(lostwax.telemetry.__file__).parent / "alerts.toml").read_text())
    watch = Watch(nowhere, watched, hook, every_s=1, replicas=0, now=lambda: now[0])
    before = len(pager.attempts)
    await watch.look()
    view = await watch.view()
    assert (view.seeing, view.alerts, len(pager.attempts)) == (False, [], before)
    now[0] += timedelta(minutes=3)
    await watch.look()
    await watch.look()
    told = pager.attempts[before:]
    assert [(a["alert"]["rule"], a["state"]) for a in told] == [("telemetry-blind", "firing")]
    stranger = Hook(pager.url, new_secret(), utc_now)
    assert not await stranger.tell("notice", b"{}")
    assert (len(pager.attempts), pager.unsigned) == (before + 1, 1), "signed with another secret it is not believed"
    await asyncio.gather(nowhere.close(), hook.close(), stranger.close())


async def test_html_in_a_line_comes_as_text_and_the_page_writes_text_only(seen: Stack) -> None:
    say(seen, HTML)

    def found() -> Any:
        answer = ask(seen, "/v1/logs", text="onerror", service="pricing")
        return answer if answer.json().get("lines") else None

    answer = await wait_for(found, 40)
    assert answer.json()["lines"][0]["message"] == HTML
    assert answer.headers["content-type"] == "application/json"
    script = (Path(lostwax.telemetry.__file__).parent / "web" / "page.js").read_text()
    assert not [way for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write") if way in script]


async def test_pages_hold_while_new_lines_arrive(seen: Stack) -> None:
    say(seen, *(f"marked old {n}" for n in range(9)))
    await wait_for(lambda: len(ask(seen, "/v1/logs", text="marked").json()["lines"]) == 9, 40)
    first = ask(seen, "/v1/logs", text="marked", limit=4).json()
    say(seen, *(f"marked new {n}" for n in range(5)))
    await wait_for(lambda: len(ask(seen, "/v1/logs", text="marked").json()["lines"]) == 14, 40)
    lines, after = first["lines"], first["next"]
    while after:
        page = ask(seen, "/v1/logs", text="marked", limit=4, after=after).json()
        lines, after = lines + page["lines"], page.get("next")
    assert [line["message"] for line in lines] == [f"marked old {n}" for n in reversed(range(9))]


@pytest.mark.parametrize("path", ["", "nowhere.toml"])
def test_rules_that_cannot_be_read_are_said_at_the_start(tmp_path: Path, path: str, seen: Stack) -> None:
    from lostwax.kit.settings import SettingsError, read_settings
    from lostwax.telemetry.main import _rules
    from lostwax.telemetry.settings import Settings

    file = tmp_path / (path or "alerts.toml")
    if not path:
        file.write_text("[[rule]]\nname = 1")
    settings = read_settings(Settings, seen.env("telemetry") | {"LOSTWAX_ALERTS_FILE": str(file)})
    with pytest.raises(SettingsError, match=str(file)):
        _rules(settings)
