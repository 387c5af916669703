"""Accounts and models for benchmarks, made as the command line makes them."""

from uuid import UUID

import asyncpg
import httpx

from lostwax import samples
from lostwax.contracts.staff import Role
from lostwax.crm.handlers import add_staff
from lostwax.kit.clock import utc_now
from lostwax.local.stack import Stack
from lostwax.partner_api.keys import add_client
from lostwax.samples.files import binary


async def a_partner(stack: Stack, name: str = "bench") -> tuple[UUID, str]:
    """A partner's client id and key, without a limit of its rate."""
    connection = await asyncpg.connect(stack.env("partner_api")["LOSTWAX_DATABASE_URL"])
    try:
        client, key = await add_client(connection, name, unlimited=True)
    finally:
        await connection.close()
    return client.client_id, key


async def operators(stack: Stack, count: int) -> list[str]:
    """Tokens of so many operators, signed in."""
    connection = await asyncpg.connect(stack.env("crm")["LOSTWAX_DATABASE_URL"])
    try:
        names = [f"operator {n}" for n in range(count)]
        badges = [(await add_staff(connection, name, Role.OPERATOR, utc_now()))[1] for name in names]
    finally:
        await connection.close()
    async with httpx.AsyncClient(base_url=stack.url("crm"), timeout=20) as crm:
        answers = [await crm.post("/v1/sign-in", json={"badge": badge}) for badge in badges]
    return [str(answer.raise_for_status().json()["token"]) for answer in answers]


def upload_model(stack: Stack, key: str, *, around: int = 64, across: int = 8, width: float = 3.0) -> str:
    """A ring in the partner's staging, ready to be ordered; its sha-256."""
    import hashlib

    content = binary(samples.band(size=54, width=width, around=around, across=across).triangles)
    digest = hashlib.sha256(content).hexdigest()
    with httpx.Client(base_url=stack.url("partner_api"), headers={"Authorization": f"Bearer {key}"}) as partner:
        body = {"name": "ring.stl", "size_bytes": len(content), "sha256": digest}
        model = partner.post("/v1/models", json=body).raise_for_status().json()
        if model.get("upload"):
            link = model["upload"]
            httpx.put(link["url"], content=content, headers=link["headers"], timeout=120).raise_for_status()
    return digest


def order_head(key: str) -> str:
    """The head of a POST /v1/orders for `_load.load`."""
    return (
        f"POST /v1/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nIdempotency-Key: @N@\r\n"
        "Content-Type: application/json\r\nContent-Length: @LENGTH@"
    )


def order_body(sha256: str) -> str:
    """An order that is approved by itself."""
    return (
        '{"model":"' + sha256 + '","alloy":"gold-14k","finish":"polished","quantity":2,"ring_size":54.5,'
        '"reference":"PO-@N@","approve_up_to":"1000000"}'
    )


def get_head(path: str, credential: str) -> str:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {credential}"
