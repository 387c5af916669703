"""Use cases of the partner API with a clock of the test's own, on a database of its own."""

from collections.abc import AsyncIterator
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from tests.builders import NOON, a_digest, order_views
from tests.conftest import NewDatabase

from lostwax.channel import api, handlers
from lostwax.channel.domain import Client
from lostwax.channel.handlers import Door, Wish
from lostwax.channel.models import Models
from lostwax.contracts.ids import new_id
from lostwax.contracts.orders import ActorKind, ModelRef
from lostwax.kit.postgres import open_pool
from lostwax.kit.problems import Problem
from lostwax.local.stack import Stack
from lostwax.partner_api.main import MIGRATIONS

CLIENT = Client(new_id(), "Partner & Co")


@pytest.fixture
async def door(stack: Stack, new_database: NewDatabase) -> AsyncIterator[Door]:
    dsn = await new_database(MIGRATIONS)
    pool = await open_pool(dsn, name="test", size=4)
    views = order_views(stack, dsn, pool)
    models = Models(pool, None, largest_model_bytes=1_000_000)  # type: ignore[arg-type]
    yield Door("partner_api", ActorKind.PARTNER, pool, models, views, now=lambda: NOON)
    await views.close()
    await pool.close()


def a_wish(**changes: Any) -> Wish:
    fields: dict[str, Any] = {
        "model": a_digest(),
        "alloy": "gold-14k",
        "finish": "polished",
        "quantity": 1,
        "ring_size": 54.0,
        "scale": None,
        "engraving": None,
        "deadline": NOON.date() + timedelta(days=1),
        "reference": "PO-1",
        "approve_up_to": Decimal(100),
    }
    return Wish(**(fields | changes))


async def test_an_order_sent_again_after_its_deadline_gets_its_first_answer(door: Door) -> None:
    wish = a_wish()
    door.models.usable[(CLIENT.client_id, wish.model)] = ModelRef(wish.model, 84, "ring.stl")
    first = await handlers.submit_order(door, CLIENT, "k", wish, check=api._check)
    door.now = lambda: NOON + timedelta(days=3)
    assert await handlers.submit_order(door, CLIENT, "k", wish, check=api._check) == first
    with pytest.raises(Problem) as late:
        await handlers.submit_order(door, CLIENT, "another key", wish, check=api._check)
    assert late.value.code == "deadline-passed"
    with pytest.raises(Problem) as other:
        await handlers.submit_order(door, CLIENT, "k", a_wish(deadline=date(2020, 1, 1)), check=api._check)
    assert other.value.code == "idempotency-key-reused"
    assert await door.pool.fetchval("SELECT count(*) FROM requests") == 1
