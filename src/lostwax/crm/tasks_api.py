"""HTTP of tasks, of the sellers' load, of handing work over, and of letters."""

from datetime import date
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from lostwax.crm import mail, mail_store, tasks
from lostwax.crm.api import LOOKERS, SELLERS
from lostwax.crm.handlers import Office
from lostwax.crm.layouts_store import Layout
from lostwax.crm.mail_store import MailLine
from lostwax.crm.tasks_store import HandedOver, Load, Task
from lostwax.kit.http import Operation, Parameter, answer, path_uuid, query
from lostwax.kit.paging import AN_ID, page_parameters, rows_wanted
from lostwax.kit.staff import STAFF_AUTH, StaffDoor


class AddTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`seller_id` left out: your own."""

    text: Annotated[str, Meta(min_length=1, max_length=1000, pattern=r"\S")]
    due_on: date
    order_id: UUID | None = None
    customer_id: UUID | None = None
    seller_id: UUID | None = None


class HandOver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Orders that are not over, customers and tasks: whose, and to whom."""

    from_seller: UUID
    to_seller: UUID


class Tasks(msgspec.Struct, frozen=True):
    tasks: list[Task]


class Loads(msgspec.Struct, frozen=True):
    sellers: list[Load]


class MailsPage(msgspec.Struct, frozen=True):
    """Newest first. Ask for the next page with `after=<next>`; no `next`: that was all."""

    mails: list[MailLine]
    next: UUID | None = None


async def mails_page(office: Office, before: UUID | None, limit: int) -> MailsPage:
    async with office.pool.acquire() as connection:
        found = await mail_store.newest(connection, before, limit + 1)
    return MailsPage(found[:limit], found[limit - 1].mail_id if len(found) > limit else None)


def operations(office: Office, door: StaffDoor) -> list[Operation]:
    async def list_tasks(request: Request) -> Response:
        await door.enter(request, *LOOKERS)
        seller = query(request, "seller", UUID, None)
        return answer(Tasks(await tasks.to_do(office, seller, rows_wanted(request))))

    async def add_task(request: Request, body: AddTask) -> Response:
        member = await door.enter(request, *SELLERS)
        added = await tasks.add(office, member, body.text, body.due_on, body.order_id, body.customer_id, body.seller_id)
        return answer(added, 201)

    async def finish_task(request: Request) -> Response:
        await door.enter(request, *SELLERS)
        return answer(await tasks.done(office, path_uuid(request, "task_id", "task")))

    async def get_workload(request: Request) -> Response:
        await door.enter(request, *LOOKERS)
        return answer(Loads(await tasks.load(office)))

    async def hand_over(request: Request, body: HandOver) -> Response:
        member = await door.enter(request, *SELLERS)
        return answer(await tasks.hand_over(office, member, body.from_seller, body.to_seller))

    async def mail_layout(request: Request) -> Response:
        member = await door.enter(request, *SELLERS)
        sent = await mail.send_layout(office, member, path_uuid(request, "layout_id", "layout"))
        return answer(sent.layout, 202)

    async def list_mails(request: Request) -> Response:
        await door.enter(request, *LOOKERS)
        return answer(await mails_page(office, query(request, "after", UUID, None), rows_wanted(request)))

    look = {403: "for sellers, supervisors and administrators"}
    write = {403: "for sellers and administrators"}
    wrong = {400: "a parameter is wrong"}
    rows = Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 200}, "rows")
    mine = Parameter("seller", "query", dict(AN_ID), "only this seller's")
    return [
        Operation(
            "GET",
            "/v1/tasks",
            list_tasks,
            "What is to be done, what is due first",
            {200: Tasks},
            look | wrong,
            parameters=(rows, mine),
            auth=STAFF_AUTH,
        ),
        Operation(
            "POST", "/v1/tasks", add_task, "Something to do by a day", {201: Task}, write, body=AddTask, auth=STAFF_AUTH
        ),
        Operation(
            "POST",
            "/v1/tasks/{task_id}/done",
            finish_task,
            "It is done",
            {200: Task},
            write | {404: "no such task"},
            auth=STAFF_AUTH,
        ),
        Operation(
            "GET", "/v1/workload", get_workload, "What each seller has on the desk", {200: Loads}, look, auth=STAFF_AUTH
        ),
        Operation(
            "POST",
            "/v1/hand-over",
            hand_over,
            "Give all of a seller's work to another",
            {200: HandedOver},
            {403: "for sellers, of their own, and administrators"},
            body=HandOver,
            auth=STAFF_AUTH,
        ),
        Operation(
            "POST",
            "/v1/layouts/{layout_id}/mail",
            mail_layout,
            "Send the customer a letter with a fresh link",
            {202: Layout},
            write | {404: "no such layout", 409: "settled, or the customer may not be written to"},
            auth=STAFF_AUTH,
        ),
        Operation(
            "GET",
            "/v1/mails",
            list_mails,
            "Letters to customers and what became of them, newest first",
            {200: MailsPage},
            look | wrong,
            parameters=page_parameters(),
            auth=STAFF_AUTH,
        ),
    ]
