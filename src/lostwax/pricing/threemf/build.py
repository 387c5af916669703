"""What a 3MF's build places, brought together in millimetres."""

import re
from typing import Any
from xml.parsers import expat

import numpy as np
import numpy.typing as npt

from lostwax.pricing.measure import UNIT_NOTE, ModelUnreadable
from lostwax.pricing.threemf.archive import Package, canonical
from lostwax.pricing.threemf.model import (
    MOST_INSTANCES,
    SCHEMAS,
    UNITS,
    Component,
    Matrix,
    Model,
    Object,
    new_parser,
    too_many_instances,
    unsupported,
    wrong_xml,
)
from lostwax.pricing.triangles import Indexed, no_triangles

DEEPEST = 16
MOST_TRIANGLES = 20_000_000
"""Of all instances together; a file of them as STL would have a gigabyte."""

_RELATION = "http://schemas.openxmlformats.org/package/2006/relationships Relationship"
_MODEL_RELATION = SCHEMAS + "2013/01/3dmodel"
_PROJECTS = ("metadata/slic3r_pe_model.config", "metadata/model_settings.config")
_NOT_PLAIN = re.compile(
    rb"ParameterModifier|NegativeVolume|Support(?:Enforcer|Blocker)|(?:negative|modifier)_part|support_(?:enforcer|blocker)"
)


class Build:
    """Walks the build; parts are read when something refers to them."""

    def __init__(self, package: Package, root: str) -> None:
        self._package = package
        self._root = root
        self._models: dict[str, Model] = {}
        self._placed: list[tuple[Object, Matrix]] = []
        self._triangles = 0
        self._instances = 0
        self._supports = 0

    def triangles(self) -> Indexed:
        root = self._model(self._root)
        notes: tuple[str, ...] = ()
        if root.unit != "millimeter":
            factor = UNITS[root.unit]
            notes += (f"{UNIT_NOTE} {root.unit}: its numbers were multiplied by {factor:g}",)
        whole = np.vstack([np.eye(3), np.zeros((1, 3))])
        whole[:3] *= UNITS[root.unit]
        items = [item for item in root.items if not item.left_out]
        if len(items) < len(root.items):
            notes += (f"{len(root.items) - len(items):,} objects marked as not to be made were left out",)
        for item in items:
            self._place(item, whole, [])
        if self._supports:
            notes += (f"{self._supports:,} support objects were left out",)
        if len(items) > 1:
            notes += (f"the file places {len(items):,} objects, which were measured as one model",)
        if self._triangles == 0:
            raise no_triangles()
        return Indexed(*self._together(), notes)

    def _together(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
        """Points and index of all that was placed."""
        total = sum(len(thing.points) for thing, _ in self._placed)
        points = np.empty((total, 3))
        index = np.empty((self._triangles, 3), np.int32)
        first = done = 0
        for thing, matrix in self._placed:
            last, end = first + len(thing.points), done + len(thing.index)
            _move(thing.points, matrix, points[first:last])
            # A mirrored object would face inwards: its triangles are read the other way round.
            index[done:end] = thing.index[:, ::-1] if _mirrors(matrix) else thing.index
            index[done:end] += first
            first, done = last, end
        return points, index

    def _model(self, part: str) -> "Model":
        name = canonical(part)
        if name not in self._models:
            if part not in self._package:
                raise ModelUnreadable("index", f"The file refers to its part “{part}”, which is not in it.")
            self._models[name] = Model(part).parsed(self._package.chunks(part))
        return self._models[name]

    def _place(self, wanted: Component, outer: Matrix, above: list[Object]) -> None:
        """Notes where each mesh below a component goes; `above`: the objects that contain it."""
        self._instances += 1
        if self._instances > MOST_INSTANCES:
            raise too_many_instances()
        model = self._model(wanted.part or self._root)
        if model.unit != self._model(self._root).unit:
            raise ModelUnreadable("unit", "The parts of the file are drawn in different units. Please export it again.")
        thing = model.objects.get(wanted.object_id)
        if thing is None:
            raise ModelUnreadable(
                "index", f"The file places object {wanted.object_id}, which is not in it. Please export it again."
            )
        if thing in above:
            raise ModelUnreadable("cycle", f"Object {wanted.object_id} of the file contains itself.")
        if len(above) >= DEEPEST:
            raise ModelUnreadable("depth", f"The file nests objects more than {DEEPEST} deep. Please export it again.")
        if thing.kind in ("support", "solidsupport"):
            self._supports += 1
            return
        if thing.unmeasurable:
            raise unsupported(thing.unmeasurable)
        matrix = outer if wanted.matrix is None else _after(wanted.matrix, outer)
        if not np.isfinite(matrix).all():
            raise ModelUnreadable(
                "nonfinite", "A transform in the file goes beyond all numbers. Please export it again."
            )
        if len(thing.index):
            self._placed.append((thing, matrix))
            self._triangles += len(thing.index)
            if self._triangles > MOST_TRIANGLES:
                raise ModelUnreadable(
                    "too_complex",
                    f"The file places more than {MOST_TRIANGLES:,} triangles. Please reduce them and export it again.",
                )
        for component in thing.components:
            self._place(component, matrix, [*above, thing])


def _after(inner: Matrix, outer: Matrix) -> Matrix:
    with np.errstate(all="ignore"):
        both: Matrix = (inner[:, :, None] * outer[None, :3, :]).sum(axis=1)
        both[3] += outer[3]
    return both


def _move(points: npt.NDArray[np.float64], matrix: Matrix, moved: npt.NDArray[np.float64]) -> None:
    """Into `moved`. Not a matrix product: equal points must give equal results to the last bit, wherever they stand."""
    with np.errstate(all="ignore"):
        for axis in range(3):
            into = moved[:, axis]
            np.multiply(points[:, 0], matrix[0, axis], out=into)
            into += points[:, 1] * matrix[1, axis]
            into += points[:, 2] * matrix[2, axis]
            into += matrix[3, axis]


def _mirrors(matrix: Matrix) -> bool:
    a, b, c = matrix[:3]
    with np.errstate(all="ignore"):
        return float(np.dot(np.cross(a, b), c)) < 0


def root_part(package: Package) -> str:
    """Name of the part with the build."""
    targets: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == _RELATION and attributes.get("Type") == _MODEL_RELATION:
            targets.append(attributes.get("Target", ""))

    if "_rels/.rels" in package:
        _parse_whole(package, "_rels/.rels", start)
    else:
        targets.append("3D/3dmodel.model")
    for target in targets:
        if target in package:
            return target
    inside = sorted({name.rpartition(".")[2] for name in package.names() if "." in name.rpartition("/")[2]})
    raise ModelUnreadable(
        "not_3mf",
        f"The file is an archive (of {', '.join(inside[:5]) or 'nothing'}), but not a 3MF model. Please upload the "
        "model itself, as STL, 3MF or OBJ.",
    )


def refuse_modifiers(package: Package) -> None:
    """In a slicer's project some meshes only say where to treat others otherwise; nothing in the model tells them."""
    for name in _PROJECTS:
        if name in package:
            before = b""
            for chunk in package.chunks(name, 64 << 20):
                if _NOT_PLAIN.search(before + chunk):
                    raise ModelUnreadable(
                        "unsupported_extension",
                        "The file is a slicer's project with modifiers or negative volumes, which are not measured "
                        "here. Please export the model itself as STL or 3MF.",
                    )
                before = chunk[-32:]


def _parse_whole(package: Package, name: str, start: Any) -> None:
    parser = new_parser()
    parser.StartElementHandler = start
    try:
        for chunk in package.chunks(name, 1 << 20):
            parser.Parse(chunk, False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise wrong_xml(name, expat.ErrorString(error.code)) from error
