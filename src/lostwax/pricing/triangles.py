"""What every reader hands over, and the refusals that all formats share."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lostwax.pricing.measure import ModelUnreadable


class Triangles(NamedTuple):
    """`corners`: float32 or float64 (n, 3 corners, 3 coordinates) mm, n >= 1, read-only, perhaps unaligned and not yet
    known to be finite; `notes`: what was odd about the file."""

    corners: npt.NDArray[Any]
    notes: tuple[str, ...] = ()


class Indexed(NamedTuple):
    """The same by number: `points` float64 (m, 3) mm, `faces` int32 (n, 3) numbers of them, all within bounds, n >= 1.
    Points may be there twice, or not be used."""

    points: npt.NDArray[np.float64]
    faces: npt.NDArray[np.int32]
    notes: tuple[str, ...] = ()

    @property
    def corners(self) -> npt.NDArray[np.float64]:
        """As `Triangles` has them: six times as large."""
        return self.points[self.faces]


def empty() -> ModelUnreadable:
    return ModelUnreadable("empty", "The file is empty: nothing arrived of the model. Please upload it again.")


def no_triangles() -> ModelUnreadable:
    return ModelUnreadable("zero_triangles", "The file holds no triangles: the model is empty. Please export it again.")
