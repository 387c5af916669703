"""The page of reports: one template, a style sheet, a script and uPlot (npm's uplot 1.6.32, MIT), in the house of all
pages."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lostwax.kit.auth import Member
from lostwax.kit.house import House, language_of
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.staff_pages import StaffHouse, by_the_crm
from lostwax.reporting.api import ReportsDoor

WEB = Path(__file__).parent / "web"


def routes(door: ReportsDoor, crm: Neighbour) -> list[Route]:
    """The page, its files, sign-in and sign-out."""
    house = House("Reports", WEB, ("page.css", "uplot.css", "page.js", "uplot.js"))
    staff = StaffHouse(house, by_the_crm(crm), lambda token: door.staff.member(token))

    async def home(request: Request, member: Member) -> Response:
        words = house.words_about(language_of(request), "")
        return house.page(request, "page.html", member=member, words=words)

    return [house.route("/", staff.signed_in(home)), *staff.routes()]
