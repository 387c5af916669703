"""Rubbish to every operation of every OpenAPI document that the running services serve, with the right credentials: no
5xx, no status, content type or body that the document does not tell of. New services and operations are found."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
import msgspec
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import booleans
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.requests import Request
from starlette.responses import Response
from tests.builders import (
    a_customer,
    a_member,
    a_partner,
    an_approved_order,
    an_operator,
    an_uploaded_model,
    service_token,
)

from lostwax.contracts.ids import new_id
from lostwax.contracts.staff import Role
from lostwax.kit.http import Operation, answer, build_app
from lostwax.local.credentials import SERVICES
from lostwax.local.stack import Stack

EXAMPLES = 25
CONFORMANCE = [status_code_conformance, content_type_conformance, response_schema_conformance]
CHECKS = [not_a_server_error, *CONFORMANCE]


def no_server_error_but_away(context: Any, response: Any, case: Any) -> Any:
    """For a service whose own server does not run in this stack, and which says so."""
    return None if response.status_code == 503 else not_a_server_error(context, response, case)


CHECKS_OF = {"telemetry": [no_server_error_but_away, *CONFORMANCE]}


class Callers(msgspec.Struct, frozen=True):
    """Credentials by service and kind, as documents name them (service tokens are made for each call: they last a
    minute), and ids of things that exist, by the name of their path parameter."""

    credentials: dict[str, str]
    real: dict[str, str]


@pytest.fixture(scope="module")
async def callers(stack: Stack) -> Callers:
    partner = await a_partner(stack)
    operator = await an_operator(stack)
    boss = await a_member(stack, Role.ADMINISTRATOR, "Ida")
    real = {"sha256": await an_uploaded_model(partner), "list": "queue"}
    real["order_id"] = await an_approved_order(partner, real["sha256"])
    hook = await partner.post("/v1/hooks", json={"url": "http://127.0.0.1:9/hook"})
    real["hook_id"] = hook.raise_for_status().json()["hook_id"]
    # Not the key that all this is done with.
    key = await partner.post("/v1/keys", json={"name": "spare", "scopes": ["orders:read"]})
    real["key_id"] = key.raise_for_status().json()["key_id"]
    wish = {"model": real["sha256"], "options": [{"alloy": "gold-14k", "finish": "polished"}]}
    quote = await partner.post("/v1/quotes", json=wish, headers={"Idempotency-Key": new_id().hex})
    real["quote_id"] = quote.raise_for_status().json()["quote_id"]
    other = await a_member(stack, Role.SELLER, "Cleo")
    real["staff_id"] = str(other.staff_id)
    desk_model = await an_uploaded_model(boss)
    real |= {"crm sha256": desk_model, "crm piece": "star"}
    quote = await boss.post("/v1/quotes", json=wish | {"model": desk_model}, headers={"Idempotency-Key": new_id().hex})
    real["crm quote_id"] = quote.raise_for_status().json()["quote_id"]
    for client in (partner, operator, boss, other):
        await client.aclose()
    staff = {"mes": operator, "crm": boss, "telemetry": boss, "reporting": boss}
    known = {f"{service} staff": str(member.headers["Authorization"]) for service, member in staff.items()}
    nora = await a_customer(stack)
    me = (await nora.get("/v1/me")).raise_for_status().json()
    sign_in = {"email": me["email"], "password": "correct horse"}
    spare, leaving = [(await nora.post("/v1/sign-in", json=sign_in)).raise_for_status().json() for _ in range(2)]
    real["session_id"] = spare["session_id"]
    nora_model = await an_uploaded_model(nora)
    real |= {f"shop {name}": value for name, value in {"sha256": nora_model}.items()}
    real["shop order_id"] = await an_approved_order(nora, nora_model)
    quote = await nora.post("/v1/quotes", json=wish | {"model": nora_model}, headers={"Idempotency-Key": new_id().hex})
    real["shop quote_id"] = quote.raise_for_status().json()["quote_id"]
    link = await nora.post(f"/v1/orders/{real['shop order_id']}/links")
    real["token"] = link.raise_for_status().json()["token"]
    await nora.aclose()
    known |= {"shop session": f"Bearer {nora.token}", "shop leaving": f"Bearer {leaving['token']}"}
    return Callers(known | {f"{service} api-key": f"Bearer {partner.key}" for service in SERVICES}, real)


@pytest.mark.parametrize("service", SERVICES)
async def test_every_operation_answers_rubbish_as_its_document_says(
    stack: Stack, callers: Callers, service: str
) -> None:
    await asyncio.to_thread(throw_rubbish, stack, callers, service, stack.url(service))


def throw_rubbish(stack: Stack, callers: Callers, service: str, url: str) -> None:
    document = httpx.get(f"{url}/openapi.json").raise_for_status().json()
    schema = schemathesis.openapi.from_dict(document)
    own = f"{service} "
    real = callers.real | {k.removeprefix(own): v for k, v in callers.real.items() if k.startswith(own)}
    failures: list[str] = []
    tried = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        kinds = [name for entry in operation.definition.raw.get("security", []) for name in entry]

        def headers(
            kinds: list[str] = kinds,
            announces: bool = operation.path == "/v1/announcements",
            leaves: bool = operation.path == "/v1/sign-out",
        ) -> dict[str, str]:
            if not kinds:
                return {}
            if kinds[0] == "service":
                if announces:  # which the console may not
                    return {"Authorization": f"Bearer {service_token(stack, 'partner_api', service)}"}
                return {"Authorization": f"Bearer {stack.console_token(service)}"}
            # Not the session that all this is done with.
            kind = "leaving" if leaves else kinds[0]
            return {"Authorization": callers.credentials[f"{service} {kind}"]}

        tried += 1
        try:
            thrown_at(operation, url, headers, real, CHECKS_OF.get(service, CHECKS))()
        except FailureGroup as group:  # all that is wrong is told of at once
            failures += [f"{operation.label}: {error}" for error in group.exceptions]
    assert tried == sum(len(methods) for methods in document["paths"].values())
    assert not failures, "\n\n".join(failures)


def thrown_at(
    operation: schemathesis.schemas.APIOperation,
    url: str,
    headers: Callable[[], dict[str, str]],
    real: Mapping[str, str],
    checks: Sequence[Any],
) -> Callable[[], None]:
    """Every other example is about things that exist, so that what stands behind the first look-up is reached."""

    documented = operation.definition.raw["responses"]

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), about_real_things=booleans())
    def throw(case: schemathesis.Case, about_real_things: bool) -> None:
        if about_real_things and case.path_parameters:
            case.path_parameters = {n: real.get(n, value) for n, value in case.path_parameters.items()}
        if "text/event-stream" in documented.get("200", {}).get("content", {}):
            look_at_the_beginning(case, url, headers(), documented)
        else:
            case.call_and_validate(base_url=url, headers=headers(), checks=list(checks))

    return throw


def look_at_the_beginning(
    case: schemathesis.Case, url: str, headers: dict[str, str], documented: Mapping[str, Any]
) -> None:
    """Of an answer that does not end by itself: status and content type."""
    given = case.as_transport_kwargs(base_url=url, headers=headers)
    with requests.request(**given, stream=True, timeout=10) as response:
        told = documented.get(str(response.status_code))
        assert told is not None, f"{response.status_code} is not documented: {response.text[:500]}"
        assert response.headers["content-type"].partition(";")[0] in told["content"]


class Note(msgspec.Struct):
    text: str


@pytest.mark.parametrize("fault", ["status", "body", "crash"])
async def test_an_answer_that_the_document_does_not_tell_of_is_found(fault: str) -> None:
    """The proof that what is held above can fail."""

    async def odd(request: Request) -> Response:
        if fault == "crash":
            raise RuntimeError("a bug")
        return answer({"text": 1}) if fault == "body" else answer(Note("a"), 201)

    app = build_app("odd", [Operation("GET", "/odd", odd, "Answers oddly", {200: Note})], checks={})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://odd") as http:
        document = (await http.get("/openapi.json")).json()
        (operation,) = [r.ok() for r in schemathesis.openapi.from_dict(document).get_all_operations()]
        told = await http.get("/odd")
    response = schemathesis.Response(
        status_code=told.status_code,
        headers={name: [value] for name, value in told.headers.items()},
        content=told.content,
        request=requests.Request("GET", "http://odd/odd").prepare(),
        elapsed=0.1,
        verify=False,
    )
    with pytest.raises(FailureGroup):
        operation.Case().validate_response(response, checks=CHECKS)
