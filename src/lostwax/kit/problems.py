"""RFC 9457 problem details: what is wrong, and how to mend it."""

from typing import Any

import msgspec
from starlette.responses import Response

_JSON = msgspec.json.Encoder()


class Problem(Exception):
    """An answer that is an error. `code` names its type (`/problems/<code>`); `detail` says how to mend it."""

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str | None = None,
        *,
        headers: dict[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(f"{status} {code}: {detail or title}")
        self.status, self.code, self.title, self.detail = status, code, title, detail
        self.headers = headers or {}
        self.members = members

    def response(self) -> Response:
        body: dict[str, Any] = {"type": f"/problems/{self.code}", "title": self.title, "status": self.status}
        if self.detail:
            body["detail"] = self.detail
        body.update(self.members)
        return Response(
            _JSON.encode(body),
            status_code=self.status,
            media_type="application/problem+json",
            headers=self.headers,
        )


class ProblemBody(msgspec.Struct):
    """The shape of application/problem+json, for OpenAPI."""

    type: str
    title: str
    status: int
    detail: str | None = None


def unauthorized(detail: str) -> Problem:
    return Problem(401, "unauthorized", "Who are you?", detail, headers={"WWW-Authenticate": "Bearer"})


def not_found(what: str) -> Problem:
    return Problem(404, "not-found", f"No such {what}", f"No {what} of yours has this id.")


def try_later(detail: str, *, after_s: int = 1, code: str = "overloaded") -> Problem:
    return Problem(503, code, "Not now", detail, headers={"Retry-After": str(after_s)})
