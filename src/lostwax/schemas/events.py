"""JSON Schema 2020-12 of the message types."""

from typing import Any

import msgspec

from lostwax.contracts.catalogue import EventType

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def event_schema(type_: EventType) -> dict[str, Any]:
    """The schema of one message type, complete in itself."""
    (root,), components = msgspec.json.schema_components([type_.struct], ref_template="#/$defs/{name}")
    return {"$schema": DIALECT, "$id": f"urn:lostwax:{type_.name}", "title": type_.name, "$defs": components, **root}
