"""HTTP of the staff's accounts, for administrators, and of sign-in, for everybody and for other doors of the staff."""

import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from lostwax.contracts.staff import Role
from lostwax.crm import domain, handlers, store
from lostwax.crm.handlers import Office
from lostwax.crm.sign_in import Failures
from lostwax.crm.store import StaffRow
from lostwax.kit.auth import BadCredentials, Member, ServiceVerifier, StaffSigner
from lostwax.kit.http import Operation, answer, bearer, path_uuid, query
from lostwax.kit.paging import page_parameters, rows_wanted
from lostwax.kit.problems import Problem, unauthorized
from lostwax.kit.staff import STAFF_AUTH, StaffDoor

Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"\S")]


class SignIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    badge: Annotated[str, Meta(min_length=1, max_length=200)]


class StaffView(msgspec.Struct, frozen=True):
    """A member of the staff. `active` false: withdrawn."""

    staff_id: UUID
    name: str
    role: Role
    active: bool
    created_at: datetime


class SignedIn(msgspec.Struct, frozen=True):
    """Send `token` with every request: Authorization: Bearer <token>. It ends at `expires_at`, or when the account is
    withdrawn or gets another role."""

    token: str
    expires_at: datetime
    staff: StaffView


class Own(msgspec.Struct, frozen=True):
    staff_id: UUID
    name: str
    role: Role


class AddStaff(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Name
    role: Role


class Added(msgspec.Struct, frozen=True):
    """A new member. The badge is shown this once."""

    staff: StaffView
    badge: str


class SetRole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: Role


class StaffPage(msgspec.Struct, frozen=True):
    """In the order in which they came. Ask for the next page with `after=<next>`; no `next`: that was all."""

    staff: list[StaffView]
    next: UUID | None = None


Entrance = Callable[[str, str], Awaitable[SignedIn]]
"""Signs in who holds a badge that came from an address. Raises the 401 and 429 Problems."""


def entrance(office: Office, signer: StaffSigner) -> Entrance:
    failures = Failures()

    async def enter(badge: str, address: str) -> SignedIn:
        wait_s = failures.wait_s(address, time.monotonic())
        if wait_s:
            raise Problem(
                429,
                "too-many-failures",
                "Too many badges from here were unknown",
                f"Try again in {wait_s} s.",
                headers={"Retry-After": str(wait_s)},
            )
        holder = await handlers.badge_holder(office, badge)
        if holder is None:
            failures.failed(address, time.monotonic())
            raise unauthorized("This badge is not known, or was withdrawn.")
        member = Member(holder.staff_id, holder.name, holder.role, holder.version)
        token, expires_at = signer.token(member, office.now(), domain.SHIFT)
        return SignedIn(token, expires_at, _staff_view(holder))

    return enter


def sign_in_operation(enter: Entrance, verifier: ServiceVerifier) -> Operation:
    """Sign-in, by anybody with a badge. Another door of the staff passes on the address that the badge came from."""

    async def sign_in(request: Request, body: SignIn) -> Response:
        signed_in = await enter(body.badge, _address(request, verifier))
        return answer(signed_in, headers={"Cache-Control": "no-store"})

    return Operation(
        "POST",
        "/v1/sign-in",
        sign_in,
        "Sign in with a badge, for a shift of twelve hours",
        {200: SignedIn},
        {401: "no such badge", 429: "too many unknown badges from this address; see Retry-After"},
        body=SignIn,
    )


def _address(request: Request, verifier: ServiceVerifier) -> str:
    """Where a badge came from: what a service of ours says by X-Forwarded-For, else the other end of the line."""
    forwarded, token = request.headers.get("x-forwarded-for"), bearer(request)
    if forwarded is not None and token is not None:
        try:
            verifier.caller(token)
        except BadCredentials as error:
            raise unauthorized(str(error)) from None
        return forwarded[:100]
    return request.client.host if request.client is not None else ""


def operations(office: Office, door: StaffDoor) -> list[Operation]:
    """Accounts, for administrators."""

    async def get_own(request: Request) -> Response:
        member = await door.enter(request)
        return answer(Own(member.staff_id, member.name, member.role))

    async def list_staff(request: Request) -> Response:
        await door.enter(request, Role.ADMINISTRATOR)
        limit = rows_wanted(request)
        after = query(request, "after", UUID, None)
        async with office.pool.acquire() as connection:
            rows = await store.staff_page(connection, after, limit + 1)
        shown = [_staff_view(row) for row in rows[:limit]]
        return answer(StaffPage(shown, shown[-1].staff_id if len(rows) > limit else None))

    async def add_staff(request: Request, body: AddStaff) -> Response:
        await door.enter(request, Role.ADMINISTRATOR)
        async with office.pool.acquire() as connection:
            row, badge = await handlers.add_staff(connection, body.name, body.role, office.now())
        return answer(Added(_staff_view(row), badge), 201, {"Cache-Control": "no-store"})

    async def withdraw_staff(request: Request) -> Response:
        await door.enter(request, Role.ADMINISTRATOR)
        staff_id = path_uuid(request, "staff_id", "member of the staff")
        async with office.pool.acquire() as connection:
            return answer(_staff_view(await handlers.withdraw_staff(connection, staff_id, office.now())))

    async def end_sessions(request: Request) -> Response:
        await door.enter(request, Role.ADMINISTRATOR)
        staff_id = path_uuid(request, "staff_id", "member of the staff")
        async with office.pool.acquire() as connection:
            return answer(_staff_view(await handlers.end_sessions(connection, staff_id)))

    async def set_role(request: Request, body: SetRole) -> Response:
        await door.enter(request, Role.ADMINISTRATOR)
        staff_id = path_uuid(request, "staff_id", "member of the staff")
        async with office.pool.acquire() as connection:
            return answer(_staff_view(await handlers.set_role(connection, staff_id, body.role)))

    role = {403: "for administrators"}
    absent = role | {404: "no such member"}
    return [
        Operation(
            "GET",
            "/v1/staff/me",
            get_own,
            "Whose token this is, while the account stands: for doors without a database of their own",
            {200: Own},
            auth=STAFF_AUTH,
        ),
        Operation(
            "GET",
            "/v1/staff",
            list_staff,
            "Everybody who works here, or did",
            {200: StaffPage},
            role | {400: "a parameter is wrong"},
            parameters=page_parameters(),
            auth=STAFF_AUTH,
        ),
        Operation(
            "POST",
            "/v1/staff",
            add_staff,
            "Add a member of the staff; shows the badge this once",
            {201: Added},
            role,
            body=AddStaff,
            auth=STAFF_AUTH,
        ),
        Operation(
            "POST",
            "/v1/staff/{staff_id}/withdraw",
            withdraw_staff,
            "End an account; whoever is signed in by it is refused at once",
            {200: StaffView},
            absent,
            auth=STAFF_AUTH,
        ),
        Operation(
            "POST",
            "/v1/staff/{staff_id}/end-sessions",
            end_sessions,
            "Sign a member out everywhere; the badge stays good",
            {200: StaffView},
            absent,
            auth=STAFF_AUTH,
        ),
        Operation(
            "POST",
            "/v1/staff/{staff_id}/role",
            set_role,
            "Give a member another role; they sign in again",
            {200: StaffView},
            absent | {409: "the account was withdrawn"},
            body=SetRole,
            auth=STAFF_AUTH,
        ),
    ]


def _staff_view(row: StaffRow) -> StaffView:
    return StaffView(row.staff_id, row.name, row.role, row.withdrawn_at is None, row.created_at)
