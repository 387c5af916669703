"""The life of an order in a table and twenty lines, written by hand beside `orders.domain`, which it must not use:
the model-based test holds the running services to it."""

from dataclasses import dataclass, field

MAKING = {"MANUFACTURING_STARTED", "REWORK", "MANUFACTURING_COMPLETED", "PACKAGING"}
EARLY = {"SUBMITTED", "PRICE_CALCULATED", "PRICE_FAILED", "MANUFACTURING_APPROVED"}

LIFE: dict[str, tuple[set[str], str, set[str]]] = {
    "resubmit": (EARLY - {"SUBMITTED"}, "SUBMITTED", {"partner", "customer", "seller", "administrator"}),
    "approve": ({"PRICE_CALCULATED"}, "MANUFACTURING_APPROVED", {"partner", "customer", "seller", "administrator"}),
    "start": ({"MANUFACTURING_APPROVED", "REWORK"}, "MANUFACTURING_STARTED", {"operator"}),
    "release": (
        {"MANUFACTURING_STARTED"},
        "MANUFACTURING_APPROVED",
        {"operator", "supervisor", "administrator", "system"},
    ),
    "complete": ({"MANUFACTURING_STARTED"}, "MANUFACTURING_COMPLETED", {"operator"}),
    "rework": (
        {"MANUFACTURING_STARTED", "MANUFACTURING_COMPLETED"},
        "REWORK",
        {"operator", "supervisor", "administrator"},
    ),
    "pack": ({"MANUFACTURING_COMPLETED"}, "PACKAGING", {"operator"}),
    "ship": ({"PACKAGING"}, "SHIPPED", {"operator"}),
    "close": ({"SHIPPED"}, "CLOSED", {"seller", "administrator", "system"}),
    "hold": (EARLY | MAKING, "ON_HOLD", {"seller", "administrator"}),
    "resume": ({"ON_HOLD"}, "", {"seller", "administrator"}),
    "cancel": (EARLY | MAKING | {"ON_HOLD"}, "CANCELLED", {"partner", "customer", "seller", "administrator"}),
}


@dataclass
class Life:
    """One order as it ought to be. `trail`: the status of each version. `quote` counts its prices."""

    sound: bool = True
    standing: bool = False
    trail: list[str] = field(default_factory=lambda: ["SUBMITTED"])
    left: str = ""
    quote: int = 0
    maker: str = ""

    @property
    def status(self) -> str:
        return self.trail[-1]

    @property
    def version(self) -> int:
        return len(self.trail)

    def price(self) -> None:
        """The price that every SUBMITTED order gets, or does not."""
        self.trail.append("PRICE_CALCULATED" if self.sound else "PRICE_FAILED")
        self.quote += self.sound
        if self.sound and self.standing:
            self.trail.append("MANUFACTURING_APPROVED")

    def obey(
        self, action: str, kind: str, who: str, *, own: bool, seen: int, quote: int = 0, sound: bool | None = None
    ) -> bool:
        """Whether a command is accepted; if so, the order is one version further. `sound`: of a new specification."""
        sources, target, kinds = LIFE[action]
        owner = kind in ("partner", "customer")
        started = self.status == "MANUFACTURING_STARTED" and action in ("release", "complete", "rework")
        if (
            self.status not in sources
            or kind not in kinds
            or seen != self.version
            or (owner and not own)
            or (owner and action == "cancel" and (self.left or self.status) not in EARLY)
            or (kind == "operator" and started and who != self.maker)
            or (action == "approve" and quote != self.quote)
        ):
            return False
        left, self.left = self.left, self.status if action == "hold" else ""
        self.maker = who if action == "start" else self.maker
        self.sound = self.sound if sound is None else sound
        self.trail.append(target or left)
        return True
