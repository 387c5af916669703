"""How long an order may stay in a status before somebody should look: for the audit, alerts and reports alike."""

from collections.abc import Mapping
from datetime import timedelta

from lostwax.contracts.orders import Status

LIMITS: Mapping[Status, timedelta] = {
    Status.SUBMITTED: timedelta(minutes=10),
    Status.PRICE_CALCULATED: timedelta(days=14),
    Status.PRICE_FAILED: timedelta(days=30),
    Status.MANUFACTURING_APPROVED: timedelta(days=7),
    Status.MANUFACTURING_STARTED: timedelta(days=10),
    Status.REWORK: timedelta(days=3),
    Status.MANUFACTURING_COMPLETED: timedelta(days=3),
    Status.PACKAGING: timedelta(days=2),
    Status.ON_HOLD: timedelta(days=30),
}
"""Longer counts as stuck. The statuses that are not here are ends, or wait for the carrier."""
