"""AsyncAPI 3.0: which service sends and receives which message on which topic."""

from collections.abc import Sequence
from typing import Any

from lostwax.contracts.catalogue import EventType
from lostwax.contracts.topics import Topic

BINDING = "0.5.0"
"""Version of AsyncAPI's Kafka bindings."""

HEADERS: dict[str, Any] = {
    "type": "object",
    "description": "CloudEvents 1.0 in Kafka's binary mode, and W3C Trace Context. Every value is UTF-8 text.",
    "properties": {
        "ce_specversion": {"const": "1.0"},
        "ce_id": {"type": "string", "minLength": 1, "description": "the same whenever this message is sent again"},
        "ce_type": {"type": "string", "description": "name of the message type"},
        "ce_source": {"type": "string", "minLength": 1, "description": "the service that sent it"},
        "ce_time": {"type": "string", "format": "date-time"},
        "content-type": {"const": "application/json"},
        "traceparent": {"type": "string", "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
    },
    "required": ["ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "content-type"],
}


def asyncapi(topics: Sequence[Topic], types: Sequence[EventType]) -> dict[str, Any]:
    """The document of all topics. Payloads are named by reference: `events/<type name>.json` beside it."""
    carried = {topic.name: [t.name for t in types if topic in t.topics] for topic in topics}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Lostwax",
            "version": "1",
            "description": "What the services of Lostwax tell each other by Kafka. A type's name carries its version; "
            "within a version only optional fields are added, and readers ignore fields they do not know.",
        },
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic, carried[topic.name]) for topic in topics},
        "operations": {
            f"{service}.{action}s.{topic.name}": _operation(service, action, topic, carried[topic.name])
            for topic in topics
            for action, services in (("send", topic.written_by), ("receive", topic.read_by))
            for service in services
        },
        "components": {
            "schemas": {"CloudEventsHeaders": HEADERS},
            "messages": {type_.name: _message(type_) for type_ in types},
        },
    }


def _channel(topic: Topic, type_names: Sequence[str]) -> dict[str, Any]:
    policy, retention_ms = topic.cleanup
    kept: dict[str, Any] = {"cleanup.policy": policy}
    if retention_ms is not None:
        kept["retention.ms"] = retention_ms
    channel: dict[str, Any] = {
        "address": topic.name,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in type_names},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": kept,
                "bindingVersion": BINDING,
            }
        },
        "x-dead-letter-topic": topic.dead,
    }
    if topic.by_bucket:
        channel["description"] = "A message's partition is its bucket mod the number of partitions, set by its sender."
    return channel


def _operation(service: str, action: str, topic: Topic, type_names: Sequence[str]) -> dict[str, Any]:
    channel = f"#/channels/{topic.name}"
    return {
        "action": action,
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{name}"} for name in type_names],
        "tags": [{"name": service}],
    }


def _message(type_: EventType) -> dict[str, Any]:
    return {
        "name": type_.name,
        "title": type_.struct.__name__,
        "summary": type_.struct.__doc__ or "",
        "contentType": "application/json",
        "headers": {
            "allOf": [
                {"$ref": "#/components/schemas/CloudEventsHeaders"},
                {"type": "object", "properties": {"ce_type": {"const": type_.name}}},
            ]
        },
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-2020-12",
            "schema": {"$ref": f"./events/{type_.name}.json"},
        },
    }
