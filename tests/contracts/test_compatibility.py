"""Which changes of a schema break somebody, and that none has been made since the last commit, main or release."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lostwax.contracts import catalogue
from lostwax.local.places import PROJECT
from lostwax.schemas import folder
from lostwax.schemas.compatibility import breaking_changes

A, B = {"type": "string"}, {"type": "integer"}


def struct(required: str = "", **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required.split()}


def variant(tag: str, **properties: Any) -> dict[str, Any]:
    return struct(" ".join(["type", *properties]), type={"enum": [tag]}, **properties)


def either(*options: Any, **more: Any) -> dict[str, Any]:
    return {"anyOf": list(options), **more}


def by_tag(*options: Any) -> dict[str, Any]:
    return either(*options, discriminator={"propertyName": "type", "mapping": {}})


def ref(name: str, **more: Any) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}", **more}


NULL = {"type": "null"}
TREE = {"$defs": {"Node": struct("", child=either(ref("Node"), NULL))}, **ref("Node")}
THORNY = {"$defs": {"Node": struct("", child=either(ref("Node"), NULL), weight=B)}, **ref("Node")}

HARMLESS = {
    "nothing": (struct("a", a=A), struct("a", a=A)),
    "an optional field more": (struct("a", a=A), struct("a", a=A, b=B)),
    "an optional field more, with a default": (struct("a", a=A), struct("a", a=A, b=either(B, NULL, default=None))),
    "an optional field more, deep inside": (
        struct("a", a={"type": "array", "items": struct("b", b=B)}),
        struct("a", a={"type": "array", "items": struct("b", b=B, c=A)}),
    ),
    "an optional field more in a member of a union": (
        by_tag(variant("x")),
        by_tag({**variant("x"), **struct("type", type={"enum": ["x"]}, a=A)}),
    ),
    "an optional field more behind a reference": (
        {"$defs": {"T": struct("a", a=A)}, **ref("T")},
        {"$defs": {"T": struct("a", a=A, b=B)}, **ref("T")},
    ),
    "an optional field more in a recursive type": (TREE, THORNY),
    "title and description": ({**A, "title": "x", "description": "y"}, {**A, "title": "u", "description": "v"}),
    "fields in another order": (struct("a b", a=A, b=B), struct("b a", b=B, a=A)),
    "a definition renamed": ({"$defs": {"T": A}, **ref("T")}, {"$defs": {"U": A}, **ref("U")}),
    "a definition written out": ({"$defs": {"T": A}, **ref("T")}, A),
    "members of an enum in another order": ({"enum": ["a", "b"]}, {"enum": ["b", "a"]}),
    "members of a union in another order": (either(A, NULL), either(NULL, A)),
    "an enum of one for a constant": ({"enum": ["a"]}, {"const": "a"}),
}

BREAKING = {
    # as in Nakadi's table
    "another id": ({"$id": "urn:a"}, {"$id": "urn:b"}, "became that of urn:b"),
    "another type": (A, B, "$: the type was 'string' and is 'integer'"),
    "a type where any was allowed": ({}, A, "$: the type was not given"),
    "any type where one was": (A, {}, "and is not given"),
    "a type more": ({"type": ["object"]}, {"type": ["object", "array"]}, "$: array is new"),
    "a field removed": (struct("a", a=A), struct(), "$.a: removed"),
    "an optional field removed": (struct("", a=A), struct(), "$.a: removed"),
    "a field renamed": (struct("", a=A), struct("", b=A), "$.a: removed"),
    "a field of another type": (struct("", a=A), struct("", a=B), "$.a: the type was"),
    "a required field more": (struct("a", a=A), struct("a b", a=A, b=B), "$.b: new and required"),
    "a field that became required": (struct("", a=A), struct("a", a=A), "$.a: required"),
    "a field that became optional": (struct("a", a=A), struct("", a=A), "$.a: not required any more"),
    "required without being described": (struct(), struct("a"), "$.a: new and required"),
    "a member of an enum more": ({"enum": ["a"]}, {"enum": ["a", "b"]}, "$: 'b' is new"),
    "a member of an enum less": ({"enum": ["a", "b"]}, {"enum": ["a"]}, "$: 'b' is not allowed any more"),
    "an enum where any was allowed": (A, {**A, "enum": ["a"]}, "$: only ['a'] is allowed now"),
    "anything where an enum was": ({**A, "enum": ["a"]}, A, "more than ['a'] is allowed now"),
    "another constant": ({"const": 1}, {"const": 2}, "$: 1 is not allowed any more"),
    "a member of a union of another type": (either(A), either(B), "$: string is not allowed any more"),
    "a member of a union more": (either(A, NULL), either(A, B, NULL), "$: integer is new"),
    "two members of a kind for one": (either(A), either(A, A), "$: string' is new"),
    "another composition": ({"anyOf": [A]}, {"allOf": [A]}, "$: anything is new"),
    "a part of a composition changed": ({"allOf": [A]}, {"allOf": [B]}, "$[0]: the type was"),
    "unknown fields refused": (struct("", a=A), {**struct("", a=A), "additionalProperties": False}, "additional"),
    "fewer values of a map allowed": (
        {"additionalProperties": True},
        {"additionalProperties": A},
        "additionalProperties was True",
    ),
    "values of a map of another type": ({"additionalProperties": A}, {"additionalProperties": B}, "${}: the type was"),
    "keys of a map of another pattern": (
        {"propertyNames": {"pattern": "^a"}},
        {"propertyNames": {"pattern": "^b"}},
        "${key}: pattern was '^a'",
    ),
    "items of another type": ({"items": A}, {"items": B}, "$[]: the type was"),
    "items of any type": ({"items": A}, {}, "items was"),
    "a tuple of more parts": ({"prefixItems": [A]}, {"prefixItems": [A, A]}, "prefixItems had 1 parts and has 2"),
    "a part of a tuple of another type": ({"prefixItems": [A, A]}, {"prefixItems": [A, B]}, "$[1]: the type was"),
    "unique items no more": ({"uniqueItems": True}, {}, "uniqueItems was True and is not given"),
    "a dependency changed": ({"dependentRequired": {"a": ["b"]}}, {"dependentRequired": {"b": ["a"]}}, "dependent"),
    "another type behind a reference": (
        {"$defs": {"T": A}, "items": ref("T")},
        {"$defs": {"T": B}, "items": ref("T")},
        "$[]: the type was",
    ),
    # what Nakadi's does not have, and ours need
    "narrowed from above": ({**B, "maximum": 9}, {**B, "maximum": 8}, "old messages may not fit"),
    "widened from above": ({**B, "maximum": 9}, {**B, "maximum": 10}, "old readers refuse what is new"),
    "narrowed from below": ({**B, "minimum": 1}, {**B, "minimum": 2}, "old messages may not fit"),
    "widened from below": ({**B, "minimum": 1}, {**B, "minimum": 0}, "old readers refuse what is new"),
    "a limit where none was": (A, {**A, "maxLength": 60}, "maxLength was not given and is 60: old messages"),
    "no limit where one was": ({**A, "maxLength": 60}, A, "maxLength was 60 and is not given: old readers"),
    "another pattern": ({**A, "pattern": "a"}, {**A, "pattern": "b"}, "pattern was 'a'"),
    "another format": ({**A, "format": "uuid"}, {**A, "format": "decimal"}, "format was 'uuid'"),
    "another default": ({**B, "default": 1}, {**B, "default": 2}, "old messages without it would say something else"),
    "another default beside null": (either(B, NULL, default=None), either(B, NULL, default=0), "default was None"),
    "null where a value was": (A, either(A, NULL), "$: null is new"),
    "no null where it was allowed": (either(A, NULL), A, "$: null is not allowed any more"),
    "a tag renamed": (
        by_tag(variant("x"), variant("y")),
        by_tag(variant("z"), variant("y")),
        "$: type=x is not allowed",
    ),
    "a variant of another tag field renamed": (
        either(struct("kind", kind={"enum": ["x"]}), discriminator={"propertyName": "kind"}),
        either(struct("kind", kind={"enum": ["z"]}), discriminator={"propertyName": "kind"}),
        "$: kind=x is not allowed",
    ),
    "a variant more": (by_tag(variant("x")), by_tag(variant("x"), variant("y")), "$: type=y is new"),
    "the tag of a lone struct renamed": (variant("x"), variant("z"), "$.type: 'x' is not allowed any more"),
    "another tag field": (by_tag(variant("x")), by_tag(struct("kind", kind={"enum": ["x"]})), "type=x is not allowed"),
    "a field of a variant changed": (by_tag(variant("x", a=A)), by_tag(variant("x", a=B)), "$(type=x).a: the type was"),
    "a field more where unknown ones are refused": (
        {**struct("a", a=A), "additionalProperties": False},
        {**struct("a", a=A, b=B), "additionalProperties": False},
        "$.b: new, and old readers refuse fields",
    ),
    "a field of a recursive type changed": (
        THORNY,
        {"$defs": {"Node": struct("", child=either(ref("Node"), NULL), weight=A)}, **ref("Node")},
        "$.weight: the type was",
    ),
    "a default beside a reference": (
        {"$defs": {"T": A}, "items": ref("T", default="a")},
        {"$defs": {"T": A}, "items": ref("T", default="b")},
        "$[]: default was 'a'",
    ),
    "a keyword that this does not know": ({"contains": A}, {"contains": B}, "contains was"),
    "a reference where this does not look": ({"contains": ref("T")}, {"contains": ref("T")}, "cannot be compared here"),
}


@pytest.mark.parametrize(("old", "new"), HARMLESS.values(), ids=HARMLESS)
def test_harmless(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert breaking_changes(old, new) == []


@pytest.mark.parametrize(("old", "new", "said"), BREAKING.values(), ids=BREAKING)
def test_breaking(old: dict[str, Any], new: dict[str, Any], said: str) -> None:
    changes = breaking_changes(old, new)
    assert any(said in change for change in changes), changes
    assert breaking_changes(old, old) == [] or old == new
    assert breaking_changes(new, new) == [] or old == new


def test_taking_back_an_optional_field_breaks() -> None:
    """What was harmless to add is not harmless to take away again."""
    for old, new in (HARMLESS["an optional field more"], HARMLESS["an optional field more, deep inside"]):
        assert breaking_changes(new, old) != []


def test_nothing_has_been_broken_since_the_last_commit_main_or_release() -> None:
    today = folder.documents()
    for base in folder.bases():
        assert folder.broken_since(base, today) == [], "make a v2 beside it: docs/how-to/add-an-event.md"


def test_types_that_are_retired_are_gone_for_a_reason() -> None:
    assert all(reason.strip() for reason in folder.RETIRED.values())
    assert not any(catalogue.knows(name) for name in folder.RETIRED)


# The fence itself can fail: the same on a repository of its own, with violations in it.


def git(project: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=project, check=True, capture_output=True, timeout=60)


def commit(project: Path, files: dict[str, bytes], message: str = "As it is") -> None:
    for path, text in files.items():
        (project / "schemas" / path).parent.mkdir(parents=True, exist_ok=True)
        (project / "schemas" / path).write_bytes(text)
    git(project, "add", "-A")
    git(project, "commit", "-m", message)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository whose only commit has today's schemas."""
    git(tmp_path, "init", "-b", "main")
    commit(tmp_path, folder.documents())
    return tmp_path


COMMAND = "events/orders.command.v1.json"


def changed(**properties: Any) -> dict[str, bytes]:
    """Today's documents with other properties of a command."""
    documents = folder.documents()
    schema = json.loads(documents[COMMAND])
    for name, value in properties.items():
        if value is None:
            del schema["$defs"]["Command"]["properties"][name]
        else:
            schema["$defs"]["Command"]["properties"][name] = value
    return {**documents, COMMAND: folder.text_of(schema)}


def test_the_fence_sees_a_break_that_is_not_committed_yet(repository: Path) -> None:
    (head,) = folder.bases(repository)
    assert folder.broken_since(head, folder.documents(), project=repository) == []
    assert folder.broken_since(head, changed(added={"type": "string"}), project=repository) == []
    said = folder.broken_since(head, changed(seen_version={"type": "string"}), project=repository)
    assert said == ["orders.command.v1: $.seen_version: the type was 'integer' and is 'string'"]


def test_the_fence_sees_a_break_that_is_committed_on_a_branch(repository: Path) -> None:
    git(repository, "checkout", "-b", "feature")
    broken = changed(seen_version=None)
    commit(repository, broken)
    head, main = folder.bases(repository)
    assert folder.broken_since(head, broken, project=repository) == []
    assert folder.broken_since(main, broken, project=repository) == [
        "orders.command.v1: $.seen_version: removed, but old readers may read it"
    ]


def test_the_fence_sees_a_break_since_the_last_release(repository: Path) -> None:
    git(repository, "tag", "-a", "v1.0.0", "-m", "First")
    broken = changed(seen_version={"type": "string"})
    commit(repository, broken)
    _, release = folder.bases(repository)
    assert folder.broken_since(release, broken, project=repository) != []


def test_the_fence_sees_a_type_that_is_gone(repository: Path) -> None:
    (head,) = folder.bases(repository)
    today = {path: text for path, text in folder.documents().items() if path != COMMAND}
    assert folder.broken_since(head, today, project=repository) == [
        "orders.command.v1: gone, though its messages may still be on their way"
    ]
    retired = {"orders.command.v1": "no channel has sent it since 2029, and its topic is empty"}
    assert folder.broken_since(head, today, retired, project=repository) == []


def test_a_new_version_beside_the_old_one_is_fine(repository: Path) -> None:
    (head,) = folder.bases(repository)
    second = changed(seen_version={"type": "string"})[COMMAND]
    today = {**folder.documents(), "events/orders.command.v2.json": second}
    assert folder.broken_since(head, today, project=repository) == []


def test_without_history_everything_is_new(tmp_path: Path) -> None:
    assert folder.bases(tmp_path) == []
    git(tmp_path, "init", "-b", "main")
    assert folder.bases(tmp_path) == []
    commit(tmp_path, {"README.md": b"nothing yet"})
    (head,) = folder.bases(tmp_path)
    assert folder.broken_since(head, folder.documents(), project=tmp_path) == []


def test_history_that_git_cannot_read_is_no_excuse(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: /nowhere\n")
    with pytest.raises(OSError, match="does not read"):
        folder.bases(tmp_path)


def test_kept_examples_are_as_they_were_kept() -> None:
    for base in folder.bases():
        assert folder.examples_lost_since(base) == []


def test_an_example_that_was_changed_or_taken_away_is_seen(repository: Path) -> None:
    names = ("examples/orders.command.v1/a.json", "examples/orders.command.v1/b.json")
    commit(repository, dict.fromkeys(names, b"{}\n"))
    (head,) = folder.bases(repository)
    assert folder.examples_lost_since(head, project=repository) == []
    (repository / "schemas" / names[0]).write_text('{"a": 1}\n')
    (repository / "schemas" / names[1]).unlink()
    assert folder.examples_lost_since(head, project=repository) == [f"{names[0]}: changed", f"{names[1]}: gone"]
    retired = {"orders.command.v1": "no channel has sent it since 2029, and its topic is empty"}
    assert folder.examples_lost_since(head, retired, project=repository) == []


def test_this_project_has_a_history() -> None:
    """Otherwise the comparisons above would compare with nothing, unseen. A released archive has none, rightly."""
    assert bool(folder.bases()) == (PROJECT / ".git").exists()
