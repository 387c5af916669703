"""Which change of a service's HTTP API breaks the programs that call it.

A caller is renewed when its owner pleases, years after us: what it sends must go on being understood, and what it
reads must go on being there. So a request may be asked for less and an answer may tell more, never the other way
round. Errors are left out: a program must bear any of them, and all have one form.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from lostwax.schemas.compatibility import Schema, Side, broken_for

Document = Mapping[str, Any]

_JSON = "application/json"
_METHODS = ("get", "put", "post", "delete", "patch", "head")


def broken_operations(old: Document, new: Document, retired: Mapping[str, str]) -> list[str]:
    """What of the OpenAPI document `new` breaks callers of `old`, a sentence each. `retired` names operations, as
    `GET /v1/orders`, that may be gone."""
    said: list[str] = []
    operations, now = _operations(old), _operations(new)
    for name, operation in operations.items():
        if name in now:
            said += _Operations(old, new).broken(name, operation, now[name])
        elif name not in retired:
            said.append(f"{name}: gone, but programs call it")
    return said


def _operations(document: Document) -> dict[str, Any]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in _METHODS
    }


class _Operations:
    def __init__(self, old: Document, new: Document) -> None:
        self._roots = (old, new)

    def broken(self, name: str, old: Document, new: Document) -> Iterator[str]:
        if old.get("security") != new.get("security"):
            yield f"{name}: let in {old.get('security')} and lets in {new.get('security')}"
        yield from self._parameters(name, old, new)
        yield from self._body(name, old, new)
        yield from self._answers(name, old, new)

    def _parameters(self, name: str, old: Document, new: Document) -> Iterator[str]:
        was = {(p["in"], p["name"].lower()): p for p in old.get("parameters", [])}
        is_ = {(p["in"], p["name"].lower()): p for p in new.get("parameters", [])}
        for key, parameter in was.items():
            at = f"{name}: {parameter['in']} {parameter['name']}"
            if key not in is_:
                yield f"{at}: gone, but programs send it"
            else:
                yield from self._schemas(Side.OLD_MESSAGES, at, parameter["schema"], is_[key]["schema"])
        for key, parameter in is_.items():
            if parameter.get("required") and not was.get(key, {}).get("required"):
                yield f"{name}: {parameter['in']} {parameter['name']}: required, but programs may not send it"

    def _body(self, name: str, old: Document, new: Document) -> Iterator[str]:
        was, is_ = _body_schema(old.get("requestBody")), _body_schema(new.get("requestBody"))
        if was is not None and is_ is not None:
            yield from self._schemas(Side.OLD_MESSAGES, f"{name}: body", was, is_)
        elif was is None and is_ is not None and new["requestBody"].get("required"):
            yield f"{name}: body: required, but programs send none"

    def _answers(self, name: str, old: Document, new: Document) -> Iterator[str]:
        was = {code: answer for code, answer in old["responses"].items() if code < "4"}
        is_ = {code: answer for code, answer in new["responses"].items() if code < "4"}
        for code in sorted(is_.keys() - was.keys()):
            yield f"{name}: {code}: a new answer, which programs do not know"
        for code in sorted(was.keys() - is_.keys()):
            yield f"{name}: {code}: gone, but programs wait for it"
        for code in sorted(was.keys() & is_.keys()):
            before, after = _body_schema(was[code]), _body_schema(is_[code])
            if before is not None and after is not None:
                yield from self._schemas(Side.OLD_READERS, f"{name}: {code}", before, after)
            elif before is not None:
                yield f"{name}: {code}: has no JSON body any more"

    def _schemas(self, side: Side, at: str, old: Schema, new: Schema) -> list[str]:
        return broken_for(side, at, old, new, roots=self._roots)


def _body_schema(holder: Document | None) -> Schema | None:
    content = (holder or {}).get("content", {})
    schema: Schema | None = content.get(_JSON, {}).get("schema")
    return schema
