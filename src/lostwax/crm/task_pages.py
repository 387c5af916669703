"""Pages of tasks, of the sellers' load, and of letters."""

from collections.abc import Callable
from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from lostwax.crm import desk_store, tasks, tasks_api
from lostwax.crm.api import SELLERS
from lostwax.crm.handlers import Office
from lostwax.crm.layout_pages import Paged
from lostwax.kit.auth import Member
from lostwax.kit.house import body_of, form_of
from lostwax.kit.http import path_uuid, query
from lostwax.kit.paging import rows_wanted
from lostwax.kit.problems import Problem
from lostwax.kit.staff import admitted
from lostwax.kit.staff_pages import Shown

_ALL = "all"


def routes(office: Office, page: Paged, shown: Callable[[str, Shown, str], Route]) -> list[Route]:
    async def show_tasks(request: Request, member: Member, trouble: Problem | None = None) -> Response:
        everybody = request.query_params.get("of") == _ALL
        found = await tasks.to_do(office, None if everybody else member.staff_id, rows_wanted(request, usual=200))
        async with office.pool.acquire() as connection:
            sellers = await desk_store.sellers(connection)
        status = 200 if trouble is None else trouble.status
        return page(
            request, "tasks.html", member, status, tasks=found, everybody=everybody, sellers=sellers, trouble=trouble
        )

    async def add_task(request: Request, member: Member) -> Response:
        admitted(member, *SELLERS)
        form = await form_of(request)
        try:
            body = body_of(form, tasks_api.AddTask)
            await tasks.add(office, member, body.text, body.due_on, body.order_id, body.customer_id, body.seller_id)
        except Problem as problem:
            return await show_tasks(request, member, problem)
        return RedirectResponse("/tasks" if body.order_id is None else f"/orders/{body.order_id}", 303)

    async def finish(request: Request, member: Member) -> Response:
        admitted(member, *SELLERS)
        await tasks.done(office, path_uuid(request, "task_id", "task"))
        return RedirectResponse("/tasks", 303)

    async def show_load(request: Request, member: Member, trouble: Problem | None = None) -> Response:
        loads = await tasks.load(office)
        status = 200 if trouble is None else trouble.status
        return page(request, "workload.html", member, status, loads=loads, trouble=trouble)

    async def hand_over(request: Request, member: Member) -> Response:
        admitted(member, *SELLERS)
        try:
            body = body_of(await form_of(request), tasks_api.HandOver)
            await tasks.hand_over(office, member, body.from_seller, body.to_seller)
        except Problem as problem:
            return await show_load(request, member, problem)
        return RedirectResponse("/workload", 303)

    async def show_mails(request: Request, member: Member) -> Response:
        found = await tasks_api.mails_page(office, query(request, "after", UUID, None), rows_wanted(request))
        return page(request, "mails.html", member, shown=found)

    return [
        shown("/tasks", show_tasks, "GET"),
        shown("/tasks", add_task, "POST"),
        shown("/tasks/{task_id}", finish, "POST"),
        shown("/workload", show_load, "GET"),
        shown("/workload", hand_over, "POST"),
        shown("/mails", show_mails, "GET"),
    ]
