"""A short run of chaos: one fault of each kind to what orders pass through, under load, then the audit. The whole
matrix is `./lostwax chaos`; those who look on are killed in test_watchers_killed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

from lostwax.chaos.faults import Kind
from lostwax.chaos.run import UNFINISHED_AT_LEAST, Result
from lostwax.local.places import STACKS
from lostwax.local.stack import Stack


def test_one_fault_of_each_kind_loses_nothing(tmp_path: Path) -> None:
    # A process of its own: the small disk is mounted for whoever starts the stack, and must not stay in ours.
    name, report = f"test-chaos-{os.getpid()}", tmp_path / "report.json"
    command = [sys.executable, "-m", "lostwax", "chaos", "--minutes", "0.7", "--hold", "2", "--rate", "20"]
    command += ["--spine", "--seed", "6", "--report", str(report), "--stack", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    finally:
        Stack(STACKS / name).down(remove=True)
    assert done.returncode == 0, done.stderr
    result = msgspec.json.decode(report.read_bytes(), type=Result)
    assert result.audit.findings == []
    assert result.audit.acknowledged == result.accepted > UNFINISHED_AT_LEAST
    assert result.complaints == []
    expected = set(Kind) if os.geteuid() == 0 else set(Kind) - {Kind.FULL}
    assert {wound.fault.kind for wound in result.wounds} == expected
    assert min(wound.unfinished for wound in result.wounds) >= UNFINISHED_AT_LEAST
    shutil.rmtree(STACKS / name, ignore_errors=True)  # the logs stay when something failed
