"""Sign-in of the staff by a badge, and sign-out: the same at every house. The CRM gives a token for the badge, which is
kept in a cookie that only this host sees and no script."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from lostwax.contracts.staff import Role
from lostwax.kit.auth import Member
from lostwax.kit.house import House, Page, form_of
from lostwax.kit.http import answer
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.problems import Problem, unauthorized
from lostwax.kit.staff import TOKEN_COOKIE, refuse_cross_site

SIGNED_IN_FOR_S = 12 * 3600
"""As long as a token is good."""

FORM_LIMIT = 4096
"""Largest sign-in form, bytes."""

Entrance = Callable[[str, str], Awaitable[str]]
"""A token for who holds a badge that came from an address. Raises the 401, 429 or 503 Problem."""

Shown = Callable[[Request, Member], Awaitable[Response]]
"""A page for somebody who is signed in."""


class SignedInAs(msgspec.Struct, frozen=True):
    """Who is signed in now."""

    staff_id: UUID
    name: str
    role: Role


def by_the_crm(crm: Neighbour) -> Entrance:
    """Badges are the CRM's to know."""

    async def token(badge: str, address: str) -> str:
        if not 0 < len(badge) <= 200:
            raise _unknown()
        response = await crm.call(
            "POST",
            "/v1/sign-in",
            expected=(200, 401, 429),
            missing="nobody can sign in now. Who is signed in goes on working.",
            json={"badge": badge},
            headers={"X-Forwarded-For": address},
        )
        if response.status_code == 401:
            raise _unknown()
        if response.status_code == 429:
            problem: dict[str, Any] = response.json()
            headers = {"Retry-After": response.headers.get("Retry-After", "60")}
            raise Problem(429, "too-many-failures", problem["title"], problem.get("detail"), headers=headers)
        return str(response.json()["token"])

    return token


def _unknown() -> Problem:
    return unauthorized("This badge is not known, or was withdrawn.")


class StaffHouse:
    """A house for the staff. `member`: whose token this is, if they may be here; raises the 401 or 403 Problem."""

    def __init__(self, house: House, entrance: Entrance, member: Callable[[str], Awaitable[Member]]) -> None:
        self._house, self._entrance, self._member = house, entrance, member

    def signed_in(self, page: Shown) -> Page:
        """The page, shown to who is signed in; to others the sign-in, and why."""

        async def shown(request: Request) -> Response:
            token = request.cookies.get(TOKEN_COOKIE)
            front = request.url.path == "/"  # asked for by people who come to sign in: nothing went wrong
            if token is None:
                return self._sign_in_page(request, status=200 if front else 401)
            if request.method != "GET":
                refuse_cross_site(request)
            try:
                member = await self._member(token)
            except Problem as problem:
                if problem.status not in (401, 403):
                    raise
                return self._sign_in_page(request, problem, 200 if front else problem.status)
            return await page(request, member)

        return shown

    def _sign_in_page(self, request: Request, problem: Problem | None = None, status: int = 200) -> Response:
        message = None if problem is None else problem.detail or problem.title
        headers = {} if problem is None else problem.headers
        if "hx-request" in request.headers:
            headers = {**headers, "HX-Refresh": "true"}  # a part of a page asks: the whole page is to ask for the badge
        return self._house.page(request, "sign_in.html", status, headers, message=message)

    def routes(self) -> list[Route]:
        """`/sign-in` and `/sign-out`, and the files."""

        async def sign_in(request: Request) -> Response:
            """By the page's form. The page's script asks for JSON; without it the form works by itself."""
            refuse_cross_site(request)
            as_json = "application/json" in request.headers.get("accept", "")
            badge = (await form_of(request, FORM_LIMIT)).get("badge", "").strip()
            try:
                token = await self._entrance(badge, request.client.host if request.client is not None else "")
                member = await self._member(token)
            except Problem as problem:
                return problem.response() if as_json else self._sign_in_page(request, problem, problem.status)
            signed_in: Response
            if as_json:
                told = SignedInAs(member.staff_id, member.name, member.role)
                signed_in = answer(told, headers={"Cache-Control": "no-store"})
            else:
                signed_in = RedirectResponse("/", 303)
            signed_in.set_cookie(
                TOKEN_COOKIE,
                token,
                # A browser on a tablet is never closed, so a cookie for the browser's session would not end.
                max_age=SIGNED_IN_FOR_S,
                path="/",
                httponly=True,
                samesite="strict",
                secure=request.url.scheme == "https",
            )
            return signed_in

        async def sign_out(request: Request) -> Response:
            refuse_cross_site(request)
            signed_out = RedirectResponse("/", 303)
            signed_out.delete_cookie(TOKEN_COOKIE, path="/", httponly=True, samesite="strict")
            return signed_out

        return [
            Route("/sign-in", sign_in, methods=["POST"]),
            Route("/sign-out", sign_out, methods=["POST"]),
            self._house.files(),
        ]
