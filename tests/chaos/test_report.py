"""What a run is reported to show, and what it is held not to."""

import time
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from lostwax.audit.run import Report
from lostwax.audit.verdict import Finding, Kind
from lostwax.chaos import faults
from lostwax.chaos.load import Felt
from lostwax.chaos.report import as_json, as_markdown
from lostwax.chaos.run import Result, Wound, _back
from lostwax.local.state import ProcessStatus

AT = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
CLEAN = Report(AT, 1.0, 100, 100, {"partner_api": 100}, 100, 0, 100, {"SHIPPED": 100}, [])
WOUND = Wound(
    faults.Fault(faults.Kind.CUT, "kafka", 30),
    AT,
    unfinished=77,
    unpriced=9,
    recovered_s=4.25,
    felt=Felt(600, 3, 2, 0.5),
    unapproved=51,
)
GOOD = Result(1, 50, 60.0, 3000, [WOUND], [], [], CLEAN, ["kafka", "orders"])


def test_a_good_run_falls_short_of_nothing_and_its_page_tells_each_fault() -> None:
    assert GOOD.shortfalls() == []
    page = as_markdown(GOOD, "two cores", "./lostwax chaos")
    assert "**Audit clean**" in page
    assert "| cut kafka | 30 | 77 | 51 | 9 | 4.2 | 600 | 0.50 | 3 | 2 |" in page
    assert "does not show" not in page
    assert "Processes: kafka, orders." in page
    assert "1 of 1 faults met at least 50 orders that were not approved yet" in page
    assert msgspec.json.decode(as_json(GOOD), type=Result) == GOOD


def test_how_long_those_who_look_on_were_gone_is_told_of_their_kills() -> None:
    killed = [
        Wound(faults.Fault(kind, name, 0), AT, 77, 9, 4.25, Felt(), aside=aside, back_s=back)
        for kind, name, aside, back in (
            (faults.Kind.KILL, "opensearch", True, 61.0),
            (faults.Kind.KILL, "opensearch", True, 204.4),
            (faults.Kind.KILL, "connect", True, None),
            (faults.Kind.STOP, "connect", True, 9.0),
            (faults.Kind.KILL, "orders", False, 7.0),
        )
    ]
    page = as_markdown(msgspec.structs.replace(GOOD, wounds=killed), "two cores", "./lostwax chaos")
    assert "ready again after a kill, at the latest: opensearch 204 s." in page


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"wounds": [msgspec.structs.replace(WOUND, unfinished=49)]}, "cut kafka: only 49 orders were unfinished"),
        ({"wounds": [msgspec.structs.replace(WOUND, recovered_s=None)]}, "cut kafka: no new order came through"),
        ({"wounds": [msgspec.structs.replace(WOUND, trouble="kafka is waiting")]}, "kafka is waiting"),
        ({"wounds": []}, "nothing was broken"),
        (
            {"wounds": [msgspec.structs.replace(WOUND, felt=Felt(600, broken=4))]},
            "cut kafka: partners were answered 4 times that something broke",
        ),
        ({"wounds": [msgspec.structs.replace(WOUND, aside=True)]}, "cut kafka: stands in no order's way, and partners"),
        ({"complaints": ["POST /v1/orders: 400"]}, "robots were told 1 things"),
        (
            {"audit": msgspec.structs.replace(CLEAN, findings=[Finding(Kind.MISSING, None, "gone")])},
            "the audit has 1 findings",
        ),
    ],
)
def test_what_a_run_does_not_show_is_said(changed: dict[str, object], said: str) -> None:
    result = msgspec.structs.replace(GOOD, **changed)
    (short,) = result.shortfalls()
    assert said in short
    assert said in as_markdown(result, "two cores", "./lostwax chaos")


@pytest.mark.parametrize(("passed_s", "late"), [(20.0, ""), (200.0, "ready again only after 200 s")])
async def test_who_only_looks_on_and_is_late_is_a_shortfall_too(passed_s: float, late: str) -> None:
    class Running:
        def status(self) -> list[Any]:
            return [ProcessStatus("opensearch", "server", "ready", 9200, "http://127.0.0.1:9200", aside=True)]

    killed = msgspec.structs.replace(
        WOUND,
        fault=faults.Fault(faults.Kind.KILL, "opensearch", 0),
        aside=True,
        felt=Felt(600),
        mended=time.time() - passed_s,
    )
    wounds = [killed]
    await _back(Running(), wounds, 0)  # type: ignore[arg-type]
    assert wounds[0].trouble == late
    assert wounds[0].back_s == pytest.approx(passed_s, abs=2)
    assert [late in said for said in msgspec.structs.replace(GOOD, wounds=wounds).shortfalls()] == [True] * bool(late)
