"""How fast a channel may publish: as fast as it can while Orders keeps up, else nearly what Orders does."""

import time
from typing import Any

import pytest

from lostwax.orders.expectations import SLOWEST_PER_S, Expectations


def expectations(delay_s: float, handled: Any) -> Expectations:
    return Expectations(None, {}, None, delay_s=lambda: delay_s, handled=handled)  # type: ignore[arg-type]


def test_no_limit_while_orders_keeps_up() -> None:
    assert expectations(0.0, lambda: 0).granted() is None
    assert expectations(1.9, lambda: 0).granted() is None


def test_nearly_what_was_done_lately_once_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([0, 5000])
    behind = expectations(10.0, lambda: next(counts))
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 0.5)
    assert behind.granted() == SLOWEST_PER_S
    monkeypatch.setattr(time, "monotonic", lambda: now + 10.0)
    assert behind.granted() == pytest.approx(400, rel=0.02)
