"""The house in which all pages live: one layout and style sheet, one content security policy, files that browsers keep
until they change, two languages, and trouble told in words.

A service's pages are templates of its own `web/` that extend the house's `house.html`; what they say to people goes
through `_(..)`, whose English is the key and whose Russian stands in `ru.toml` beside the templates; what codes are
called in English stands in `en.toml`.
"""

import hashlib
import logging
import tomllib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import jinja2
import msgspec
from markupsafe import Markup, escape
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from lostwax.kit.http import ROUTE, misfit
from lostwax.kit.postgres import UNREACHABLE
from lostwax.kit.problems import Problem

log = logging.getLogger(__name__)

WEB = Path(__file__).parent / "web"
HOUSE_FILES = ("house.css", "house.js", "htmx.js", "htmx-sse.js")
"""What every service serves of the house's; htmx and its SSE extension are npm's htmx.org 2.0.11 and htmx-ext-sse
2.2.4 (0BSD)."""

LANGUAGES = ("en", "ru")
LANGUAGE_COOKIE = "lang"
_REMEMBERED_S = 365 * 24 * 3600

FORM_LIMIT = 64 * 1024
"""Largest form, bytes."""

HEADERS: Mapping[str, str] = {
    # No inline script or style, nothing from elsewhere, no frame around it. `data:` is the icon.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    # Not `no-referrer`: with that, browsers hide where a form comes from, which sign-in checks.
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

Page = Callable[[Request], Awaitable[Response]]


class _File:
    """A static file, read once; its address changes with its content, so browsers may keep it for ever."""

    def __init__(self, path: Path) -> None:
        self.content = path.read_bytes()
        self.version = hashlib.sha256(self.content).hexdigest()[:12]
        self.media_type = _TYPES[path.suffix]
        self.address = f"/web/{path.name}?v={self.version}"


class House:
    """The pages of one service. `web`: its templates, words and `files`; `name`: what its pages are called, in
    English."""

    def __init__(
        self,
        name: str,
        web: Path,
        files: Sequence[str | Path] = (),
        *,
        policy: Mapping[str, str] | None = None,
        beside: Sequence[Path] = (),
    ) -> None:
        """`policy`: directives of the content security policy that this service needs otherwise. `beside`: folders
        whose templates and words it shares with others; files of theirs are named by their paths."""
        self.name = name
        paths = [*(WEB / file for file in HOUSE_FILES), *(web / file for file in files)]
        self._files = {path.name: _File(path) for path in paths}
        folders = (WEB, *beside, web)
        self._words = {
            language: {english: said for folder in folders for english, said in _words(folder, language).items()}
            for language in LANGUAGES
        }
        self._headers = {**HEADERS, "Content-Security-Policy": _policy(policy or {})}
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folders[::-1]),
            autoescape=True,
            auto_reload=False,
            undefined=jinja2.StrictUndefined,
            trim_blocks=False,
        )
        self._environment.globals["file"] = lambda name: self._files[name].address

    def say(self, language: str, english: str, **values: object) -> str:
        """A text in a language; `{name}` in it stands for a value. Values are escaped when they go into a page."""
        text = self._words[language].get(english, english)
        if not values:
            return text
        return Markup(escape(text)).format(**values)

    def words_about(self, language: str, beginning: str) -> dict[str, str]:
        """Texts whose keys begin so, by the rest of their key: for codes that a page learns of only later."""
        known = self._words[language].items()
        return {key.removeprefix(beginning): text for key, text in known if key.startswith(beginning)}

    def page(
        self,
        request: Request,
        template: str,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        **context: Any,
    ) -> Response:
        """A page, or a part of one, in the language of who asks. `?lang=` chooses one, and is remembered."""
        language = language_of(request)

        def say(english: str, **values: object) -> str:
            return self.say(language, english, **values)

        context = {"member": None, "message": None, **context}
        html = self._environment.get_template(template).render(
            _=say, lang=language, house=self.name, request=request, **context
        )
        response = Response(
            html, status, {**self._headers, "Content-Language": language, **(headers or {})}, "text/html"
        )
        if request.query_params.get("lang") in LANGUAGES:
            response.set_cookie(
                LANGUAGE_COOKIE, language, max_age=_REMEMBERED_S, path="/", samesite="lax", httponly=True
            )
        return response

    def problem(self, request: Request, problem: Problem) -> Response:
        """A problem in words; for htmx, which is shown where the page keeps its messages, as a part of the page."""
        again = problem.status == 503
        title, detail = self.say(language_of(request), problem.title), problem.detail
        return self.page(
            request, "trouble.html", problem.status, problem.headers, title=title, detail=detail, again=again
        )

    def route(self, path: str, page: Page, methods: Sequence[str] = ("GET",), *, secret: bool = False) -> Route:
        """A route of a page: what goes wrong is told as a page, too. `secret`: its address lets somebody in, so no log
        is told it, whatever happens."""

        async def told(request: Request) -> Response:
            request.scope[ROUTE] = path
            if secret:
                request.scope["path"] = path
                request.scope["raw_path"] = path.encode()
            try:
                return await page(request)
            except Problem as problem:
                return self.problem(request, problem)
            except UNREACHABLE as error:
                log.warning("database away", extra={"path": path, "error": repr(error)})
                away = Problem(
                    503, "unavailable", "Not now", "The database does not answer.", headers={"Retry-After": "2"}
                )
                return self.problem(request, away)

        return Route(path, told, methods=list(methods))

    def files(self) -> Route:
        """`/web/{name}`: the house's files and the service's."""

        async def static(request: Request) -> Response:
            file = self._files.get(request.path_params["name"])
            if file is None:
                raise Problem(404, "not-found", "No such file")
            fresh = request.query_params.get("v") == file.version
            keep = "public, max-age=31536000, immutable" if fresh else "no-cache"
            headers = {"Cache-Control": keep, "X-Content-Type-Options": "nosniff"}
            return Response(file.content, 200, headers, file.media_type)

        return Route("/web/{name}", static)


def _policy(own: Mapping[str, str]) -> str:
    parts = dict(part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";"))
    return "; ".join(f"{name} {value}" for name, value in {**parts, **own}.items())


def _words(web: Path, language: str) -> dict[str, str]:
    path = web / f"{language}.toml"
    return dict(tomllib.loads(path.read_text())) if path.exists() else {}


def language_of(request: Request) -> str:
    """By what was chosen, now or before, else by what the browser prefers."""
    for chosen in (request.query_params.get("lang"), request.cookies.get(LANGUAGE_COOKIE)):
        if chosen in LANGUAGES:
            return chosen
    for wanted in request.headers.get("accept-language", "").split(","):
        language = wanted.split(";")[0].split("-")[0].strip().lower()
        if language in LANGUAGES:
            return language
    return LANGUAGES[0]


Body = TypeVar("Body", bound=msgspec.Struct)


def body_of(form: Mapping[str, str], struct: type[Body]) -> Body:
    """A form as the API's own struct, held to the same rules; an empty field is one that was left out, where it may be.
    Raises the 422 Problem."""
    given = {}
    for field in msgspec.structs.fields(struct):
        value = form.get(field.encode_name, "").strip()
        if value or field.required:
            given[field.encode_name] = value
    try:
        return msgspec.convert(given, struct, strict=False)
    except msgspec.ValidationError as error:
        raise misfit(str(error)) from None


async def form_of(request: Request, limit: int = FORM_LIMIT) -> dict[str, str]:
    """The fields of a small form; of several values of a field the first. Raises the 400 or 413 Problem."""
    raw = b""
    try:
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > limit:
                raise Problem(413, "body-too-large", "The form is too large", f"At most {limit} bytes.")
    except ClientDisconnect:
        raise Problem(400, "incomplete-body", "The form ended early") from None
    fields: dict[str, str] = {}
    try:
        pairs = parse_qsl(raw.decode(errors="replace"), keep_blank_values=True, max_num_fields=200)
    except ValueError:
        raise Problem(400, "too-many-fields", "The form has too many fields", "At most 200.") from None
    for name, value in pairs:
        # PostgreSQL has no place for it in a text.
        fields.setdefault(name, value.replace("\0", "").replace("\r\n", "\n"))
    return fields
