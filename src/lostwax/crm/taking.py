"""Use cases of taking an order for a customer, by telephone or mail: what the CRM keeps with it, and its model."""

from uuid import UUID

import msgspec

from lostwax.channel import models, orders_client
from lostwax.channel.handlers import Beside
from lostwax.channel.models import Models
from lostwax.channel.models_store import ModelRow
from lostwax.crm import customers, customers_store, desk_store, handlers
from lostwax.crm.handlers import Office
from lostwax.kit.auth import Member
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.postgres import Connection
from lostwax.kit.problems import Problem


class NewCustomer(msgspec.Struct, frozen=True):
    """Somebody who is not known yet. `consent`: how they allowed to be written to."""

    kind: str
    name: str
    phone: str
    email: str
    consent: str | None


def for_customer(office: Office, member: Member, whom: UUID | NewCustomer, remarks: str) -> Beside:
    """For whom a seller takes an order, and what they write down: kept in the order's own transaction, so that an order
    that is refused adds no customer, and one that is sent twice adds one."""

    async def check() -> None:
        if isinstance(whom, NewCustomer):
            return
        async with office.pool.acquire() as connection:
            known = await customers_store.customer(connection, whom)
        if known is None:
            raise Problem(
                422,
                "no-such-customer",
                "There is no such customer",
                "customer_id: one of GET /v1/customers; or say who they are in `customer`.",
            )
        if known.merged_into is not None:
            raise Problem(
                409,
                "merged",
                "This customer was merged into another",
                "Take the order for that one.",
                merged_into=str(known.merged_into),
            )

    async def keep(connection: Connection, order_id: UUID) -> None:
        if isinstance(whom, NewCustomer):
            customer_id = await customers.insert(
                connection, member, whom.kind, whom.name, whom.phone, whom.email, whom.consent, office.now()
            )
        else:
            customer_id = whom
        await desk_store.take(connection, order_id, customer_id, member.staff_id, remarks)

    return Beside(msgspec.json.encode([whom, remarks]), check, keep)


async def take_model(office: Office, own: Models, orders: Neighbour, client_id: UUID, order_id: UUID) -> ModelRow:
    """Put the model of an order of any door among the desk's own, so that it can be priced and ordered again. Raises
    the 404 Problem for an order that is not known, 409 when the store does not have its model, 503 with Orders away."""
    model = (await handlers.known_order(office, order_id)).specification.model
    await orders_client.model_link(orders, model.sha256, model.name)
    return await models.adopt_stored(own, client_id, model.sha256, model.size_bytes, model.name)
