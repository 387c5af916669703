"""Failed tests are tried once more: who passes then is named, who fails twice fails."""

from pathlib import Path

import pytest

from lostwax.cli.checks import TRIED_AGAIN_AT_MOST, run_tests

STEADY = "def test_steady(): pass\n"
WRONG = "def test_wrong(): assert False\n"
UNSTEADY = """
from pathlib import Path

def test_unsteady():
    seen = Path(__file__).with_name("seen")
    before = seen.exists()
    seen.touch()
    assert before
"""
TEARDOWN = """
from pathlib import Path
import pytest

@pytest.fixture
def left():
    yield
    seen = Path(__file__).with_name("seen at its end")
    before = seen.exists()
    seen.touch()
    assert before

def test_end(left): pass
"""


@pytest.fixture(autouse=True)
def _plain_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the plugins of the project, which take seconds to load."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.mark.parametrize(
    ("tests", "passed", "unsteady"),
    [
        ((STEADY,), True, ()),
        ((STEADY, UNSTEADY), True, ("test_1.py::test_unsteady",)),
        ((STEADY, TEARDOWN), True, ("test_1.py::test_end",)),
        ((UNSTEADY, WRONG), False, ()),
        ((UNSTEADY, *[WRONG] * TRIED_AGAIN_AT_MOST), False, ()),
        (("raise ValueError\n",), False, ()),
    ],
    ids=["none failed", "one passes alone", "an end fails once", "one fails twice", "too many", "not to be collected"],
)
def test_failed_tests_are_tried_again(tmp_path: Path, tests: list[str], passed: bool, unsteady: list[str]) -> None:
    for number, each in enumerate(tests):
        (tmp_path / f"test_{number}.py").write_text(each)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    seen = run_tests(["-q"], [], project=tmp_path, notes=tmp_path / "notes")
    assert (seen[0], tuple(seen[1])) == (passed, tuple(unsteady))


def test_what_failed_the_day_before_is_not_tried(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_0.py").write_text(WRONG)
    assert not run_tests(["-q"], [], project=tmp_path, notes=tmp_path / "notes")[0]
    (tmp_path / "test_0.py").write_text(STEADY)
    (tmp_path / "test_1.py").write_text(UNSTEADY)
    seen = run_tests(["-q"], [], project=tmp_path, notes=tmp_path / "notes")
    assert (seen[0], list(seen[1])) == (True, ["test_1.py::test_unsteady"])
