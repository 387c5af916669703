"""OpenAPI 3.1 of each service, from the same operations that it serves.

Operations close over what they work with (pools, stores, keys) and touch it only when they are called, so that here
they are made over nothing. What a service serves at /openapi.json is the same document: a test compares the two.
"""

from collections.abc import Callable, Mapping
from typing import Any

from lostwax.crm import api as crm
from lostwax.kit import http
from lostwax.kit.http import Operation
from lostwax.kit.rebuilding import rebuild_operations
from lostwax.kit.service_calls import publishing_operations
from lostwax.mes import api as mes
from lostwax.orders import api as orders
from lostwax.orders import models_api as orders_models
from lostwax.orders import price_jobs_api as orders_price_jobs
from lostwax.partner_api import api as partner_api
from lostwax.partner_api import hooks_api, keys_api, models_api, price_jobs_api, quotes_api

_NOTHING: Any = None


def _publishing() -> list[Operation]:
    return publishing_operations((), _NOTHING, _NOTHING, _NOTHING)


SERVICES: Mapping[str, tuple[str, Callable[[], list[Operation]]]] = {
    "partner_api": (
        "Order pieces from 3D models, as a partner of the workshop.",
        lambda: [
            *partner_api.operations(_NOTHING),
            *models_api.operations(_NOTHING, _NOTHING),
            *quotes_api.operations(_NOTHING),
            *price_jobs_api.operations(_NOTHING, _NOTHING),
            *hooks_api.operations(_NOTHING, _NOTHING),
            *keys_api.operations(_NOTHING, _NOTHING),
            partner_api.resend_operation(_NOTHING, _NOTHING),
            *_publishing(),
            *rebuild_operations(_NOTHING, _NOTHING),
        ],
    ),
    "orders": (
        "Orders, for other services of Lostwax.",
        lambda: [
            *orders.operations(_NOTHING, _NOTHING, _NOTHING),
            *orders_models.operations(_NOTHING, _NOTHING, largest_put_bytes=0),
            *orders_price_jobs.operations(_NOTHING, _NOTHING, _NOTHING),
            orders.announcement_operation(_NOTHING, _NOTHING),
            *_publishing(),
            *rebuild_operations(_NOTHING, _NOTHING),
        ],
    ),
    "pricing": ("Prices models; it has no API of its own.", list),
    "mes": (
        "The workshop's queue, for operators.",
        lambda: [
            *mes.operations(_NOTHING, _NOTHING, _NOTHING),
            *_publishing(),
            *rebuild_operations(_NOTHING, _NOTHING),
        ],
    ),
    "crm": (
        "The sellers' door, and the accounts of the staff.",
        lambda: [
            crm.sign_in_operation(_NOTHING, _NOTHING, _NOTHING),
            *crm.staff_operations(_NOTHING, _NOTHING),
            *crm.order_operations(_NOTHING, _NOTHING, _NOTHING),
            *_publishing(),
        ],
    ),
}
"""For each service, as its `main` wires it: what it is, and its operations."""


def openapi(service: str) -> dict[str, Any]:
    """The document of one service. Raises KeyError for a name that is none of SERVICES."""
    description, operations = SERVICES[service]
    return http.openapi(service, operations(), description)
