"""The life of an order as a table in Markdown, drawn from the rules themselves, for ARCHITECTURE.md."""

from lostwax.contracts.orders import Status
from lostwax.orders.domain import RULES

_PRICES = (
    ("a price comes", (Status.SUBMITTED,), Status.PRICE_CALCULATED, "Orders"),
    ("no price can be had", (Status.SUBMITTED,), Status.PRICE_FAILED, "Orders"),
    ("a standing approval covers the price", (Status.PRICE_CALCULATED,), Status.MANUFACTURING_APPROVED, "Orders"),
)


def life_table() -> str:
    """One row for each step: what is wished, from where, to where, by whom."""
    rows = ["| step | from | to | by |", "|---|---|---|---|"]
    for step, sources, target, by in _PRICES:
        rows.append(f"| {step} | {_names(sources)} | {target} | {by} |")
    for action, rule in RULES.items():
        to = "where the hold came from" if rule.target is None else rule.target.value
        actors = ", ".join(sorted(kind.value for kind in rule.actors))
        rows.append(f"| {action.__name__} | {_names(rule.sources)} | {to} | {actors} |")
    return "\n".join(rows)


def _names(statuses: object) -> str:
    assert isinstance(statuses, (tuple, frozenset))
    return ", ".join(s.value for s in Status if s in statuses)


if __name__ == "__main__":
    print(life_table())
