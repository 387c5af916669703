"""Which change of a message's schema breaks somebody.

Two programs must keep working across every change within one version: a new reader of old messages (topics keep them
for weeks, a compacted one for ever) and an old reader of new messages (services are renewed one by one). Therefore
just one kind of change is harmless: an optional field more, and whatever only people read. Zalando's Nakadi draws the
line in nearly the same place; its table of cases is the model of ours.
"""

from collections.abc import Iterator, Mapping
from enum import Flag, auto
from typing import Any

Schema = Mapping[str, Any]


class Side(Flag):
    """Whom a change breaks: who wrote by the old schema and is read by the new one, or who reads by the old one."""

    OLD_MESSAGES = auto()
    OLD_READERS = auto()


BOTH = Side.OLD_MESSAGES | Side.OLD_READERS
Said = Iterator[tuple[Side, str]]

_FOR_PEOPLE = {"$schema", "$id", "$comment", "$defs", "title", "description", "examples", "deprecated", "discriminator"}
_LOWER = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}
_UPPER = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}
_ONE_SCHEMA = ("items", "propertyNames", "additionalProperties")
_MANY_SCHEMAS = ("prefixItems", "allOf")
_HANDLED = {"type", "enum", "const", "properties", "required", "anyOf", "oneOf", *_ONE_SCHEMA, *_MANY_SCHEMAS}
_ABSENT = object()


def breaking_changes(old_schema: Schema, new_schema: Schema) -> list[str]:
    """What of `new_schema` breaks readers or messages of `old_schema`: a sentence each, with the place; [] if nothing.

    Knows what msgspec generates. What it cannot judge it reports: better a version too many than a reader broken.
    """
    said = broken_for(BOTH, "$", old_schema, new_schema, roots=(old_schema, new_schema))
    if old_schema.get("$id") != new_schema.get("$id"):
        said.insert(0, f"$: the schema of {old_schema.get('$id')} became that of {new_schema.get('$id')}")
    return said


def broken_for(side: Side, at: str, old: Schema, new: Schema, *, roots: tuple[Schema, Schema]) -> list[str]:
    """What breaks those of one `side`, or of both. `at`: what the place is called. `roots`: the documents that the
    schemas stand in."""
    compared = _Comparison(*roots).schemas(at, old, new, frozenset())
    return list(dict.fromkeys(text for whom, text in compared if whom & side))


class _Comparison:
    def __init__(self, old_root: Schema, new_root: Schema) -> None:
        self._old, self._new = old_root, new_root

    def schemas(self, at: str, old: Any, new: Any, under: frozenset[tuple[Any, Any]]) -> Said:
        """Compare two schemas at the place `at`. `under`: pairs of references that are being compared already."""
        old, new = _as_dict(old), _as_dict(new)
        pair = (old.get("$ref"), new.get("$ref"))
        if all(pair):
            if pair in under:
                return
            under = under | {pair}
        old, new = _resolved(old, self._old), _resolved(new, self._new)
        if _options(old) is None and _options(new) is None:
            yield from self._plain(at, old, new, under)
        else:
            yield from self._unions(at, old, new, under)

    def _unions(self, at: str, old: Schema, new: Schema, under: frozenset[tuple[Any, Any]]) -> Said:
        was, rest_was = _split(old, self._old)
        is_, rest_is = _split(new, self._new)
        for label in sorted(was.keys() - is_.keys()):
            yield Side.OLD_MESSAGES, f"{at}: {label} is not allowed any more, but old messages have it"
        for label in sorted(is_.keys() - was.keys()):
            yield Side.OLD_READERS, f"{at}: {label} is new, and old readers do not know it"
        for label in sorted(was.keys() & is_.keys()):
            yield from self.schemas(f"{at}({label})", was[label], is_[label], under)
        yield from self._plain(at, rest_was, rest_is, under)

    def _plain(self, at: str, old: Schema, new: Schema, under: frozenset[tuple[Any, Any]]) -> Said:
        was, is_ = old.get("type", _ABSENT), new.get("type", _ABSENT)
        if was != is_:
            yield BOTH, f"{at}: the type was {_shown(was)} and is {_shown(is_)}"
        yield from _enums(at, _members(old), _members(new))
        yield from self._fields(at, old, new, under)
        for keyword in _ONE_SCHEMA:
            yield from self._one(f"{at}{_STEP[keyword]}", keyword, old, new, under)
        for keyword in _MANY_SCHEMAS:
            parts, parts_now = old.get(keyword, []), new.get(keyword, [])
            if len(parts) != len(parts_now):
                yield BOTH, f"{at}: {keyword} had {len(parts)} parts and has {len(parts_now)}"
            for number, (before, after) in enumerate(zip(parts, parts_now, strict=False)):
                yield from self.schemas(f"{at}[{number}]", before, after, under)
        for keyword in sorted((old.keys() | new.keys()) - _HANDLED - _FOR_PEOPLE):
            yield from _keyword(at, keyword, old.get(keyword, _ABSENT), new.get(keyword, _ABSENT))

    def _fields(self, at: str, old: Schema, new: Schema, under: frozenset[tuple[Any, Any]]) -> Said:
        was, is_ = old.get("properties", {}), new.get("properties", {})
        needed, needs = set(old.get("required", [])), set(new.get("required", []))
        for name in sorted(was.keys() - is_.keys()):
            yield Side.OLD_READERS, f"{at}.{name}: removed, but old readers may read it"
            if new.get("additionalProperties", True) is False:
                yield Side.OLD_MESSAGES, f"{at}.{name}: removed, but old messages have it and would be refused"
        for name in sorted(is_.keys() - was.keys() - needs):
            if old.get("additionalProperties", True) is not True:
                yield Side.OLD_READERS, f"{at}.{name}: new, and old readers refuse fields that they do not know"
        for name in sorted(needs - needed):
            new_too = "" if name in was else "new and "
            yield Side.OLD_MESSAGES, f"{at}.{name}: {new_too}required, but old messages may lack it"
        for name in sorted((needed - needs) & is_.keys()):
            yield Side.OLD_READERS, f"{at}.{name}: not required any more, but old readers need it"
        for name in sorted(was.keys() & is_.keys()):
            before, after = _as_dict(was[name]), _as_dict(is_[name])
            if name in needed:  # no old message lacks it, so none can get another default
                before, after = _without(before, "default"), _without(after, "default")
            yield from self.schemas(f"{at}.{name}", before, after, under)

    def _one(self, at: str, keyword: str, old: Schema, new: Schema, under: frozenset[tuple[Any, Any]]) -> Said:
        was, is_ = old.get(keyword, True), new.get(keyword, True)
        if isinstance(was, bool) or isinstance(is_, bool):
            if was != is_:
                side = BOTH
                if keyword == "additionalProperties" and isinstance(was, bool) and isinstance(is_, bool):
                    side = Side.OLD_READERS if is_ else Side.OLD_MESSAGES
                yield side, f"{at}: {keyword} was {_shown(was)} and is {_shown(is_)}"
        else:
            yield from self.schemas(at, was, is_, under)


_STEP = {"items": "[]", "propertyNames": "{key}", "additionalProperties": "{}"}


def _as_dict(schema: Any) -> Schema:
    if isinstance(schema, bool):
        return {} if schema else {"not": {}}
    found: Schema = schema
    return found


def _without(schema: Schema, keyword: str) -> Schema:
    return {k: v for k, v in schema.items() if k != keyword}


def _resolved(schema: Schema, root: Schema) -> Schema:
    """The schema behind a reference, with what stands beside the reference."""
    while "$ref" in schema:
        target: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        schema = {**target, **{k: v for k, v in schema.items() if k != "$ref"}}
    return schema


def _options(schema: Schema) -> list[Any] | None:
    """The members of a union, or None for what is no union."""
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            members: list[Any] = schema[keyword]
            return members
    type_ = schema.get("type")
    if isinstance(type_, list):
        return [{**schema, "type": one} for one in type_]
    return None


def _split(schema: Schema, root: Schema) -> tuple[dict[str, Any], Schema]:
    """Members of a union by what tells them apart, and what is said of all of them. What is no union has one member,
    of which its default is said as of a union."""
    options = _options(schema)
    if options is None:
        options = [{k: v for k, v in schema.items() if k != "default"}]
        rest: Schema = {k: v for k, v in schema.items() if k == "default"}
    elif isinstance(schema.get("type"), list):
        options = [{k: v for k, v in option.items() if k != "default"} for option in options]
        rest = {k: v for k, v in schema.items() if k == "default"}
    else:
        rest = {k: v for k, v in schema.items() if k not in ("anyOf", "oneOf")}
    tag = schema.get("discriminator", {}).get("propertyName", "type")
    labelled: dict[str, Any] = {}
    for option in options:
        label = _label(_resolved(_as_dict(option), root), tag)
        while label in labelled:
            label += "'"
        labelled[label] = option
    return labelled, rest


def _label(option: Schema, tag: str) -> str:
    members = _members(option.get("properties", {}).get(tag, {}))
    if members is not None and len(members) == 1:
        return f"{tag}={members[0]}"
    return str(option.get("type", "enum" if _members(option) is not None else "anything"))


def _members(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    found: list[Any] | None = schema.get("enum")
    return found


def _enums(at: str, old: list[Any] | None, new: list[Any] | None) -> Said:
    if old is None and new is None:
        return
    if old is None:
        yield Side.OLD_MESSAGES, f"{at}: only {_shown(new)} is allowed now, but old messages may have something else"
    elif new is None:
        yield Side.OLD_READERS, f"{at}: more than {_shown(old)} is allowed now, and old readers do not know it"
    else:
        for member in old:
            if member not in new:
                yield Side.OLD_MESSAGES, f"{at}: {member!r} is not allowed any more, but old messages have it"
        for member in new:
            if member not in old:
                yield Side.OLD_READERS, f"{at}: {member!r} is new, and old readers do not know it"


def _keyword(at: str, keyword: str, old: Any, new: Any) -> Said:
    if old != new:
        side, consequence = _consequence(keyword, old, new)
        yield side, f"{at}: {keyword} was {_shown(old)} and is {_shown(new)}: {consequence}"
    elif _mentions_reference(old):
        yield BOTH, f"{at}: {keyword} cannot be compared here"


def _consequence(keyword: str, old: Any, new: Any) -> tuple[Side, str]:
    if keyword in _LOWER | _UPPER:
        narrowed = old is _ABSENT or (new is not _ABSENT and (new > old if keyword in _LOWER else new < old))
        if narrowed:
            return Side.OLD_MESSAGES, "old messages may not fit"
        return Side.OLD_READERS, "old readers refuse what is new"
    if keyword == "default":
        return Side.OLD_MESSAGES, "old messages without it would say something else"
    return BOTH, "old messages, or new ones for old readers, may not fit"


def _mentions_reference(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "$ref" in value or any(_mentions_reference(v) for v in value.values())
    return isinstance(value, list) and any(_mentions_reference(v) for v in value)


def _shown(value: Any) -> str:
    return "not given" if value is _ABSENT else repr(value)
