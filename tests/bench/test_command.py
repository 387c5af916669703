"""`./lostwax bench`: its last line, what it keeps, and that a benchmark that fails stops no other."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lostwax.cli import application
from lostwax.cli import bench as command
from lostwax.local.places import PROJECT


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Benchmarks of the test's own, beside the real page and budgets."""
    for name in ("_page.py", "_budgets.py", "_preface.md"):
        (tmp_path / name).write_text((PROJECT / "bench" / name).read_text())
    (tmp_path / "idle.py").write_text(
        "def run(quick):\n    print('a table')\n"
        "    return {'cpu': {'value': 2.5 if quick else 9, 'unit': '% of a core', 'ceiling': None, 'ratio': None}}\n"
    )
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    monkeypatch.setattr(command, "KEPT", tmp_path / "kept")
    return tmp_path


def test_the_last_line_is_one_json_object_and_the_page_tells_it(folder: Path) -> None:
    done = CliRunner().invoke(application(), ["bench", "idle", "--quick"])
    assert done.exit_code == 0, done.output
    last = json.loads(done.output.splitlines()[-1])
    assert last["bench"] == "idle"
    assert last["metrics"]["cpu"]["value"] == 2.5
    assert {"machine", "commit", "at", "seconds"} <= last.keys()
    written = folder / "benchmarks.md"
    assert CliRunner().invoke(application(), ["bench", "--write", str(written)]).exit_code == 0
    assert "| at rest: CPU of all services | idle: `cpu` | 2.5 | % of a core | 10 | 3 | goal |" in written.read_text()


def test_a_benchmark_that_fails_stops_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "claim.py").write_text("def run(quick):\n    raise SystemExit('nobody claimed')\n")
    # The process of its own has to find the test's folder, too.
    (folder / "sitecustomize.py").write_text(
        "from pathlib import Path\nfrom lostwax.cli import bench\n"
        f"bench.FOLDER = Path({str(folder)!r})\nbench.KEPT = bench.FOLDER / 'kept'\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))
    written = folder / "benchmarks.md"
    done = CliRunner().invoke(application(), ["bench", "--all", "--quick", "--write", str(written)])
    assert done.exit_code == 1
    page = written.read_text()
    assert "**the benchmark failed**: nobody claimed" in page
    assert "| idle: `cpu` | 2.5 |" in page


def test_an_unknown_benchmark_is_told_which_there_are(folder: Path) -> None:
    done = CliRunner().invoke(application(), ["bench", "speed-of-light"])
    assert done.exit_code == 2
    assert "there are idle" in done.output


def test_no_benchmark_hides_a_module_of_pythons_own() -> None:
    names = {path.stem for path in (PROJECT / "bench").glob("*.py")}
    assert {"intake", "queue_"} <= names
    assert not names & sys.stdlib_module_names
