"""`schemas/`: committed is what is generated, documents are valid, kept messages are still read, types have readers."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from tests.builders import NOON
from tests.contracts.keep_examples import all_facets, facets_of, kept
from tests.contracts.test_topics import ROUTES
from typer.testing import CliRunner

import lostwax
from lostwax.cli import application
from lostwax.contracts import catalogue, topics
from lostwax.contracts.catalogue import EventType
from lostwax.contracts.topics import Topic
from lostwax.local.places import PROJECT
from lostwax.schemas import folder
from lostwax.schemas.events import event_schema
from lostwax.schemas.openapi import SERVICES

DOCUMENTS = {path: json.loads(text) for path, text in folder.documents().items()}
ASYNCAPI = DOCUMENTS["asyncapi.json"]
ASYNCAPI_SCHEMA = json.loads((Path(__file__).parent / "asyncapi-3.0.0.schema.json").read_text())
EVENTS = {name: DOCUMENTS[f"events/{name}.json"] for name in (t.name for t in catalogue.TYPES)}
EXAMPLES = [path for type_ in catalogue.TYPES for path in kept(type_.name)]


# Committed is what is generated.


def test_what_is_committed_is_what_is_generated() -> None:
    assert folder.differences() == [], "run ./lostwax schemas and commit what it changed"


def test_a_difference_is_seen_and_mended(tmp_path: Path) -> None:
    there = tmp_path / "schemas"
    shutil.copytree(folder.FOLDER, there)
    examples = sorted(p.name for p in there.glob("examples/**/*"))
    assert folder.differences(there) == []
    (there / "asyncapi.json").write_text("{}\n")
    (there / "openapi/mes.json").unlink()
    (there / "events/orders.forgotten.v1.json").write_text("{}\n")
    assert folder.differences(there) == [
        "asyncapi.json: not as generated",
        "events/orders.forgotten.v1.json: nothing generates it",
        "openapi/mes.json: missing",
    ]
    folder.write(there)
    assert folder.differences(there) == []
    assert sorted(p.name for p in there.glob("examples/**/*")) == examples


def test_the_same_contracts_give_the_same_bytes_in_every_process() -> None:
    program = (
        "import hashlib; from lostwax.schemas import folder;"
        "print(hashlib.sha256(repr(sorted(folder.documents().items())).encode()).hexdigest())"
    )
    digests = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_indentation_of_docstrings_and_order_of_fields_do_not_show() -> None:
    """Python 3.13 takes the indentation of docstrings away, 3.11 leaves it."""
    old = {
        "description": "One.\n\n    Two.\n    ",
        "required": ["b", "a"],
        "properties": {"required": {"enum": ["b", "a"]}},
    }
    new = {"required": ["a", "b"], "description": "One.\n\nTwo.\n", "properties": {"required": {"enum": ["b", "a"]}}}
    assert folder.text_of(old) == folder.text_of(new)
    assert b"One. Two." in folder.text_of(new)
    assert folder.text_of({"enum": ["b", "a"]}) != folder.text_of({"enum": ["a", "b"]})


def test_the_command_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    run = CliRunner().invoke(application(), ["schemas", "--check"])
    assert run.exit_code == 0, run.output
    monkeypatch.setattr(folder, "differences", lambda: ["asyncapi.json: missing"])
    run = CliRunner().invoke(application(), ["schemas", "--check"])
    assert run.exit_code == 1
    assert "schemas/asyncapi.json: missing; run ./lostwax schemas" in run.output
    monkeypatch.setattr(folder, "differences", list)
    monkeypatch.setattr(folder, "bases", lambda: ["HEAD"])
    monkeypatch.setattr(folder, "broken_since", lambda base, today: ["orders.command.v1: $.a: removed"])
    run = CliRunner().invoke(application(), ["schemas", "--check"])
    assert run.exit_code == 1
    assert "breaks within one version: orders.command.v1: $.a: removed" in run.output


# Documents are what they say they are.


def errors_of(path: str, document: Any) -> list[str]:
    """What is wrong with a document by the rules of its own kind."""
    if path == "asyncapi.json":
        return [e.message for e in Draft7Validator(ASYNCAPI_SCHEMA).iter_errors(document)]
    if path.startswith("openapi/"):
        return [str(e) for e in OpenAPIV31SpecValidator(document).iter_errors()]
    return [e.message for e in Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(document)]


@pytest.mark.parametrize("path", DOCUMENTS)
def test_a_document_is_valid(path: str) -> None:
    assert errors_of(path, DOCUMENTS[path]) == []


@pytest.mark.parametrize(
    ("path", "seed"),
    [
        ("asyncapi.json", {"operations": {"x": {"action": "shout", "channel": {"$ref": "#/channels/x"}}}}),
        ("asyncapi.json", {"channels": {"x": {"bindings": {"kafka": {"partitions": "8", "bindingVersion": "0.5.0"}}}}}),
        ("openapi/orders.json", {"paths": {"/v1/orders/{order_id}": {"get": {"responses": {}}}}}),
        ("openapi/pricing.json", {"info": {"title": "without a version"}}),
        ("events/orders.command.v1.json", {"type": "text"}),
    ],
)
def test_a_document_that_is_not_valid_is_seen(path: str, seed: dict[str, Any]) -> None:
    assert errors_of(path, {**DOCUMENTS[path], **seed}) != []


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref" and isinstance(inner, str):
                yield inner
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def dangling(path: str, document: Any, present: Mapping[str, Any]) -> list[str]:
    """References of a document that lead nowhere."""
    found = []
    for reference in references(document):
        target, _, pointer = reference.partition("#")
        at: Any = document if not target else present.get(os.path.normpath(Path(path).parent / target))
        for step in filter(None, pointer.split("/")):
            at = at.get(step) if isinstance(at, dict) else None
        if at is None:
            found.append(reference)
    return found


@pytest.mark.parametrize("path", DOCUMENTS)
def test_every_reference_leads_somewhere(path: str) -> None:
    assert dangling(path, DOCUMENTS[path], DOCUMENTS) == []


def test_a_reference_that_leads_nowhere_is_seen() -> None:
    broken = {"a": {"$ref": "#/b"}, "c": [{"$ref": "./events/orders.none.v1.json"}, {"$ref": "#/a"}]}
    assert dangling("asyncapi.json", broken, DOCUMENTS) == ["#/b", "./events/orders.none.v1.json"]


@pytest.mark.parametrize("topic", topics.ALL, ids=lambda t: t.name)
def test_asyncapi_has_each_topic_with_its_senders_and_receivers(topic: Topic) -> None:
    channel = ASYNCAPI["channels"][topic.name]
    assert channel["address"] == topic.name
    assert set(channel["messages"]) == {t.name for t in catalogue.TYPES if topic in t.topics}
    assert channel["bindings"]["kafka"]["partitions"] == topic.partitions
    by_action: dict[str, set[str]] = {"send": set(), "receive": set()}
    for operation in ASYNCAPI["operations"].values():
        if operation["channel"]["$ref"] == f"#/channels/{topic.name}":
            by_action[operation["action"]].add(operation["tags"][0]["name"])
    assert by_action == {"send": set(topic.written_by), "receive": set(topic.read_by)}


def test_asyncapi_has_nothing_else() -> None:
    assert set(ASYNCAPI["channels"]) == {topic.name for topic in topics.ALL}
    assert len(ASYNCAPI["operations"]) == sum(len(t.written_by) + len(t.read_by) for t in topics.ALL)
    assert set(ASYNCAPI["components"]["messages"]) == set(EVENTS)


@pytest.mark.parametrize("type_name", EVENTS)
def test_headers_are_those_that_producers_send(type_name: str) -> None:
    schema = {"components": ASYNCAPI["components"], **ASYNCAPI["components"]["messages"][type_name]["headers"]}
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    traceparent = "00-" + "1" * 32 + "-" + "2" * 16 + "-00"
    whole = catalogue.cloud_headers("id-1", type_name, "mes", NOON, traceparent)
    validator.validate(whole)
    validator.validate(catalogue.cloud_headers("id-1", type_name, "mes", NOON, None))
    described = ASYNCAPI["components"]["schemas"]["CloudEventsHeaders"]["properties"]
    assert set(described) == set(whole)
    for wrong in (
        {"ce_type": "orders.none.v1"},
        {"ce_specversion": "0.3"},
        {"ce_time": "yesterday"},
        {"ce_id": ""},
        {"traceparent": "none"},
    ):
        assert not validator.is_valid({**whole, **wrong}), wrong
    assert not validator.is_valid({k: v for k, v in whole.items() if k != "ce_source"})


def test_every_service_has_its_openapi() -> None:
    assert {path for path in DOCUMENTS if path.startswith("openapi/")} == {f"openapi/{s}.json" for s in SERVICES}
    assert set(SERVICES) == set(ROUTES)


# What producers once wrote is still read.


def troubles(type_name: str, text: bytes) -> list[str]:
    """Why today's readers, or today's schema, do not take a message."""
    said = []
    try:
        catalogue.decode(type_name, text)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        said.append(f"decoding: {error}")
    validator = Draft202012Validator(EVENTS[type_name], format_checker=Draft202012Validator.FORMAT_CHECKER)
    return said + [f"schema: {e.json_path}: {e.message}" for e in validator.iter_errors(json.loads(text))]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_kept_example_is_still_read(path: Path) -> None:
    assert troubles(path.parent.name, path.read_bytes()) == []


def test_an_example_that_cannot_be_read_is_seen() -> None:
    path = kept("orders.outcome.v1")[0]
    whole = json.loads(path.read_bytes())
    for wrong in ({"version": "3"}, {"status": "MELTED"}, {"order_id": "PO-1"}, {"accepted": None}):
        said = troubles(path.parent.name, json.dumps({**whole, **wrong}).encode())
        assert [s.partition(":")[0] for s in said] == ["decoding", "schema"], said
    assert troubles(path.parent.name, b"{}") != []


def test_kept_examples_are_of_types_that_exist() -> None:
    folders = {path.name for path in folder.EXAMPLES.iterdir()}
    assert folders == set(EVENTS), "every type has examples, and there are none of any other"


def unshown(schema: Mapping[str, Any], messages: Iterable[Any]) -> set[str]:
    """Fields, tags and members of enums that none of these messages has."""
    shown: set[str] = set()
    for message in messages:
        shown |= facets_of(schema, message)
    return all_facets(schema) - shown


@pytest.mark.parametrize("type_", catalogue.TYPES, ids=lambda t: t.name)
def test_kept_examples_show_every_field_and_every_choice(type_: EventType) -> None:
    messages = [json.loads(path.read_bytes()) for path in kept(type_.name)]
    assert unshown(event_schema(type_), messages) == set(), "run python -m tests.contracts.keep_examples"


def test_a_field_and_a_choice_that_no_example_shows_are_seen() -> None:
    type_ = next(t for t in catalogue.TYPES if t.name == "orders.command.v1")
    messages = [json.loads(path.read_bytes()) for path in kept(type_.name)]
    fewer = [m for m in messages if m["action"]["type"] != "cancel"]
    assert {"Cancel.type", "Cancel.reason", "Cancel.type=cancel"} <= unshown(event_schema(type_), fewer)
    for message in messages:
        message["actor"]["account"] = None
    assert unshown(event_schema(type_), messages) == {"Actor.account"}


# Messages are values, and let a field be added.


def structs_in(type_: Any) -> set[type[msgspec.Struct]]:
    """Every struct that a type is made of."""
    found: set[type[msgspec.Struct]] = set()

    def walk(info: Any) -> None:
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in found:
                return
            found.add(info.cls)
        if isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field):
            for name in info.__struct_fields__:
                walk(getattr(info, name))
        elif isinstance(info, tuple | list):
            for inner in info:
                walk(inner)

    walk(msgspec.inspect.type_info(type_))
    return found


def mutable(type_: Any) -> list[str]:
    return sorted(s.__name__ for s in structs_in(type_) if not s.__struct_config__.frozen)


def closed(type_: Any) -> list[str]:
    return sorted(s.__name__ for s in structs_in(type_) if s.__struct_config__.forbid_unknown_fields)


class Loose(msgspec.Struct):
    a: int


class Shut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    a: int


class Nest(msgspec.Struct, frozen=True):
    deep: dict[str, tuple[Loose | None, ...]] | None
    other: Shut


@pytest.mark.parametrize("type_", catalogue.TYPES, ids=lambda t: t.name)
def test_every_struct_of_a_message_is_frozen(type_: EventType) -> None:
    assert type_.struct in structs_in(type_.struct)
    assert mutable(type_.struct) == []


@pytest.mark.parametrize("type_", catalogue.TYPES, ids=lambda t: t.name)
def test_no_struct_of_a_message_refuses_what_it_does_not_know(type_: EventType) -> None:
    """Otherwise even an optional field more would break old readers."""
    assert closed(type_.struct) == []


def test_a_struct_that_is_not_frozen_or_refuses_is_seen_at_any_depth() -> None:
    assert structs_in(Nest) == {Nest, Loose, Shut}
    assert mutable(Nest) == ["Loose"]
    assert closed(Nest) == ["Shut"]


# Every published type has a reader.

UNREAD: Mapping[str, str] = {}
"""Types that nobody reads yet, and why they are published all the same."""


DOORS = ("partner_api", "shop", "crm")
"""Write and read what channel/ does."""


def sources(service: str) -> str:
    folders = (service, "channel") if service in DOORS else (service,)
    files = [p for f in folders for p in sorted((Path(lostwax.__file__).parent / f).rglob("*.py"))]
    return "\n".join(p.read_text() for p in files)


SOURCES = {service: sources(service) for service in ROUTES}


def without_reader(
    types: Iterable[EventType],
    routes: Mapping[str, Iterable[Topic]],
    code: Mapping[str, str],
    unread: Mapping[str, str],
) -> list[str]:
    """Types on a topic that no service routes; or that share a topic and are named nowhere by who routes it."""
    types, found = list(types), []
    for type_ in types:
        struct = type_.struct.__name__
        for topic in type_.topics:
            alone = sum(topic in other.topics for other in types) == 1
            readers = [
                s for s, routed in routes.items() if topic in routed and (alone or re.search(rf"\b{struct}\b", code[s]))
            ]
            if not readers and type_.name not in unread:
                found.append(f"{type_.name} on {topic.name}: nobody reads it")
            if readers and type_.name in unread:
                found.append(f"{type_.name} on {topic.name}: {', '.join(readers)} reads it after all")
    return found


def without_writer(types: Iterable[EventType], code: Mapping[str, str]) -> list[str]:
    """Types that no service which writes their topic ever makes."""
    return [
        f"{type_.name} on {topic.name}: nobody writes it"
        for type_ in types
        for topic in type_.topics
        if not any(re.search(rf"\b{type_.struct.__name__}\(", code[s]) for s in topic.written_by)
    ]


def test_every_type_has_a_reader_or_a_reason() -> None:
    assert without_reader(catalogue.TYPES, ROUTES, SOURCES, UNREAD) == []
    assert set(UNREAD) <= set(EVENTS)
    assert all(reason.strip() for reason in UNREAD.values())


def test_every_type_has_a_writer() -> None:
    assert without_writer(catalogue.TYPES, SOURCES) == []


def test_a_type_without_reader_or_writer_is_seen() -> None:
    nobodys = Topic("orders.nobodys", ("orders",), ("mes",))
    new = EventType("orders.loose.v1", Loose, (nobodys,))
    assert without_reader([new], ROUTES, SOURCES, {}) == ["orders.loose.v1 on orders.nobodys: nobody reads it"]
    assert without_reader([new], ROUTES, SOURCES, {new.name: "the warehouse will, from March on"}) == []
    shared = EventType("orders.loose.v1", Loose, (topics.ORDER_CHANGES,))
    assert without_reader([*catalogue.TYPES, shared], ROUTES, SOURCES, {}) == [
        "orders.order_changed.v1 on orders.changes: nobody reads it",  # its readers take whatever comes there for it
        "orders.loose.v1 on orders.changes: nobody reads it",
    ]
    assert without_reader(catalogue.TYPES, ROUTES, SOURCES, {"orders.outcome.v1": "once true"}) == [
        "orders.outcome.v1 on orders.outcomes: partner_api, shop, mes, crm reads it after all"
    ]
    assert without_writer([new], SOURCES) == ["orders.loose.v1 on orders.nobodys: nobody writes it"]


def test_the_how_to_names_the_commands() -> None:
    paper = (PROJECT / "docs/how-to/add-an-event.md").read_text()
    for command in ("./lostwax schemas", "tests.contracts.keep_examples"):
        assert command in paper
