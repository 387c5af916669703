"""The bootstrap script, as far as it can be looked at without setting a machine up."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lostwax.local import places, setup

ROOT = places.PROJECT


def test_the_scripts_are_executable_and_parse() -> None:
    for script in (ROOT / "lostwax", ROOT / ".ci/run"):
        assert script.stat().st_mode & 0o111
        subprocess.run(["bash", "-n", str(script)], check=True)


def test_a_machine_without_python_is_told_how_to_mend_it(tmp_path: Path) -> None:
    root = tmp_path / "clone"
    (root / "src/lostwax/local/kafka").mkdir(parents=True)
    needed = [
        "lostwax",
        "requirements.lock",
        "pyproject.toml",
        "src/lostwax/local/setup.py",
        "src/lostwax/local/places.py",
    ]
    for name in (*needed, "src/lostwax/local/kafka/pom.xml"):
        (root / name).write_bytes((ROOT / name).read_bytes())
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "cat", "dirname", "readlink", "sha256sum"):
        found = subprocess.run(["which", tool], capture_output=True, text=True, check=True).stdout.strip()
        (tools / tool).symlink_to(found)
    done = subprocess.run(
        ["bash", str(root / "lostwax"), "--help"], env={"PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Python 3.11" in done.stderr
    assert "apt-get install python3" in done.stderr


def test_setup_needs_the_standard_library_only() -> None:
    """It runs before the virtual environment exists: -S leaves site-packages out."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import lostwax.local.setup"
    subprocess.run([sys.executable, "-I", "-S", "-c", code, str(ROOT / "src")], check=True)


def test_a_step_is_done_once_for_the_same_inputs_and_again_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "STAMPS", tmp_path)
    done: list[str] = []

    def fail() -> None:
        raise setup.SetupFailed("half way")

    with pytest.raises(setup.SetupFailed):
        setup.step("a step", "a", "1", fail)
    setup.step("a step", "a", "1", lambda: done.append("first"))
    setup.step("a step", "a", "1", lambda: done.append("again"))
    assert done == ["first"]
    with pytest.raises(setup.SetupFailed):
        setup.step("a step", "a", "2", fail)
    setup.step("a step", "a", "1", lambda: done.append("after a failure"))
    assert done == ["first", "after a failure"]


def test_a_failed_command_shows_the_end_of_what_it_said() -> None:
    with pytest.raises(setup.SetupFailed, match="no such luck"):
        setup.run(["sh", "-c", "echo no such luck; exit 3"], what="trying")


def test_postgresql_is_installed_without_a_cluster_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """apt-get and sudo are stood in for by scripts that write down what they are told and what Debian would read."""
    settings = tmp_path / "createcluster.conf"
    settings.write_text("# as it was\n")
    said = tmp_path / "said"
    apt = tmp_path / "apt-get"
    apt.write_text(f'#!/bin/sh\necho "$@ / $(tail -1 {settings})" >> {said}\n')
    sudo = tmp_path / "sudo"
    sudo.write_text('#!/bin/sh\nexec "$@"\n')
    for script in (apt, sudo):
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(setup, "CREATECLUSTER", settings)
    setup.install_packages(["postgresql", "maven"])
    update, common, install = said.read_text().splitlines()
    assert "update" in update
    assert "install postgresql-common / # as it was" in common
    assert "install postgresql maven / create_main_cluster = false" in install
    assert settings.read_text() == "# as it was\n"


def test_the_lock_holds_every_direct_dependency_and_no_path() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    assert all("==" in line and "/" not in line and "@" not in line for line in packages)
    locked = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in packages}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *project["optional-dependencies"]["servers"],
        *project["optional-dependencies"]["dev"],
    ]
    for requirement in wanted:
        name = re.sub(r"[-_.]+", "-", re.split(r"[\[<>=;~! ]", requirement)[0]).lower()
        assert name in locked, f"{name} is not in requirements.lock"
