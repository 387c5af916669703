"""The operators' page: one template, one style sheet, one script, in the house of all pages."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lostwax.kit.auth import Member
from lostwax.kit.house import House, language_of
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.staff import StaffDoor
from lostwax.kit.staff_pages import StaffHouse, by_the_crm

WEB = Path(__file__).parent / "web"


def routes(door: StaffDoor, crm: Neighbour, now: Callable[[], datetime]) -> list[Route]:
    """The page, its files, sign-in and sign-out."""
    house = House("Workshop", WEB, ("page.css", "page.js"))
    staff = StaffHouse(house, by_the_crm(crm), lambda token: door.member(token))

    async def home(request: Request, member: Member) -> Response:
        words = house.words_about(language_of(request), "page ")
        return house.page(
            request, "page.html", member=member, role=member.role.value, now=now().isoformat(), words=words
        )

    return [house.route("/", staff.signed_in(home)), *staff.routes()]
