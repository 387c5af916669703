"""The folder `schemas/`: what is generated into it, what stands there, and what git remembers of it."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lostwax.contracts import catalogue, topics
from lostwax.local.places import PROJECT
from lostwax.schemas import openapi
from lostwax.schemas.asyncapi import asyncapi
from lostwax.schemas.compatibility import breaking_changes
from lostwax.schemas.events import event_schema
from lostwax.schemas.http_compatibility import broken_operations

FOLDER = PROJECT / "schemas"
EXAMPLES = FOLDER / "examples"

RETIRED: Mapping[str, str] = {}
"""Types that were once published, are gone from the catalogue, and why no message of theirs can still be read."""


CALLED = ("partner_api", "orders")
"""Services whose HTTP API is called by programs that are not renewed together with them: partners' own, and the other
services. The rest serve their own pages."""

RETIRED_OPERATIONS: Mapping[str, Mapping[str, str]] = {}
"""By service: operations that are gone, as `GET /v1/orders`, and why nobody calls them any more."""


def documents() -> dict[str, bytes]:
    """Every generated file by its path in the folder. The same contracts give the same bytes, on any Python."""
    made: dict[str, Any] = {f"events/{t.name}.json": event_schema(t) for t in catalogue.TYPES}
    made["asyncapi.json"] = asyncapi(topics.ALL, catalogue.TYPES)
    made |= {f"openapi/{service}.json": openapi.openapi(service) for service in openapi.SERVICES}
    return {path: text_of(document) for path, document in sorted(made.items())}


def text_of(document: Any) -> bytes:
    """Canonical JSON of a document: sorted keys, one line for each value, a newline at the end."""
    return (json.dumps(canonical(document), indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def canonical(value: Any) -> Any:
    """A document without what depends on the order of fields, or on the Python that read the docstrings: 3.13 takes
    their indentation away, 3.11 leaves it."""
    if isinstance(value, list):
        return [canonical(v) for v in value]
    if not isinstance(value, dict):
        return value
    clean = {k: canonical(v) for k, v in value.items()}
    for key in ("description", "summary"):
        if isinstance(clean.get(key), str):
            clean[key] = " ".join(clean[key].split())
    if isinstance(clean.get("required"), list):
        clean["required"] = sorted(clean["required"])
    return clean


def write(folder: Path = FOLDER) -> None:
    """Make the folder's generated files what they should be. Leaves the kept examples alone."""
    wanted = documents()
    for path in _generated_in(folder) - set(wanted):
        (folder / path).unlink()
    for path, text in wanted.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text)


def differences(folder: Path = FOLDER) -> list[str]:
    """What is not as it would be generated, a sentence for each file."""
    wanted, present = documents(), _generated_in(folder)
    said = [f"{path}: nothing generates it" for path in present - set(wanted)]
    said += [f"{path}: missing" for path in set(wanted) - present]
    said += [
        f"{path}: not as generated"
        for path, text in wanted.items()
        if path in present and (folder / path).read_bytes() != text
    ]
    return sorted(said)


def _generated_in(folder: Path) -> set[str]:
    paths = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return {path for path in paths if not path.startswith("examples/") and path != "README.md"}


def bases(project: Path = PROJECT) -> list[str]:
    """The commits that a change of the contracts is judged against, newest first: HEAD, where this branch left the
    main one, and the last release. None where there is no git history. Raises OSError when git cannot read it."""
    if not any((folder / ".git").exists() for folder in (project, *project.parents)):
        return []
    if _git(project, "rev-parse", "--git-dir") is None:
        raise OSError(f"git does not read the history of {project}; run `git status` there to see why")
    found = [_git(project, "rev-parse", "--verify", "--quiet", "HEAD")]
    found += [_git(project, "merge-base", "HEAD", main) for main in ("main", "origin/main")]
    release = _git(project, "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*")
    if release is not None:
        found.append(_git(project, "rev-parse", f"{release.strip()}^{{commit}}"))
    return list(dict.fromkeys(commit.strip() for commit in found if commit is not None))


def committed(base: str, under: str, project: Path = PROJECT) -> dict[str, bytes]:
    """The files that a commit has under `schemas/<under>`, by their path in `schemas/`."""
    listed = _git(project, "ls-tree", "-r", "-z", "--name-only", base, "--", f"schemas/{under}") or ""
    files = {}
    for path in filter(None, listed.split("\0")):
        done = subprocess.run(
            ["git", "show", f"{base}:./{path}"], cwd=project, capture_output=True, check=True, timeout=60
        )
        files[path.removeprefix("schemas/")] = done.stdout
    return files


def broken_since(
    base: str, today: Mapping[str, bytes], retired: Mapping[str, str] = RETIRED, project: Path = PROJECT
) -> list[str]:
    """What the message types of `today` break of those that a commit has. `retired` names types that may be gone."""
    said = []
    for path, text in committed(base, "events", project).items():
        name = path.removeprefix("events/").removesuffix(".json")
        if path in today:
            said += [f"{name}: {change}" for change in breaking_changes(json.loads(text), json.loads(today[path]))]
        elif name not in retired:
            said.append(f"{name}: gone, though its messages may still be on their way")
    return said


def calls_broken_since(
    base: str,
    today: Mapping[str, bytes],
    retired: Mapping[str, Mapping[str, str]] = RETIRED_OPERATIONS,
    project: Path = PROJECT,
) -> list[str]:
    """What the HTTP APIs of `today` break of those that a commit has. `retired` names operations that may be gone."""
    said = []
    for path, text in committed(base, "openapi", project).items():
        service = path.removeprefix("openapi/").removesuffix(".json")
        if service in CALLED:
            old, new = json.loads(text), json.loads(today[path])
            said += [f"{service}: {change}" for change in broken_operations(old, new, retired.get(service, {}))]
    return said


def examples_lost_since(base: str, retired: Mapping[str, str] = RETIRED, project: Path = PROJECT) -> list[str]:
    """Kept examples that a commit has and that are gone or different now, but for those of retired types."""
    said = []
    for path, text in committed(base, "examples", project).items():
        now = project / "schemas" / path
        if path.split("/")[1] not in retired and (not now.exists() or now.read_bytes() != text):
            said.append(f"{path}: {'changed' if now.exists() else 'gone'}")
    return said


def _git(project: Path, *arguments: str) -> str | None:
    """What git prints, or None when it fails."""
    done = subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout if done.returncode == 0 else None
