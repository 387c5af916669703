"""Calls between services on the receiving side: who may call what; and the publishing API that every service offers."""

from collections.abc import Sequence
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lostwax.contracts.topics import Topic
from lostwax.kit.auth import BadCredentials, ServiceVerifier
from lostwax.kit.http import Operation, answer, bearer
from lostwax.kit.postgres import Pool
from lostwax.kit.problems import Problem, unauthorized
from lostwax.kit.publishing import Publishing, PublishingLimits, set_limit

SERVICE_AUTH = "service"
CONSOLE = "console"
"""The command line: people who run the system call services under this name."""

_CALLER = "lostwax.calling_service"


def calling_service(request: Request) -> str:
    """Name of the service that was let in with this request."""
    return str(request.scope[_CALLER])


def for_services(operations: Sequence[Operation], verifier: ServiceVerifier) -> list[Operation]:
    """The same operations, let in only who signs the call as one of their `callers`, before a body is read. Raises
    ValueError for an operation that names none."""
    guarded = []
    for operation in operations:
        if operation.auth != SERVICE_AUTH or not operation.callers:
            raise ValueError(f"{operation.method} {operation.path} names no service that may call it")
        guarded.append(msgspec.structs.replace(operation, admit=partial(_admit, verifier, operation.callers)))
    return guarded


async def _admit(verifier: ServiceVerifier, callers: tuple[str, ...], request: Request) -> None:
    token = bearer(request)
    if token is None:
        raise unauthorized("Send a service token: Authorization: Bearer <JWT>.")
    try:
        service = verifier.caller(token)
    except BadCredentials as error:
        raise unauthorized(str(error)) from None
    if service not in callers:
        raise Problem(
            403,
            "service-may-not",
            "This service may not do this",
            f"You are {service}; this is for: {', '.join(callers)}.",
            service=service,
            services=list(callers),
        )
    request.scope[_CALLER] = service


def publishing_operations(
    written: tuple[Topic, ...], limits: PublishingLimits, pool: Pool, verifier: ServiceVerifier
) -> list[Operation]:
    """`GET/PUT /v1/publishing/{topic}` for the topics that this service writes. In force within a second."""
    names = {topic.name for topic in written}

    def known_topic(request: Request) -> str:
        topic = str(request.path_params["topic"])
        if topic not in names:
            raise Problem(404, "not-found", "No such topic here", f"This service writes {', '.join(sorted(names))}.")
        return topic

    async def get_publishing(request: Request) -> Response:
        return answer(limits.set_of(known_topic(request)))

    async def put_publishing(request: Request, body: Publishing) -> Response:
        topic = known_topic(request)
        await set_limit(pool, topic, body)
        return answer(body)

    problems = {404: "a topic that this service does not write"}
    operations = [
        Operation(
            "GET",
            "/v1/publishing/{topic}",
            get_publishing,
            "How fast a topic is published",
            {200: Publishing},
            problems,
            auth=SERVICE_AUTH,
            callers=(CONSOLE,),
        ),
        Operation(
            "PUT",
            "/v1/publishing/{topic}",
            put_publishing,
            "Set how fast a topic is published",
            {200: Publishing},
            problems,
            body=Publishing,
            auth=SERVICE_AUTH,
            callers=(CONSOLE,),
        ),
    ]
    return for_services(operations, verifier)
