"""Calls between services on the receiving side, and the publishing API that every service offers to them."""

from starlette.requests import Request
from starlette.responses import Response

from lostwax.contracts.topics import Topic
from lostwax.kit.auth import BadCredentials, ServiceVerifier
from lostwax.kit.http import Operation, answer, bearer
from lostwax.kit.postgres import Pool
from lostwax.kit.problems import Problem, unauthorized
from lostwax.kit.publishing import Publishing, PublishingLimits, set_limit

SERVICE_AUTH = "service"


def calling_service(verifier: ServiceVerifier, request: Request) -> str:
    """Name of the service that signed this request. Raises the 401 Problem."""
    token = bearer(request)
    if token is None:
        raise unauthorized("Send a service token: Authorization: Bearer <JWT>.")
    try:
        return verifier.caller(token)
    except BadCredentials as error:
        raise unauthorized(str(error)) from None


def publishing_operations(
    written: tuple[Topic, ...], limits: PublishingLimits, pool: Pool, verifier: ServiceVerifier
) -> list[Operation]:
    """`GET/PUT /v1/publishing/{topic}` for the topics that this service writes. In force within a second."""
    names = {topic.name for topic in written}

    def known_topic(request: Request) -> str:
        calling_service(verifier, request)
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
    return [
        Operation(
            "GET",
            "/v1/publishing/{topic}",
            get_publishing,
            "How fast a topic is published",
            {200: Publishing},
            problems,
            auth=SERVICE_AUTH,
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
        ),
    ]
