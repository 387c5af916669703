"""Settings: one frozen struct for each service, read once from the environment at start."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)

PREFIX = "LOSTWAX_"


class SettingsError(Exception):
    """The environment does not make up the settings; the message names every variable and what is wrong with it."""


def read_settings(struct: type[S], environ: Mapping[str, str]) -> S:
    """Read each field `some_name` of `struct` from `LOSTWAX_SOME_NAME`.

    A tuple field is read as comma-separated text. Raises SettingsError that lists everything missing at once.
    """
    raw: dict[str, Any] = {}
    missing: list[str] = []
    for field in msgspec.structs.fields(struct):
        variable = PREFIX + field.name.upper()
        text = environ.get(variable)
        if text is None:
            if field.required:
                missing.append(variable)
            continue
        raw[field.name] = [p for p in text.split(",") if p] if "tuple" in str(field.type) else text
    if missing:
        raise SettingsError(f"set {', '.join(missing)} in the environment (see docs/how-to/run-in-production.md)")
    try:
        return msgspec.convert(raw, struct, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{error}; the variables are named {PREFIX}<FIELD>") from error
