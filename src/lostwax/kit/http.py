"""HTTP: Starlette with msgspec bodies, problem+json for every error, health, OpenAPI from the same declarations."""

import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lostwax.contracts.metrics import HTTP_REQUESTS
from lostwax.kit import metrics, tracing
from lostwax.kit.coalescer import Overloaded
from lostwax.kit.postgres import UNREACHABLE
from lostwax.kit.problems import Problem, ProblemBody, try_later

log = logging.getLogger(__name__)

BODY_LIMIT = 64 * 1024
"""Largest request body, bytes; models go to S3 by presigned links, not through here."""

# The one character of JSON that PostgreSQL has no place for. A backslash before it may itself be escaped.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

_ENCODER = msgspec.json.Encoder()
_requests = metrics.histogram(HTTP_REQUESTS)
ROUTE = "lostwax.route"
"""In a request's ASGI scope: the route that it took, for metrics."""
_PROBES = ("/health/", "/metrics")
"""Asked every second by machines: they are no part of a service's rate."""
Endpoint = Callable[..., Awaitable[Response]]
Check = Callable[[], Awaitable[str | None]]
"""A readiness check: None when well, else what is wrong."""
Admit = Callable[[Request], Awaitable[None]]
"""Lets a request in, before its body is read, or raises the Problem that says why not."""

ANSWER_HEADERS = "lostwax.answer_headers"
"""In a request's ASGI scope: headers that its answer carries, whatever it will be, as ASGI wants them."""


class Events:
    """Among an operation's answers, for one that does not end by itself: a stream of server-sent events."""


class Parameter(msgspec.Struct, frozen=True):
    """A query or header parameter, for OpenAPI; the endpoint reads it itself by `query`."""

    name: str
    where: str
    schema: dict[str, Any]
    description: str
    required: bool = False


class Operation(msgspec.Struct, frozen=True):
    """One route. `body` is decoded strictly before `endpoint(request, body)`; without it `endpoint(request)`.

    `answers` maps status to the answer's struct (None: no JSON body) or Events, `problems` status to when it comes.
    `scope` is what the credential must permit, `callers` who of the services may call; whoever asks for `auth` with
    either sets `admit` to hold it.
    """

    method: str
    path: str
    endpoint: Endpoint
    summary: str
    answers: Mapping[int, Any]
    problems: Mapping[int, str] = {}
    body: type[msgspec.Struct] | None = None
    parameters: tuple[Parameter, ...] = ()
    auth: str | None = None
    scope: str | None = None
    callers: tuple[str, ...] = ()
    admit: Admit | None = None


class JsonAnswer(Response):
    """A JSON body. Its headers are put together at once, where Response works them out one by one."""

    def __init__(self, body: bytes, status: int, headers: Mapping[str, str] | None) -> None:
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        if headers:
            self.raw_headers += [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return JsonAnswer(_ENCODER.encode(value), status, headers)


def path_uuid(request: Request, name: str, what: str) -> UUID:
    """The path parameter as a UUID; what is no UUID is no known thing either: 404."""
    try:
        return UUID(request.path_params[name])
    except ValueError:
        raise Problem(404, "not-found", f"No such {what}", f"{name} must be a UUID.") from None


def query(request: Request, name: str, type_: Any, default: Any) -> Any:
    """A query parameter converted to a type, or `default`. 400 names the parameter."""
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        return msgspec.convert(text, type_, strict=False)
    except msgspec.ValidationError as error:
        raise Problem(400, "bad-parameter", "A query parameter is wrong", f"{name}: {error}") from None


def header(request: Request, name: bytes) -> str | None:
    """A header by its name in lower case, None when it was not sent. In every request's path: Request.headers takes
    some microseconds for each."""
    for key, value in request.scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return None


def bearer(request: Request) -> str | None:
    scheme, _, credential = (header(request, b"authorization") or "").partition(" ")
    return credential.strip() or None if scheme.lower() == "bearer" else None


def build_app(
    name: str,
    operations: Sequence[Operation],
    *,
    checks: Mapping[str, Check],
    extra_routes: Sequence[BaseRoute] = (),
    description: str = "",
) -> "Outermost":
    """The service's ASGI application: its operations, health, OpenAPI at /openapi.json, Prometheus text at /metrics,
    problems for every error. Raises ValueError for an operation that says who may call it and lets anybody in."""
    for operation in operations:
        if (operation.scope or operation.callers) and operation.admit is None:
            raise ValueError(f"{operation.method} {operation.path} is guarded by nobody")

    async def live(_: Request) -> Response:
        return answer({"service": name, "live": True})

    async def ready(_: Request) -> Response:
        results = {check_name: await check() for check_name, check in checks.items()}
        well = all(trouble is None for trouble in results.values())
        return answer(
            {"service": name, "ready": well, "checks": {k: v or "ok" for k, v in results.items()}},
            200 if well else 503,
        )

    async def metrics_text(_: Request) -> Response:
        return Response(metrics.prometheus_text(name), media_type="text/plain; version=0.0.4")

    document = _ENCODER.encode(openapi(name, operations, description))

    async def openapi_document(_: Request) -> Response:
        return Response(document, media_type="application/json")

    endpoints = [(o, _Endpoint(o)) for o in operations]
    router = Router(
        routes=[
            Route("/health/live", live),
            Route("/health/ready", ready),
            Route("/openapi.json", openapi_document),
            Route("/metrics", metrics_text),
            *[Route(o.path, endpoint, methods=[o.method]) for o, endpoint in endpoints],
            *extra_routes,
        ]
    )
    return Outermost(router, {(o.method, o.path): endpoint for o, endpoint in endpoints if "{" not in o.path})


class _Endpoint:
    """An operation as an ASGI application: Starlette then adds no wrapping of its own; errors go to Outermost."""

    def __init__(self, operation: Operation) -> None:
        self._endpoint = operation.endpoint
        self._admit = operation.admit
        self._route = operation.path
        self._decoder = None if operation.body is None else msgspec.json.Decoder(operation.body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[ROUTE] = self._route
        request = Request(scope, receive)
        if self._admit is not None:
            await self._admit(request)
        if self._decoder is None:
            response: Response = await self._endpoint(request)
        else:
            raw = await read_body(request)
            if b"u0000" in raw and _NUL.search(raw):
                raise Problem(
                    422,
                    "out-of-range",
                    "A field has a value that is not allowed",
                    "U+0000 cannot be stored in a text; leave it out.",
                )
            try:
                body = self._decoder.decode(raw)
            except msgspec.ValidationError as error:
                raise misfit(str(error)) from None
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise Problem(400, "not-json", "The body is not JSON", str(error)) from None
            response = await self._endpoint(request, body)
        await response(scope, receive, send)


def misfit(message: str) -> Problem:
    """A problem of its own for each way in which a body does not fit; msgspec's message names the field."""
    if "unknown field" in message:
        return Problem(422, "unknown-field", "The body has a field that is not known here", message)
    if "missing required field" in message:
        return Problem(422, "missing-field", "The body lacks a field", message)
    if ", got " in message:
        return Problem(422, "wrong-type", "A field has the wrong type", message)
    return Problem(422, "out-of-range", "A field has a value that is not allowed", message)


async def read_body(request: Request, limit: int = BODY_LIMIT) -> bytes:
    """The request's body. 413 as soon as it is known to be over `limit` bytes, 415 for another type than JSON."""
    content_type = header(request, b"content-type")
    if content_type is not None and content_type.partition(";")[0].strip().lower() != "application/json":
        raise Problem(415, "not-json", "Send JSON", f"Content-Type is {content_type}; send application/json.")
    declared = header(request, b"content-length") or ""
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    body: bytes = b""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "incomplete-body", "The body ended early")
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return body


def _too_large(limit: int) -> Problem:
    return Problem(413, "body-too-large", "The body is too large", f"At most {limit} bytes are taken here.")


class Outermost:
    """Joins or starts the trace of a request, times it, and turns every error into a problem; what nobody foresaw is
    logged. `direct`: what the router would find for a method and a path without parameters, found without it."""

    def __init__(self, app: ASGIApp, direct: Mapping[tuple[str, str], ASGIApp]) -> None:
        self.app, self._direct = app, direct

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # With it the router raises for an unknown path or method, where it would answer in plain text.
        scope["app"] = self
        incoming = None
        for key, value in scope["headers"]:
            if key == b"traceparent":
                incoming = value.decode("latin-1")
        traceparent = tracing.child_of(incoming)
        token = tracing.current.set(traceparent)
        started_ns = time.time_ns()
        status = 0

        async def send_traced(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"traceparent", traceparent.encode()),
                    *scope.get(ANSWER_HEADERS, ()),
                ]
            await send(message)

        try:
            if b"%00" in scope["query_string"]:  # which PostgreSQL has no place for, wherever it would arrive
                raise Problem(400, "bad-parameter", "The address asks for a zero byte", "Leave %00 out of it.")
            await self._direct.get((scope["method"], scope["path"]), self.app)(scope, receive, send_traced)
        except Exception as error:
            if status:
                raise
            await self._problem(error, scope).response()(scope, receive, send_traced)
        finally:
            tracing.current.reset(token)
            self._timed(scope, status, started_ns, traceparent, incoming)

    def _timed(self, scope: Scope, status: int, started_ns: int, traceparent: str, incoming: str | None) -> None:
        ended_ns = time.time_ns()
        method, route = scope["method"], scope.get(ROUTE, "")
        if not route and scope["path"].startswith(_PROBES):
            return
        _requests.record((ended_ns - started_ns) / 1e9, method, route, str(status))
        if tracing.sampled(traceparent) or status >= 500:
            attributes = {"http.request.method": method, "http.route": route, "http.response.status_code": status}
            error = f"answered {status}" if status >= 500 or not status else None
            name = f"{method} {route or '(none)'}"
            tracing.record(tracing.Span(name, "server", traceparent, incoming, started_ns, ended_ns, attributes, error))

    def _problem(self, error: Exception, scope: Scope) -> Problem:
        if isinstance(error, Problem):
            return error
        if isinstance(error, Overloaded):
            return try_later(
                "More orders arrive than can be stored at once. Nothing was stored; send it again.",
                after_s=error.retry_after_s,
            )
        if isinstance(error, HTTPException):
            titles = {
                404: ("not-found", "No such page"),
                405: ("method-not-allowed", "This method is not offered here"),
            }
            code, title = titles.get(error.status_code, ("http-error", str(error.detail)))
            return Problem(error.status_code, code, title, headers=dict(error.headers or {}))
        # Not the address that was asked for: a link's token may stand in it.
        where = {"method": scope["method"], "path": scope.get(ROUTE, "(none)")}
        if isinstance(error, UNREACHABLE):
            log.warning("database away", extra=where | {"error": repr(error)})
            detail = "The database does not answer. Nothing was stored; send it again."
            return try_later(detail, after_s=2, code="unavailable")
        log.error("request failed", extra=where, exc_info=error)
        return Problem(500, "internal", "Something went wrong here", "It is logged under this trace; send it again.")


def openapi(name: str, operations: Sequence[Operation], description: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a service, from its operations."""
    structs: set[Any] = {ProblemBody}
    for operation in operations:
        structs.update(t for t in (operation.body, *operation.answers.values()) if t not in (None, Events))
    ordered = sorted(structs, key=str)
    schemas, components = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(ordered, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        entry: dict[str, Any] = {
            "summary": operation.summary,
            "operationId": operation.endpoint.__name__,
            "responses": _responses(operation, schema_of),
        }
        parameters = [
            {
                "name": part[1:-1].partition(":")[0],
                "in": "path",
                "required": True,
                "schema": {"type": "string"},
            }
            for part in operation.path.split("/")
            if part.startswith("{")
        ]
        parameters += [
            {
                "name": p.name,
                "in": p.where,
                "required": p.required,
                "schema": p.schema,
                "description": p.description,
            }
            for p in operation.parameters
        ]
        if parameters:
            entry["parameters"] = parameters
        if operation.body is not None:
            entry["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": schema_of[operation.body]}},
            }
        if operation.auth is not None:
            entry["security"] = [{operation.auth: [] if operation.scope is None else [operation.scope]}]
        paths.setdefault(operation.path.replace(":path}", "}"), {})[operation.method.lower()] = entry
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Lostwax {name}", "version": "1", "description": description},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                auth: {"type": "http", "scheme": "bearer", "description": auth}
                for auth in sorted({o.auth for o in operations if o.auth})
            },
        },
    }


def _responses(operation: Operation, schema_of: Mapping[Any, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, struct in operation.answers.items():
        if struct is Events:
            content: dict[str, Any] = {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
        else:
            content = {} if struct is None else {"content": {"application/json": {"schema": schema_of[struct]}}}
        responses[str(status)] = {"description": "done", **content}
    problems = dict(operation.problems)
    if operation.body is not None:
        problems |= {
            400: "not JSON",
            413: "body too large",
            415: "not application/json",
            422: problems.get(422, "does not fit"),
        }
    if operation.auth is not None:
        problems |= {401: "no or unknown credentials"}
    if operation.scope is not None:
        problems |= {
            403: problems.get(403, f"the credentials are not for this: {operation.scope}"),
            429: "too many requests; see Retry-After and RateLimit",
        }
    if operation.callers:
        problems |= {403: problems.get(403, f"for other services: {', '.join(operation.callers)}")}
    problems |= {503: problems.get(503, "something needed is away; see Retry-After")}
    for status, when in problems.items():
        responses[str(status)] = {
            "description": when,
            "content": {"application/problem+json": {"schema": schema_of[ProblemBody]}},
        }
    return responses
