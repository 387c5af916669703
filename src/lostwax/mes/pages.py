"""The operators' page: one template, one style sheet, one script, and sign-in by a badge: the CRM gives a token for it,
which is kept in a cookie."""

import hashlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qs

import jinja2
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from lostwax.kit.http import answer
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.postgres import UNREACHABLE
from lostwax.kit.problems import Problem
from lostwax.mes.api import TOKEN_COOKIE, Me, WorkshopDoor, refuse_cross_site
from lostwax.mes.neighbours import sign_in as ask_crm

WEB = Path(__file__).parent / "web"

SIGNED_IN_FOR_S = 12 * 3600
"""As long as a token is good."""

FORM_LIMIT = 4096
"""Largest sign-in form, bytes."""

HEADERS = {
    # No inline script or style, nothing from elsewhere, no frame around it. `data:` is the icon.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    # Not `no-referrer`: with that, browsers hide where a form comes from, which sign-in checks.
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_TYPES = {"page.css": "text/css", "page.js": "text/javascript"}


class _File:
    """A static file, read once; its address changes with its content, so browsers may keep it for ever."""

    def __init__(self, name: str) -> None:
        self.content = (WEB / name).read_bytes()
        self.version = hashlib.sha256(self.content).hexdigest()[:12]
        self.media_type = _TYPES[name]
        self.address = f"/web/{name}?v={self.version}"


def routes(door: WorkshopDoor, crm: Neighbour, now: Callable[[], datetime]) -> list[Route]:
    """The page, its files, sign-in and sign-out."""
    files = {name: _File(name) for name in _TYPES}
    loader = jinja2.FileSystemLoader(WEB)
    template = jinja2.Environment(loader=loader, autoescape=True, auto_reload=False).get_template("page.html")

    def page(status: int = 200, **context: str) -> Response:
        html = template.render(css=files["page.css"].address, js=files["page.js"].address, **context)
        return Response(html, status, {**HEADERS, "Cache-Control": "no-store"}, "text/html")

    async def home(request: Request) -> Response:
        token = request.cookies.get(TOKEN_COOKIE)
        if token is None:
            return page()
        try:
            member = await door.staff.member(token)
        except Problem as problem:
            return page(message=problem.detail or problem.title)
        except UNREACHABLE:
            return page(503, trouble="The database does not answer.")
        return page(operator=member.name, role=member.role.value, now=now().isoformat())

    async def sign_in(request: Request) -> Response:
        """By the page's form. The page's script asks for JSON; without it the form works by itself."""
        refuse_cross_site(request)
        as_json = "application/json" in request.headers.get("accept", "")
        badge = (await _form(request)).get("badge", "").strip()
        try:
            token = await ask_crm(crm, badge, request.client.host if request.client is not None else "")
            member = await door.staff.member(token)
        except Problem as problem:
            return problem.response() if as_json else page(problem.status, message=problem.detail or problem.title)
        signed_in: Response
        if as_json:
            signed_in = answer(Me(member.staff_id, member.name, member.role), headers={"Cache-Control": "no-store"})
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

    async def static(request: Request) -> Response:
        file = files.get(request.path_params["name"])
        if file is None:
            raise Problem(404, "not-found", "No such file")
        fresh = request.query_params.get("v") == file.version
        keep = "public, max-age=31536000, immutable" if fresh else "no-cache"
        headers = {"Cache-Control": keep, "X-Content-Type-Options": "nosniff"}
        return Response(file.content, 200, headers, file.media_type)

    return [
        Route("/", home),
        Route("/sign-in", sign_in, methods=["POST"]),
        Route("/sign-out", sign_out, methods=["POST"]),
        Route("/web/{name}", static),
    ]


async def _form(request: Request) -> dict[str, str]:
    """The fields of a small form; of several values of a field the first."""
    raw = b""
    try:
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > FORM_LIMIT:
                raise Problem(413, "body-too-large", "The form is too large", f"At most {FORM_LIMIT} bytes.")
    except ClientDisconnect:
        raise Problem(400, "incomplete-body", "The form ended early") from None
    return {name: values[0] for name, values in parse_qs(raw.decode(errors="replace")).items()}
