"""SQL of the web hooks. Every function takes a connection and works in its caller's transaction.

Locks are taken in one order: requests, hook_orders, hook_deliveries, hooks; rows of a table sorted by their key. Times
are the database's, so that several machines agree on what is due.
"""

from lostwax.partner_api.hooks_store.registered import (
    add_hook,
    add_test,
    change_secret,
    deliveries_page,
    delivery,
    enable_hook,
    hook,
    hooks_of,
    lock_client,
    notify,
    remove_hook,
    send_again,
)
from lostwax.partner_api.hooks_store.rows import (
    AILING,
    CHANNEL,
    DeliveryRow,
    Due,
    Gap,
    Hook,
    NewDelivery,
    Settled,
    Track,
)
from lostwax.partner_api.hooks_store.sending import due, note_failures, note_success, settle
from lostwax.partner_api.hooks_store.sweeping import forget_old_secrets, sweep_log, sweep_removed, sweep_tracks
from lostwax.partner_api.hooks_store.versions import (
    add_deliveries,
    clients_with_hooks,
    gaps,
    lock_tracks,
    move_tracks,
    seconds_to_next_gap,
)

__all__ = [
    "AILING",
    "CHANNEL",
    "DeliveryRow",
    "Due",
    "Gap",
    "Hook",
    "NewDelivery",
    "Settled",
    "Track",
    "add_deliveries",
    "add_hook",
    "add_test",
    "change_secret",
    "clients_with_hooks",
    "deliveries_page",
    "delivery",
    "due",
    "enable_hook",
    "forget_old_secrets",
    "gaps",
    "hook",
    "hooks_of",
    "lock_client",
    "lock_tracks",
    "move_tracks",
    "note_failures",
    "note_success",
    "notify",
    "remove_hook",
    "seconds_to_next_gap",
    "send_again",
    "settle",
    "sweep_log",
    "sweep_removed",
    "sweep_tracks",
]
