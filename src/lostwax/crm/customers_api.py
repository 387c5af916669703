"""HTTP of customers and of the search, for sellers."""

from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from lostwax.contracts.ids import new_id
from lostwax.crm import customers, customers_store, desk_store, domain, handlers, selling
from lostwax.crm.api import LOOKERS, SELLERS
from lostwax.crm.customers import CustomerView
from lostwax.crm.customers_store import Contact, CustomerLine
from lostwax.crm.handlers import Office
from lostwax.crm.selling import Found
from lostwax.kit.http import Operation, Parameter, answer, path_uuid, query
from lostwax.kit.paging import page_parameters, rows_wanted
from lostwax.kit.staff import STAFF_AUTH, StaffDoor

Kind = Literal["person", "firm"]
Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"\S")]
Phone = Annotated[str, Meta(max_length=40, pattern=r"^[+0-9()\-./ ]*$")]
Email = Annotated[str, Meta(max_length=200, pattern=r"^([^@\s<>,;]+@[^@\s<>,;]+\.[^@\s<>,;]+)?$")]
Version = Annotated[int, Meta(ge=1, le=2**31 - 1, description="the version that you saw")]
Text = Annotated[str, Meta(min_length=1, max_length=4000, pattern=r"\S")]
How = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"\S")]


class AddCustomer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`consent`: how they allowed to be written to; left out: they did not."""

    name: Name
    kind: Kind = "person"
    phone: Phone = ""
    email: Email = ""
    consent: How | None = None


class ChangeCustomer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`seller_id` left out: whose customer it is stays."""

    name: Name
    kind: Kind
    version: Version
    seller_id: UUID | None = None


class AddContact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Name
    version: Version
    position: Annotated[str, Meta(max_length=100)] = ""
    phone: Phone = ""
    email: Email = ""


class RemoveContact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Version


class Consent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`how` it was given; null takes it back."""

    how: How | None
    version: Version


class AddNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: Text


class Merge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Into whom: the one that remains."""

    into: UUID
    version: Version


class LinkCustomer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    customer_id: UUID


class Linked(msgspec.Struct, frozen=True):
    order_id: UUID
    customer_id: UUID


class CustomersPage(msgspec.Struct, frozen=True):
    """Newest first. Ask for the next page with `after=<next>`; no `next`: that was all."""

    customers: list[CustomerLine]
    next: UUID | None = None


class Seller(msgspec.Struct, frozen=True):
    staff_id: UUID
    name: str


class Sellers(msgspec.Struct, frozen=True):
    sellers: list[Seller]


async def customers_page(
    office: Office, text: str, seller_id: UUID | None, before: UUID | None, limit: int
) -> CustomersPage:
    """Customers that are found by `text`; all of them for none."""
    wanted = domain.search_query(text)
    async with office.pool.acquire() as connection:
        if text.strip() and wanted is None:
            return CustomersPage([])
        if wanted is not None:
            found = await customers_store.found(connection, wanted, before, limit + 1)
        else:
            found = await customers_store.page(connection, seller_id, before, limit + 1)
    return CustomersPage(found[:limit], found[limit - 1].customer_id if len(found) > limit else None)


def operations(office: Office, door: StaffDoor) -> list[Operation]:
    """Customers, for sellers and administrators; supervisors look."""

    async def search(request: Request) -> Response:
        await door.enter(request, *LOOKERS)
        return answer(await selling.search(office, query(request, "q", Annotated[str, Meta(max_length=200)], "")))

    async def list_customers(request: Request) -> Response:
        await door.enter(request, *LOOKERS)
        limit = rows_wanted(request)
        text = query(request, "q", Annotated[str, Meta(max_length=200)], "")
        seller_id = query(request, "seller", UUID, None)
        before = query(request, "after", UUID, None)
        return answer(await customers_page(office, text, seller_id, before, limit))

    async def get_sellers(request: Request) -> Response:
        await door.enter(request, *LOOKERS)
        async with office.pool.acquire() as connection:
            return answer(Sellers([Seller(i, name) for i, name in await desk_store.sellers(connection)]))

    async def get_customer(request: Request) -> Response:
        await door.enter(request, *LOOKERS)
        return answer(await customers.view(office, path_uuid(request, "customer_id", "customer")))

    async def add_customer(request: Request, body: AddCustomer) -> Response:
        member = await door.enter(request, *SELLERS)
        added = await customers.add(office, member, body.kind, body.name, body.phone, body.email, body.consent)
        return answer(added, 201, {"Location": f"/v1/customers/{added.customer_id}"})

    async def change_customer(request: Request, body: ChangeCustomer) -> Response:
        member = await door.enter(request, *SELLERS)
        customer_id = path_uuid(request, "customer_id", "customer")
        changed = await customers.rename(
            office, member, customer_id, body.kind, body.name, body.seller_id, body.version
        )
        return answer(changed)

    async def add_contact(request: Request, body: AddContact) -> Response:
        member = await door.enter(request, *SELLERS)
        customer_id = path_uuid(request, "customer_id", "customer")
        contact = Contact(new_id(), body.name, body.position, body.phone, body.email)
        return answer(await customers.add_contact(office, member, customer_id, contact, body.version), 201)

    async def remove_contact(request: Request, body: RemoveContact) -> Response:
        member = await door.enter(request, *SELLERS)
        customer_id = path_uuid(request, "customer_id", "customer")
        contact_id = path_uuid(request, "contact_id", "contact")
        return answer(await customers.remove_contact(office, member, customer_id, contact_id, body.version))

    async def set_consent(request: Request, body: Consent) -> Response:
        member = await door.enter(request, *SELLERS)
        customer_id = path_uuid(request, "customer_id", "customer")
        return answer(await customers.set_consent(office, member, customer_id, body.how, body.version))

    async def add_note(request: Request, body: AddNote) -> Response:
        member = await door.enter(request, *SELLERS)
        customer_id = path_uuid(request, "customer_id", "customer")
        return answer(await customers.add_note(office, member, customer_id, body.text), 201)

    async def merge_customer(request: Request, body: Merge) -> Response:
        member = await door.enter(request, *SELLERS)
        customer_id = path_uuid(request, "customer_id", "customer")
        return answer(await customers.merge(office, member, customer_id, body.into, body.version))

    async def link_customer(request: Request, body: LinkCustomer) -> Response:
        member = await door.enter(request, *SELLERS)
        order_id = path_uuid(request, "order_id", "order")
        await handlers.seen_order(office, order_id)
        await customers.link_order(office, member, order_id, body.customer_id)
        return answer(Linked(order_id, body.customer_id))

    look = {403: "for sellers, supervisors and administrators"}
    wrong = {400: "a parameter is wrong"}
    text = Parameter("q", "query", {"type": "string", "maxLength": 200}, "what to search for")
    mine = Parameter("seller", "query", {"type": "string", "format": "uuid"}, "only this seller's")

    def change(
        path: str, endpoint: object, summary: str, body: type[msgspec.Struct], method: str = "POST", status: int = 200
    ) -> Operation:
        return Operation(
            method,
            f"/v1/customers/{{customer_id}}{path}",
            endpoint,  # type: ignore[arg-type]
            summary,
            {status: CustomerView},
            {
                403: "for sellers and administrators",
                404: "no such customer",
                409: "changed since; `changed` says what was done, and who did it",
            },
            body=body,
            auth=STAFF_AUTH,
        )

    return [
        Operation(
            "GET",
            "/v1/search",
            search,
            "Orders and customers by code, reference, name, mail address or the end of a telephone number",
            {200: Found},
            look | wrong,
            parameters=(text,),
            auth=STAFF_AUTH,
        ),
        Operation(
            "GET",
            "/v1/customers",
            list_customers,
            "Customers, newest first",
            {200: CustomersPage},
            look | wrong,
            parameters=(*page_parameters(), text, mine),
            auth=STAFF_AUTH,
        ),
        Operation("GET", "/v1/sellers", get_sellers, "Who sells now", {200: Sellers}, look, auth=STAFF_AUTH),
        Operation(
            "POST",
            "/v1/customers",
            add_customer,
            "Add a customer; `doubles` are who shares a number or an address",
            {201: CustomerView},
            {403: "for sellers and administrators"},
            body=AddCustomer,
            auth=STAFF_AUTH,
        ),
        Operation(
            "GET",
            "/v1/customers/{customer_id}",
            get_customer,
            "One customer, with contacts, notes and what was done",
            {200: CustomerView},
            look | {404: "no such customer"},
            auth=STAFF_AUTH,
        ),
        change("", change_customer, "Change name, kind or seller of a customer", ChangeCustomer, "PUT"),
        change("/contacts", add_contact, "Add a way to reach a customer", AddContact, status=201),
        change("/contacts/{contact_id}/remove", remove_contact, "Remove a contact", RemoveContact),
        change("/consent", set_consent, "Keep that a customer may be written to, or not any more", Consent),
        change("/notes", add_note, "Write a note", AddNote, status=201),
        change("/merge", merge_customer, "This customer is the same as another", Merge),
        Operation(
            "POST",
            "/v1/orders/{order_id}/customer",
            link_customer,
            "Keep for which customer an order is",
            {200: Linked},
            {403: "for sellers and administrators", 404: "no such order or customer", 409: "the customer was merged"},
            body=LinkCustomer,
            auth=STAFF_AUTH,
        ),
    ]
