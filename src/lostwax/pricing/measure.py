"""What was measured of a model, kept, and brought to the scale of an order. Pure: the measuring itself is in `mesh`."""

from collections import OrderedDict

from lostwax.contracts.orders import Geometry, PriceFailure

KERNEL = "mesh-2"
"""Version of all code that can change a measured number; part of the key under which geometry is remembered."""


UNIT_NOTE = "the file says that it is drawn in"
"""How the note begins that a file's own unit, other than millimetres, was honoured."""


class ModelUnreadable(Exception):
    """Why no geometry can be had of a file: `code`, `detail` in a customer's words, `mended_by` customer or operator.

    Travels by `failure`, the struct that a result carries.
    """

    def __init__(self, code: str, detail: str, mended_by: str = "customer") -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.mended_by = mended_by

    @property
    def failure(self) -> PriceFailure:
        return PriceFailure(self.code, self.detail, self.mended_by)


def scaled(geometry: Geometry, scale: float | None) -> Geometry:
    """Geometry of the model drawn `scale` times as large: lengths by s, areas by s^2, volume by s^3."""
    if scale is None or scale == 1.0:
        return geometry
    x, y, z = geometry.box_mm
    return Geometry(
        volume_mm3=geometry.volume_mm3 * scale**3,
        area_mm2=geometry.area_mm2 * scale**2,
        box_mm=(x * scale, y * scale, z * scale),
        triangles=geometry.triangles,
        closed=geometry.closed,
        notes=geometry.notes,
        kernel=geometry.kernel,
    )


class MeasuredModels:
    """What measuring each of the last `limit` models gave, unscaled: geometry, or the failure that measuring it again
    would only repeat. For one process; not safe across threads."""

    def __init__(self, limit: int = 10_000) -> None:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        self._limit = limit
        self._known: OrderedDict[tuple[str, str], Geometry | PriceFailure] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, sha256: str) -> Geometry | PriceFailure | None:
        key = (sha256, KERNEL)
        measured = self._known.get(key)
        if measured is not None:
            self._known.move_to_end(key)
        return measured

    def put(self, sha256: str, measured: Geometry | PriceFailure) -> None:
        """Remembers a geometry, or a failure that lies in the file; one that an operator mends is not remembered."""
        if isinstance(measured, PriceFailure) and measured.mended_by != "customer":
            return
        self._known[(sha256, KERNEL)] = measured
        self._known.move_to_end((sha256, KERNEL))
        if len(self._known) > self._limit:
            self._known.popitem(last=False)
