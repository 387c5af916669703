"""What is committed in `schemas/` is what running services serve and what stands in the broker."""

import json
from typing import Any

import httpx
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from lostwax.local.stack import Stack
from lostwax.schemas import folder
from lostwax.schemas.openapi import SERVICES


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_serves_the_committed_openapi(stack: Stack, service: str) -> None:
    async with httpx.AsyncClient(timeout=20) as http:
        served = (await http.get(f"{stack.url(service)}/openapi.json")).raise_for_status().json()
    committed = json.loads((folder.FOLDER / f"openapi/{service}.json").read_bytes())
    mend = "wire the operations of its main.py into SERVICES of schemas/openapi.py as well, then run ./lostwax schemas"
    assert set(served["paths"]) == set(committed["paths"]), mend
    assert folder.canonical(served) == committed, mend


def test_topics_of_the_broker_are_those_of_asyncapi(stack: Stack) -> None:
    document = json.loads((folder.FOLDER / "asyncapi.json").read_bytes())
    said: dict[str, Any] = {name: c["bindings"]["kafka"] for name, c in document["channels"].items()}
    dead = {c["x-dead-letter-topic"] for c in document["channels"].values()}
    admin = AdminClient({"bootstrap.servers": stack.env("orders")["LOSTWAX_KAFKA_BOOTSTRAP"], "log_level": 3})
    present = admin.list_topics(timeout=20).topics
    assert dead <= set(present)
    assert {name: len(present[name].partitions) for name in said} == {n: b["partitions"] for n, b in said.items()}
    asked = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in said], request_timeout=20)
    for resource, future in asked.items():
        configured, wanted = future.result(timeout=20), said[resource.name]["topicConfiguration"]
        assert configured["cleanup.policy"].value == ",".join(wanted["cleanup.policy"]), resource.name
        if "retention.ms" in wanted:
            assert configured["retention.ms"].value == str(wanted["retention.ms"]), resource.name
