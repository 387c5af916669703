"""Use cases of tasks, of the sellers' load, and of handing work over; each one transaction."""

from datetime import date
from uuid import UUID

from lostwax.contracts.ids import new_id
from lostwax.contracts.staff import Role
from lostwax.crm import desk_store, tasks_store
from lostwax.crm.handlers import Office
from lostwax.crm.tasks_store import HandedOver, Load, Task
from lostwax.kit.auth import Member
from lostwax.kit.postgres import Connection
from lostwax.kit.problems import Problem


async def add(
    office: Office,
    member: Member,
    text: str,
    due_on: date,
    order_id: UUID | None,
    customer_id: UUID | None,
    seller_id: UUID | None,
) -> Task:
    """A task of the member's own, or for another seller. Raises the 422 Problem for somebody who does not sell."""
    task_id = new_id()
    async with office.pool.acquire() as connection, connection.transaction():
        seller = member.staff_id if seller_id is None else seller_id
        await _must_sell(connection, seller)
        if customer_id is not None and not await connection.fetchval(
            "SELECT EXISTS (SELECT FROM customers WHERE customer_id = $1)", customer_id
        ):
            raise Problem(422, "no-such-customer", "No such customer", "customer_id: see GET /v1/customers.")
        await tasks_store.insert(
            connection, task_id, seller, text, due_on, order_id, customer_id, member.staff_id, office.now()
        )
        return await _known(connection, task_id)


async def _must_sell(connection: Connection, staff_id: UUID) -> None:
    if staff_id not in dict(await desk_store.sellers(connection)):
        raise Problem(422, "no-such-seller", "Nobody sells under this id", "See GET /v1/sellers.")


async def _known(connection: Connection, task_id: UUID) -> Task:
    found = await tasks_store.task(connection, task_id)
    if found is None:
        raise Problem(404, "not-found", "No such task", "See GET /v1/tasks.")
    return found


async def done(office: Office, task_id: UUID) -> Task:
    """Raises the 404 Problem. Done twice is done once."""
    async with office.pool.acquire() as connection, connection.transaction():
        await _known(connection, task_id)
        await tasks_store.set_done(connection, task_id, office.now())
        return await _known(connection, task_id)


async def to_do(office: Office, seller_id: UUID | None, limit: int) -> list[Task]:
    async with office.pool.acquire() as connection:
        return await tasks_store.to_do(connection, seller_id, limit)


async def load(office: Office) -> list[Load]:
    async with office.pool.acquire() as connection:
        return await tasks_store.load(connection, office.now().date())


async def hand_over(office: Office, member: Member, from_id: UUID, to_id: UUID) -> HandedOver:
    """Sellers hand over what is their own; administrators anybody's, also of who has left. Raises the 403 and 422
    Problems."""
    if member.role is not Role.ADMINISTRATOR and from_id != member.staff_id:
        raise Problem(403, "not-yours", "This is another seller's work", "Only an administrator hands that over.")
    if from_id == to_id:
        raise Problem(422, "same-seller", "This is the same seller", "to: another seller's id.")
    async with office.pool.acquire() as connection, connection.transaction():
        await _must_sell(connection, to_id)
        return await tasks_store.hand_over(connection, from_id, to_id)
