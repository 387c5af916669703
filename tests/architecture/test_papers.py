"""The papers say what is: functions named in ARCHITECTURE.md exist, and the example environment is complete."""

import ast
import importlib
import re
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import libversion

from lostwax.kit.settings import PREFIX
from lostwax.local.credentials import SERVICES
from lostwax.local.places import PROJECT
from lostwax.orders.drawing import life_table

WALK = re.compile(r"`([a-z_/]+\.py):([A-Za-z_]+)`")


def defined(path: Path) -> set[str]:
    """Names of functions, classes and assigned constants anywhere in a file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names


def test_each_function_of_the_walk_exists() -> None:
    named = WALK.findall((PROJECT / "ARCHITECTURE.md").read_text())
    assert len(named) > 40
    missing = [f"{f}:{n}" for f, n in named if n not in defined(PROJECT / "src/lostwax" / f)]
    assert missing == []


def test_the_life_of_an_order_is_drawn_as_it_is() -> None:
    assert life_table() in (PROJECT / "ARCHITECTURE.md").read_text()


def test_a_function_that_does_not_exist_would_be_noticed() -> None:
    assert WALK.findall("as `kit/relay.py:no_such_thing` does") == [("kit/relay.py", "no_such_thing")]
    assert "no_such_thing" not in defined(PROJECT / "src/lostwax/kit/relay.py")


@pytest.mark.parametrize("service", SERVICES)
def test_the_example_environment_has_every_setting(service: str) -> None:
    settings = importlib.import_module(f"lostwax.{service}.settings").Settings
    example = {
        line.partition("=")[0]
        for line in (PROJECT / "deploy/environment.example").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    }
    assert {PREFIX + f.name.upper() for f in msgspec.structs.fields(settings)} <= example


def test_the_example_environment_has_nothing_else() -> None:
    known: set[str] = set()
    for service in SERVICES:
        settings = importlib.import_module(f"lostwax.{service}.settings").Settings
        known |= {PREFIX + f.name.upper() for f in msgspec.structs.fields(settings)}
    lines = (PROJECT / "deploy/environment.example").read_text().splitlines()
    example = {line.partition("=")[0] for line in lines if "=" in line and not line.startswith("#")}
    assert example <= known


def test_every_link_in_the_papers_leads_somewhere() -> None:
    broken = []
    for paper in [*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)", paper.read_text()):
            if "://" not in target and not (paper.parent / target).exists():
                broken.append(f"{paper.name}: {target}")
    assert broken == []


def test_the_kafka_client_is_not_of_those_that_go_deaf() -> None:
    """docs/decisions/0052-the-kafka-client.md says what to do before a later one is taken."""
    assert "0052" in (PROJECT / "pyproject.toml").read_text()
    assert tuple(int(part) for part in libversion()[0].split(".")[:2]) < (2, 10)
