"""OpenAPI 3.1 of each service, from the same operations that it serves.

Operations close over what they work with (pools, stores, keys) and touch it only when they are called, so that here
they are made over nothing. What a service serves at /openapi.json is the same document: a test compares the two.
"""

from collections.abc import Callable, Mapping
from typing import Any

from lostwax.channel import api as channel
from lostwax.channel import models_api, offer_api, price_jobs_api, quotes_api
from lostwax.crm import api as crm
from lostwax.crm import conversation_api as crm_conversation
from lostwax.crm import customers_api, door_api, layouts_api, staff_api, tasks_api
from lostwax.kit import http
from lostwax.kit.http import Operation
from lostwax.kit.rebuilding import rebuild_operations
from lostwax.kit.service_calls import publishing_operations
from lostwax.kit.staff import STAFF_AUTH
from lostwax.mes import api as mes
from lostwax.orders import api as orders
from lostwax.orders import models_api as orders_models
from lostwax.orders import price_jobs_api as orders_price_jobs
from lostwax.partner_api import hooks_api, keys_api
from lostwax.partner_api.callers import AUTH as API_KEY
from lostwax.reporting import api as reporting
from lostwax.reporting import console_api as reporting_console
from lostwax.shop import api as shop
from lostwax.shop import conversation_api as shop_conversation
from lostwax.shop.callers import AUTH as SESSION
from lostwax.telemetry import api as telemetry

_NOTHING: Any = None


def _publishing() -> list[Operation]:
    return publishing_operations((), _NOTHING, _NOTHING, _NOTHING)


def _of_a_channel(auth: str) -> list[Operation]:
    return [*channel.operations(_NOTHING, auth), *_of_models(auth)]


def _of_models(auth: str) -> list[Operation]:
    return [
        *models_api.operations(_NOTHING, _NOTHING, auth),
        *quotes_api.operations(_NOTHING, auth),
        *price_jobs_api.operations(_NOTHING, _NOTHING, auth),
    ]


SERVICES: Mapping[str, tuple[str, Callable[[], list[Operation]]]] = {
    "partner_api": (
        "Order pieces from 3D models, as a partner of the workshop.",
        lambda: [
            *_of_a_channel(API_KEY),
            *hooks_api.operations(_NOTHING, _NOTHING),
            *keys_api.operations(_NOTHING, _NOTHING),
            channel.resend_operation(_NOTHING, _NOTHING),
            *_publishing(),
            *rebuild_operations(_NOTHING, _NOTHING),
        ],
    ),
    "shop": (
        "The internet shop, for people.",
        lambda: [
            *_of_a_channel(SESSION),
            *shop.operations(_NOTHING, _NOTHING, _NOTHING, _NOTHING),
            *shop_conversation.operations(_NOTHING, _NOTHING),
            *offer_api.operations(_NOTHING, SESSION),
            channel.resend_operation(_NOTHING, _NOTHING),
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
    "telemetry": (
        "What all services did: logs, metrics and traces. In no order's path.",
        lambda: telemetry.operations(_NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING),
    ),
    "reporting": (
        "What the business did, from changes captured in every database. In no order's path.",
        lambda: [
            *reporting.operations(_NOTHING, _NOTHING, _NOTHING, _NOTHING),
            *reporting_console.operations(_NOTHING, _NOTHING, _NOTHING),
        ],
    ),
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
            staff_api.sign_in_operation(_NOTHING, _NOTHING),
            *staff_api.operations(_NOTHING, _NOTHING),
            *crm.operations(_NOTHING, _NOTHING, _NOTHING),
            *customers_api.operations(_NOTHING, _NOTHING),
            *layouts_api.operations(_NOTHING, _NOTHING),
            *tasks_api.operations(_NOTHING, _NOTHING),
            *crm_conversation.operations(_NOTHING, _NOTHING, _NOTHING, ""),
            *door_api.guarded(
                [
                    *door_api.operations(_NOTHING, _NOTHING, _NOTHING, _NOTHING),
                    *_of_models(STAFF_AUTH),
                    *offer_api.operations(_NOTHING, STAFF_AUTH),
                ],
                _NOTHING,
            ),
            channel.resend_operation(_NOTHING, _NOTHING),
            *_publishing(),
            *rebuild_operations(_NOTHING, _NOTHING),
        ],
    ),
}
"""For each service, as its `main` wires it: what it is, and its operations."""


def openapi(service: str) -> dict[str, Any]:
    """The document of one service. Raises KeyError for a name that is none of SERVICES."""
    description, operations = SERVICES[service]
    return http.openapi(service, operations(), description)
