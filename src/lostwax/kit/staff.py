"""The staff's doors: who comes in by their token, whether their account still says so, and what their role may."""

import time
from collections.abc import Awaitable, Callable
from uuid import UUID

import msgspec
from starlette.requests import Request

from lostwax.contracts.staff import Role
from lostwax.kit.auth import BadCredentials, Member, StaffVerifier
from lostwax.kit.http import bearer
from lostwax.kit.problems import Problem, unauthorized

STAFF_AUTH = "staff"

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
        if account.version > member.version and account.role is not member.role:
            raise unauthorized(f"You are a {account.role} now: sign in again.")
        return member

    async def enter(self, request: Request, *roles: Role) -> Member:
        """The member whose bearer token the request carries, if their role is one of `roles` (none: any). Raises the
        401 or 403 Problem."""
        token = bearer(request)
        if token is None:
            raise unauthorized("Sign in, and send the token: Authorization: Bearer <token>.")
        return admitted(await self.member(token), *roles)


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
