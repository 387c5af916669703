"""The staff's doors: who comes in by their token, whether their account still says so, and what their role may."""

import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from starlette.requests import Request

from lostwax.contracts.staff import Role
from lostwax.kit.auth import BadCredentials, Member, StaffVerifier
from lostwax.kit.http import bearer
from lostwax.kit.problems import Problem, unauthorized

STAFF_AUTH = "staff"

TOKEN_COOKIE = "staff"
"""Where the pages of the house keep the token of who is signed in."""

_LOOK_AGAIN_S = 0.5
"""How old a look at an account may be: a withdrawn member's token works that long."""

_REMEMBERED = 10_000


class Account(msgspec.Struct, frozen=True):
    """What a service's own database says of a member now."""

    role: Role
    active: bool
    version: int


class StaffDoor:
    """Lets staff in. `account` looks a member up in the service's own database (None: unknown there); no other service
    and no broker is asked, so that those who are signed in go on working whatever is away."""

    def __init__(self, verifier: StaffVerifier, account: Callable[[Member], Awaitable[Account | None]]) -> None:
        self._verifier = verifier
        self._account = account
        self._seen: dict[tuple[UUID, int], tuple[float, Account | None]] = {}

    async def member(self, token: str) -> Member:
        """Whose token this is. Raises the 401 Problem when it is not good, or not good any more."""
        try:
            member = self._verifier.member(token)
        except BadCredentials as error:
            raise unauthorized(f"Sign in again: {error}.") from None
        now = time.monotonic()
        key = (member.staff_id, member.version)
        looked, account = self._seen.get(key, (0.0, None))
        if account is None or looked + _LOOK_AGAIN_S < now:
            account = await self._account(member)
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            self._seen[key] = (now, account)
        if account is None or not account.active:
            raise unauthorized("This account was withdrawn.")
        if account.version > member.version:
            # Whatever changed an account, its tokens of before end: that is how a session is revoked.
            if account.role is not member.role:
                raise unauthorized(f"You are a {account.role} now: sign in again.")
            raise unauthorized("You were signed out everywhere: sign in again.")
        return member

    async def enter(self, request: Request, *roles: Role) -> Member:
        """The member whose token the request carries, if their role is one of `roles` (none: any). Raises the 401 or
        403 Problem."""
        return admitted(await self.member(staff_token(request)), *roles)


def staff_token(request: Request) -> str:
    """The token that a request carries: as a bearer, or in the cookie that the pages of the house set at sign-in; by
    the cookie nothing is done that another page asks for. Raises the 401 or 403 Problem."""
    token = bearer(request)
    if token is None and (token := request.cookies.get(TOKEN_COOKIE)) is not None and request.method != "GET":
        refuse_cross_site(request)
    if token is None:
        raise unauthorized("Sign in with your badge, or send your token: Authorization: Bearer <token>.")
    return token


def refuse_cross_site(request: Request) -> None:
    """Raise the 403 Problem for what a browser sends from another page than ours.

    SameSite=Strict is not enough: a page on another port of this host is the same site. Browsers send Sec-Fetch-Site
    over HTTPS and to localhost only, and Origin with every POST; programs that are no browsers send neither.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        own = site in ("same-origin", "none")
    else:
        own = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if not own:
        raise Problem(403, "cross-site", "This came from another page", "Use the page itself, or a bearer token.")


def admitted(member: Member, *roles: Role) -> Member:
    """The member, if their role is one of `roles` (none: any). Raises the 403 Problem that names the roles."""
    if roles and member.role not in roles:
        raise Problem(
            403,
            "role-may-not",
            "Your role may not do this",
            f"You are signed in as {member.role}; this is for: {', '.join(roles)}.",
            role=member.role,
            roles=list(roles),
        )
    return member
