"""The page of whoever is on call: one template, one style sheet, one script, in the house of all pages."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lostwax.kit.auth import Member
from lostwax.kit.house import House, language_of
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.problems import Problem
from lostwax.kit.staff_pages import StaffHouse, by_the_crm
from lostwax.telemetry.api import Door

WEB = Path(__file__).parent / "web"


def routes(door: Door, crm: Neighbour, now: Callable[[], datetime]) -> list[Route]:
    """The page, its files, sign-in and sign-out."""
    house = House("Telemetry", WEB, ("page.css", "page.js"))
    staff = StaffHouse(house, by_the_crm(crm), lambda token: door.member(token))

    async def home(request: Request, member: Member) -> Response:
        words = house.words_about(language_of(request), "")
        return house.page(request, "page.html", member=member, now=now().isoformat(), words=words)

    return [house.route("/", staff.signed_in(home)), *staff.routes()]


async def stands(crm: Neighbour, token: str) -> bool | None:
    """Whether the account behind a token stands, by the CRM's word; None when it gives none."""
    try:
        response = await crm.call(
            "GET",
            "/v1/staff/me",
            expected=(200, 401),
            missing="",
            headers={"Authorization": f"Bearer {token}"},
        )
    except Problem:
        return None
    return response.status_code == 200
