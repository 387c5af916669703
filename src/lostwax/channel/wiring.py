"""A door's parts put together, as every door has them: models with their staging, orders in Redis, announcing."""

from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

from lostwax.channel import api, handlers, models_api, price_jobs_api, quotes_api
from lostwax.channel.clients import OrderViews, Requests
from lostwax.channel.handlers import Door
from lostwax.channel.models import Models
from lostwax.channel.settings import ClientsSettings, DoorSettings
from lostwax.channel.staging import Janitor
from lostwax.contracts.orders import ActorKind
from lostwax.contracts.topics import Topic
from lostwax.kit.announcing import Announcer
from lostwax.kit.auth import ServiceSigner
from lostwax.kit.clock import utc_now
from lostwax.kit.http import Check, Operation
from lostwax.kit.messages import Handler
from lostwax.kit.neighbours import Neighbour
from lostwax.kit.objects import Bucket
from lostwax.kit.one_database import Plumbing
from lostwax.kit.postgres import Pool


def views_of(
    channel: str, settings: ClientsSettings, pool: Pool, requests: Requests, resources: AsyncExitStack
) -> OrderViews:
    """Clients' orders in Redis; `resources` will close them."""
    views = OrderViews(
        channel,
        settings.redis_url,
        settings.database_url,
        pool,
        requests,
        cached=timedelta(days=settings.cache_days),
        now=utc_now,
    )
    resources.push_async_callback(views.close)
    return views


class Channel:
    """The parts of a door. `resources` will close them; nothing runs before `background` does."""

    def __init__(
        self,
        channel: str,
        owner: ActorKind,
        settings: DoorSettings,
        pool: Pool,
        views: OrderViews | None,
        routes: Callable[[Door], Mapping[Topic, Handler]],
        resources: AsyncExitStack,
    ) -> None:
        self._dsn = settings.database_url
        self._janitor = Janitor(staging_days=settings.staging_days)
        self.models = Models(
            pool,
            Bucket(settings.s3, settings.staging_bucket),
            largest_model_bytes=settings.largest_model_bytes,
            to_clear=self._janitor.look,
        )
        self.door = Door(channel, owner, pool, self.models, views, now=utc_now)
        self._plumbing = Plumbing(channel, settings, pool, routes(self.door))
        self.verifier = self._plumbing.verifier
        self.signer = ServiceSigner(channel, settings.service_key)
        self.orders = Neighbour("orders", settings.orders_url, self.signer)
        resources.push_async_callback(self.orders.close)
        self._announcer = Announcer(
            pool,
            self._dsn,
            settings.orders_url,
            self.signer,
            self._plumbing.limits,
            next_batch=handlers.next_announcement,
            move=handlers.announced,
        )

    def of_models(self, auth: str) -> list[Operation]:
        """Models, their prices, and where the price of an order stands; the door lets callers in."""
        return [
            *models_api.operations(self.models, self.orders, auth),
            *quotes_api.operations(self.door, auth),
            *price_jobs_api.operations(self.door, self.orders, auth),
        ]

    def for_services(self) -> list[Operation]:
        return [api.resend_operation(self.door, self.verifier), *self._plumbing.operations()]

    def checks(self) -> dict[str, Check]:
        return self._plumbing.checks()

    def background(self) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        """Named work for `service.serve`, in the order in which it starts; it stops in the opposite order."""
        views = [] if self.door.views is None else [("orders in Redis", self.door.views.run())]
        return [
            *views,
            *self._plumbing.background(),
            ("announcer", self._announcer.run()),
            ("models", self.models.follow_changes(self._dsn)),
            ("staging", self._janitor.run(self.models)),
        ]
