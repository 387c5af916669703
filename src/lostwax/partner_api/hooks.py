"""Use cases of the web hooks: clients register where they want to be told; versions of orders become deliveries.

A delivery is made for every version of an order, in the transaction that takes the version in, so that none is lost;
`hooks_delivery` sends them. A version that did not arrive (compaction drops middle ones) leaves a gap, and what comes
after it waits until the gap is filled from Orders.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from lostwax.contracts.ids import derived_id, new_id
from lostwax.contracts.orders import Order
from lostwax.kit.postgres import Connection, Pool
from lostwax.kit.problems import Problem, not_found
from lostwax.kit.webhooks import new_secret
from lostwax.partner_api import hooks_store
from lostwax.partner_api.hooks_sender import BadUrl, Sender, TargetRefused
from lostwax.partner_api.hooks_store import DeliveryRow, Hook, NewDelivery, Track

MOST_HOOKS = 10
_LOOK_AGAIN_S = 60.0


async def register_hook(pool: Pool, sender: Sender, client_id: UUID, url: str) -> tuple[Hook, str]:
    """A new hook and its secret, which is shown this once. It is told of what happens from now on."""
    try:
        await sender.check(url)
    except BadUrl as error:
        raise Problem(422, "hook-url", "This URL cannot be a hook's", f"url: {error}.") from None
    except TargetRefused as error:
        raise Problem(422, "hook-target-refused", "Web hooks may not go there", f"{error}.") from None
    except OSError as error:
        raise Problem(
            422,
            "hook-host-unknown",
            "The host cannot be found",
            f"url: {str(error) or 'the name service does not answer'}. Send it again once its name is known.",
        ) from None
    secret = new_secret()
    async with pool.acquire() as connection, connection.transaction():
        await hooks_store.lock_client(connection, client_id)
        if len(await hooks_store.hooks_of(connection, client_id)) >= MOST_HOOKS:
            raise Problem(409, "too-many-hooks", "That would be too many", f"At most {MOST_HOOKS}; remove one first.")
        hook = await hooks_store.add_hook(connection, new_id(), client_id, url, secret)
    if hook is None:
        raise Problem(
            409, "hook-exists", "You have a hook with this URL", "Remove that one first if its secret is lost."
        )
    return hook, secret


async def hooks_of(pool: Pool, client_id: UUID) -> list[Hook]:
    async with pool.acquire() as connection:
        return await hooks_store.hooks_of(connection, client_id)


async def own_hook(pool: Pool, client_id: UUID, hook_id: UUID) -> Hook:
    """Raises the 404 Problem for another's hook as for one that never was."""
    async with pool.acquire() as connection:
        return await _own_hook(connection, client_id, hook_id)


async def _own_hook(connection: Connection, client_id: UUID, hook_id: UUID) -> Hook:
    hook = await hooks_store.hook(connection, client_id, hook_id)
    if hook is None:
        raise not_found("hook")
    return hook


async def remove_hook(pool: Pool, client_id: UUID, hook_id: UUID) -> None:
    async with pool.acquire() as connection:
        if not await hooks_store.remove_hook(connection, client_id, hook_id):
            raise not_found("hook")


async def enable_hook(pool: Pool, client_id: UUID, hook_id: UUID) -> Hook:
    """Begin again with a hook that was disabled; what waits is sent at once, in order. Idempotent."""
    async with pool.acquire() as connection, connection.transaction():
        await _own_hook(connection, client_id, hook_id)
        await hooks_store.enable_hook(connection, hook_id)
        await hooks_store.notify(connection)
        return await _own_hook(connection, client_id, hook_id)


async def send_test(pool: Pool, client_id: UUID, hook_id: UUID) -> DeliveryRow:
    """Send a delivery that tells of no order, once."""
    async with pool.acquire() as connection, connection.transaction():
        hook = await _own_hook(connection, client_id, hook_id)
        _must_be_enabled(hook)
        delivery = await hooks_store.add_test(connection, hook_id, new_id())
        if delivery is None:
            raise Problem(409, "test-under-way", "A test is under way", "See its outcome among the deliveries.")
        await hooks_store.notify(connection)
    return delivery


async def change_secret(pool: Pool, client_id: UUID, hook_id: UUID, grace_s: float) -> tuple[Hook, str, datetime]:
    """A new secret, which is shown this once, and until when what is sent bears a signature by the old one too."""
    secret = new_secret()
    async with pool.acquire() as connection, connection.transaction():
        hook = await _own_hook(connection, client_id, hook_id)
        return hook, secret, await hooks_store.change_secret(connection, hook_id, secret, grace_s)


async def send_again(pool: Pool, client_id: UUID, hook_id: UUID, delivery_id: UUID) -> DeliveryRow:
    """Send a delivery of the log once more, under its id and out of the order's sequence."""
    async with pool.acquire() as connection, connection.transaction():
        hook = await _own_hook(connection, client_id, hook_id)
        _must_be_enabled(hook)
        row = await hooks_store.delivery(connection, hook_id, delivery_id)
        if row is None:
            raise not_found("delivery")
        if row.order_id is None:
            raise Problem(
                409, "delivery-is-a-test", "This was a test", f"Have another one sent: POST /v1/hooks/{hook_id}/test."
            )
        if row.state not in ("delivered", "given_up"):
            raise Problem(409, "delivery-under-way", "This will be sent anyhow", f"It is {row.state}; see the log.")
        row = await hooks_store.send_again(connection, row.number)
        await hooks_store.notify(connection)
    return row


def _must_be_enabled(hook: Hook) -> None:
    if hook.disabled_at is not None:
        raise Problem(
            409, "hook-disabled", "This hook is disabled", f"Enable it first: POST /v1/hooks/{hook.hook_id}/enable."
        )


async def deliveries(
    pool: Pool, client_id: UUID, hook_id: UUID, before: int | None, order_id: UUID | None, limit: int
) -> list[DeliveryRow]:
    """The log of a hook, newest first."""
    async with pool.acquire() as connection:
        await _own_hook(connection, client_id, hook_id)
        return await hooks_store.deliveries_page(connection, hook_id, before, order_id, limit)


def delivery_id(hook_id: UUID, order_id: UUID, version: int) -> UUID:
    """The same however often a version is taken in or sent: receivers drop what they have had by it."""
    return derived_id("hook-delivery", str(hook_id), str(order_id), str(version))


async def enqueue(connection: Connection, orders: Sequence[Order]) -> None:
    """Make deliveries of these versions in the caller's transaction, which must take them into `requests` afterwards.

    A version that is enqueued already is passed over. One that comes before its predecessors is not kept but noted as
    a gap, and fetched with them."""
    versions: dict[UUID, dict[int, Order]] = {}
    for order in orders:
        versions.setdefault(order.order_id, {})[order.version] = order
    moved: list[Track] = []
    fresh: list[NewDelivery] = []
    for track in await hooks_store.lock_tracks(connection, sorted(versions), {i: max(v) for i, v in versions.items()}):
        of_order = versions[track.order_id]
        enqueued = track.enqueued
        while (order_next := of_order.get(enqueued + 1)) is not None:
            enqueued += 1
            fresh.append(
                NewDelivery(
                    delivery_id=delivery_id(track.hook_id, track.order_id, enqueued),
                    hook_id=track.hook_id,
                    due=enqueued == track.settled + 1,
                    order=order_next,
                )
            )
        known = max(track.known, *of_order)
        if (known, enqueued) != (track.known, track.enqueued):
            moved.append(msgspec.structs.replace(track, known=known, enqueued=enqueued))
    if moved:
        await hooks_store.add_deliveries(connection, fresh)
        await hooks_store.move_tracks(connection, moved, fill_in_s=0)
        await hooks_store.notify(connection)


async def look_again_later(connection: Connection, order_ids: Sequence[UUID]) -> None:
    """Orders does not have the missing versions (yet): ask again in a while."""
    tracks = await hooks_store.lock_tracks(connection, sorted(order_ids))
    await hooks_store.move_tracks(connection, tracks, fill_in_s=_LOOK_AGAIN_S)
