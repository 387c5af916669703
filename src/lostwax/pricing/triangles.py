"""What every reader hands over, and the refusals that all formats share."""

from typing import Any, NamedTuple

import numpy.typing as npt

from lostwax.pricing.measure import ModelUnreadable


class Triangles(NamedTuple):
    """`corners`: float32 or float64 (n, 3 corners, 3 coordinates) mm, n >= 1, read-only, perhaps unaligned and not yet
    known to be finite; `notes`: what was odd about the file."""

    corners: npt.NDArray[Any]
    notes: tuple[str, ...] = ()


def empty() -> ModelUnreadable:
    return ModelUnreadable("empty", "The file is empty: nothing arrived of the model. Please upload it again.")


def no_triangles() -> ModelUnreadable:
    return ModelUnreadable("zero_triangles", "The file holds no triangles: the model is empty. Please export it again.")
