"""Reads the solid that a 3MF file's build places: core specification, and parts in files of their own (production).

expat parses the text in pieces and knows the structure. The rows of vertices and triangles, nearly all of the text, are
taken over by a compiled scanner from the very byte at which expat reported their opening tag; whatever is not a plain
row (a comment, an entity, a stranger's element) goes back to expat. So both see what the XML says, and nothing else.

What would change the price but cannot be measured here (beam lattices, volumetric parts, displacement, booleans,
modifiers of a slicer's project) is refused by name. Materials, colours, properties, slices and thumbnails are skipped.
"""

import os
import re
from array import array
from collections.abc import Iterable
from typing import Any, NamedTuple
from xml.parsers import expat

import numpy as np
import numpy.typing as npt
from numba import njit

from lostwax.pricing.measure import UNIT_NOTE, ModelUnreadable
from lostwax.pricing.package import Package, canonical
from lostwax.pricing.scan import NOT_FINITE, OK, decimal
from lostwax.pricing.triangles import Indexed, no_triangles

SCAN = "198c50f41f12"
"""Digest of `scan`, whose kernels are compiled into those here; see there."""

Matrix = npt.NDArray[np.float64]
"""(4, 3): a point p, a row, goes to p @ M[:3] + M[3]."""

MOST_INSTANCES = 10_000
DEEPEST = 16
MOST_TRIANGLES = 20_000_000
"""Of all instances together; a file of them as STL would have a gigabyte."""

_MOST_OBJECTS = 100_000
_DEEPEST_XML = 64
_LONGEST_ROW = 1 << 16
_XML_BLANKS = " \t\r\n"

_UNITS = {"micron": 0.001, "millimeter": 1.0, "centimeter": 10.0, "inch": 25.4, "foot": 304.8, "meter": 1000.0}

_SCHEMAS = "http://schemas.microsoft.com/3dmanufacturing/"
_CORE = _SCHEMAS + "core/2015/02"
_PRODUCTION = _SCHEMAS + "production/2015/06"
_EXTENSIONS = (
    ("beamlattice", "beam lattice"),
    ("volumetric", "volumetric"),
    ("implicit", "implicit"),
    ("displacement", "displacement"),
    ("booleanoperations", "boolean"),
    ("securecontent", "encrypted content"),
)
_HARMLESS = ("core", "production", "material", "slice", "trianglesets", "prusa", "slic3r", "bambu")
"""Parts of the names of extensions that do not change the measured solid even when a file requires them."""

_RELATION = "http://schemas.openxmlformats.org/package/2006/relationships Relationship"
_MODEL_RELATION = _SCHEMAS + "2013/01/3dmodel"
_PROJECTS = ("metadata/slic3r_pe_model.config", "metadata/model_settings.config")
_NOT_PLAIN = re.compile(
    rb"ParameterModifier|NegativeVolume|Support(?:Enforcer|Blocker)|(?:negative|modifier)_part|support_(?:enforcer|blocker)"
)
_OPENING = re.compile(rb"<(?:vertices|triangles)(?:\s[^<>]*)?>")


def read(path: str | os.PathLike[str]) -> Indexed:
    """Triangles of what a 3MF file's build items place, in mm.

    Raises ModelUnreadable with code truncated, archive, encrypted, compression, inflate_limit, not_3mf, doctype,
    xml_syntax, index, cycle, depth, instances, too_complex, unit, unsupported_extension, nonfinite or zero_triangles;
    OSError when the file cannot be opened.
    """
    with Package(path) as package:
        root = _root_part(package)
        _refuse_modifiers(package)
        return _Build(package, root).triangles()


class Component(NamedTuple):
    """A reference to an object, from a build item or from another object."""

    part: str
    object_id: str
    matrix: Matrix | None
    left_out: bool = False


_NO_POINTS = np.empty((0, 3))
_NO_TRIANGLES = np.empty((0, 3), np.int32)


class _Object:
    __slots__ = ("components", "has_mesh", "index", "kind", "points", "unmeasurable")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.has_mesh = False
        self.points: npt.NDArray[np.float64] = _NO_POINTS
        self.index: npt.NDArray[np.int32] = _NO_TRIANGLES
        self.components: list[Component] = []
        self.unmeasurable: str | None = None


def _syntax(part: str, what: str) -> ModelUnreadable:
    return ModelUnreadable(
        "xml_syntax", f"“{part}” in the file is not what a 3MF model says: {what}. Please export it again."
    )


def _extension(name: str) -> ModelUnreadable:
    return ModelUnreadable(
        "unsupported_extension",
        f"The model uses the 3MF extension for {name} geometry, which is not measured here. Please export it as a "
        "plain mesh.",
    )


def _too_many(instances: bool) -> ModelUnreadable:
    if instances:
        return ModelUnreadable("instances", f"The file places more than {MOST_INSTANCES:,} objects.")
    return ModelUnreadable(
        "too_complex",
        f"The file places more than {MOST_TRIANGLES:,} triangles. Please reduce them and export it again.",
    )


def _root_part(package: Package) -> str:
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


def _refuse_modifiers(package: Package) -> None:
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


def _parser() -> expat.XMLParserType:
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = _refuse_doctype
    if hasattr(parser, "SetReparseDeferralEnabled"):
        # The scanner needs to hear of an opening tag as soon as it has been fed.
        parser.SetReparseDeferralEnabled(False)
    return parser


def _refuse_doctype(*_: object) -> None:
    raise ModelUnreadable(
        "doctype", "The file's XML declares a document type, which 3MF forbids. Please export it again."
    )


def _parse_whole(package: Package, name: str, start: Any) -> None:
    parser = _parser()
    parser.StartElementHandler = start
    try:
        for chunk in package.chunks(name, 1 << 20):
            parser.Parse(chunk, False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise _syntax(name, expat.ErrorString(error.code)) from error


class _Build:
    """Walks the build; parts are read when something refers to them."""

    def __init__(self, package: Package, root: str) -> None:
        self._package = package
        self._root = root
        self._models: dict[str, _Model] = {}
        self._placed: list[tuple[_Object, Matrix]] = []
        self._triangles = 0
        self._instances = 0
        self._supports = 0

    def triangles(self) -> Indexed:
        root = self._model(self._root)
        notes: tuple[str, ...] = ()
        if root.unit != "millimeter":
            factor = _UNITS[root.unit]
            notes += (f"{UNIT_NOTE} {root.unit}: its numbers were multiplied by {factor:g}",)
        whole = np.vstack([np.eye(3), np.zeros((1, 3))])
        whole[:3] *= _UNITS[root.unit]
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

    def _model(self, part: str) -> "_Model":
        name = canonical(part)
        if name not in self._models:
            if part not in self._package:
                raise ModelUnreadable("index", f"The file refers to its part “{part}”, which is not in it.")
            self._models[name] = _Model(part).parsed(self._package.chunks(part))
        return self._models[name]

    def _place(self, wanted: Component, outer: Matrix, above: list[_Object]) -> None:
        """Notes where each mesh below a component goes; `above`: the objects that contain it."""
        self._instances += 1
        if self._instances > MOST_INSTANCES:
            raise _too_many(instances=True)
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
            raise _extension(thing.unmeasurable)
        matrix = outer if wanted.matrix is None else _after(wanted.matrix, outer)
        if not np.isfinite(matrix).all():
            raise ModelUnreadable(
                "nonfinite", "A transform in the file goes beyond all numbers. Please export it again."
            )
        if len(thing.index):
            self._placed.append((thing, matrix))
            self._triangles += len(thing.index)
            if self._triangles > MOST_TRIANGLES:
                raise _too_many(instances=False)
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


class _Rows:
    """Rows of three numbers, from the scanner by the thousand and from expat one by one."""

    def __init__(self, code: str) -> None:
        self._blocks: list[npt.NDArray[Any]] = []
        self._code = code
        self._single = array(code)

    def add(self, row: Iterable[Any]) -> None:
        self._single.extend(row)

    def add_block(self, block: npt.NDArray[Any]) -> None:
        self._flush()
        self._blocks.append(block)

    def all(self) -> npt.NDArray[Any]:
        self._flush()
        together = np.concatenate(self._blocks) if self._blocks else np.empty((0, 3), np.dtype(self._code))
        self._blocks.clear()
        return together

    def _flush(self) -> None:
        if self._single:
            self._blocks.append(np.array(self._single, dtype=np.dtype(self._code)).reshape(-1, 3))
            self._single = array(self._code)


class _Model:
    """One model part: its unit, its objects by id, and its build items."""

    def __init__(self, part: str) -> None:
        self.unit = "millimeter"
        self.objects: dict[str, _Object] = {}
        self.items: list[Component] = []
        self._part = part
        self._path: list[str] = []
        self._prefixes: dict[str, str] = {}
        self._object: _Object | None = None
        self._points = _Rows("d")
        self._index = _Rows("i")
        self._opened: tuple[str, int] | None = None
        self._fed = 0
        self._parser = _parser()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.StartNamespaceDeclHandler = self._declare

    def parsed(self, chunks: Iterable[bytes]) -> "_Model":
        rest = b""
        scanning: str | None = None
        try:
            for chunk in chunks:
                rest, scanning = self._take(rest + chunk, scanning)
            self._feed(rest)
            self._parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise _syntax(self._part, expat.ErrorString(error.code)) from error
        finally:
            # Its handlers are bound to this object: a cycle, and nobody collects any in the sandbox.
            del self._parser
        return self

    def _take(self, text: bytes, scanning: str | None) -> tuple[bytes, str | None]:
        """Passes text on, to the scanner or to expat; what is left of it until more comes, and whose that will be."""
        at = 0
        while True:
            if scanning:
                at, more = self._scan(scanning, text, at)
                if more and len(text) - at < _LONGEST_ROW:
                    return text[at:], scanning
                scanning = None
            opening = _OPENING.search(text, at)
            if opening is None:
                # An opening tag must not be torn in two: expat alone would then read all its rows.
                keep = text.rfind(b"<", max(at, len(text) - 1024))
                keep = len(text) if keep < 0 else keep
                self._feed(text[at:keep])
                return text[keep:], None
            stood = self._fed + opening.start() - at
            self._feed(text[at : opening.end()])
            at = opening.end()
            if self._opened and self._opened[1] == stood:
                scanning = self._opened[0]

    def _feed(self, text: bytes) -> None:
        self._fed += len(text)
        self._parser.Parse(text, False)

    def _scan(self, rows: str, text: bytes, at: int) -> tuple[int, bool]:
        data = np.frombuffer(text, dtype=np.uint8)
        if rows == "vertices":
            points, at, more = _vertices(data, at)
            self._points.add_block(points)
        else:
            index, at, more = _triangle_rows(data, at)
            self._index.add_block(index)
        return at, more

    def _declare(self, prefix: str | None, uri: str) -> None:
        self._prefixes[prefix or ""] = uri

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        path = self._path
        if len(path) >= _DEEPEST_XML:
            raise self._wrong("elements nested too deep")
        self._opened = None
        path.append(name)
        space, _, local = name.rpartition(" ")
        where = len(path)
        if where == 1:
            self._open_model(space, local, attributes)
        elif self._object is not None:
            self._inside_object(self._object, space, local, attributes)
        elif space != _CORE:
            pass
        elif where == 3 and local == "object" and path[1] == _NAMED["resources"]:
            self._open_object(attributes)
        elif where == 3 and local == "item" and path[1] == _NAMED["build"]:
            self.items.append(self._component(attributes))
            if len(self.items) > MOST_INSTANCES:
                raise _too_many(instances=True)

    def _inside_object(self, thing: _Object, space: str, local: str, attributes: dict[str, str]) -> None:
        path, where = self._path, len(self._path)
        in_mesh = where > 4 and path[3] == _NAMED["mesh"]
        if space != _CORE:
            # Geometry of another kind, or nothing to us.
            if where == 4 or (where == 5 and in_mesh):
                for part, name in _EXTENSIONS:
                    if part in space.lower():
                        thing.unmeasurable = name
        elif in_mesh and where == 6 and local == "vertex" and path[4] == _NAMED["vertices"]:
            self._points.add([self._number(attributes, axis) for axis in "xyz"])
        elif in_mesh and where == 6 and local == "triangle" and path[4] == _NAMED["triangles"]:
            self._index.add([self._corner(attributes, key) for key in ("v1", "v2", "v3")])
        elif in_mesh and where == 5 and local in ("vertices", "triangles"):
            self._opened = (local, self._parser.CurrentByteIndex)
        elif where == 5 and local == "component" and path[3] == _NAMED["components"]:
            thing.components.append(self._component(attributes))

    def _end(self, name: str) -> None:
        self._opened = None
        where = len(self._path)
        if where == 4 and name == _NAMED["mesh"] and self._object is not None:
            self._close_mesh(self._object)
        elif where == 3:
            self._object = None
        self._path.pop()

    def _open_model(self, space: str, local: str, attributes: dict[str, str]) -> None:
        if local != "model" or space != _CORE:
            raise ModelUnreadable(
                "not_3mf", f"“{self._part}” in the file is not a model by the 3MF core specification of 2015."
            )
        self.unit = attributes.get("unit", "millimeter").strip()
        if self.unit not in _UNITS:
            raise ModelUnreadable(
                "unit",
                f"The file is drawn in “{self.unit[:40]}”, a unit that 3MF does not know. Please export it again.",
            )
        for prefix in attributes.get("requiredextensions", "").split():
            uri = self._prefixes.get(prefix)
            if uri is None:
                raise self._wrong(f"it requires an extension “{prefix[:40]}” that it does not name")
            named = [name for part, name in _EXTENSIONS if part in uri.lower()]
            # A required beam lattice may still be absent from what is built: that is judged object by object.
            if not named and not any(part in uri.lower() for part in _HARMLESS):
                raise _extension(f"“{uri[-60:]}”")

    def _open_object(self, attributes: dict[str, str]) -> None:
        key = attributes.get("id", "").strip()
        if not key or key in self.objects:
            raise self._wrong(f"there are two objects “{key[:40]}”, or one without a number")
        if len(self.objects) >= _MOST_OBJECTS:
            raise _too_many(instances=True)
        self._object = _Object(attributes.get("type", "model"))
        self._points, self._index = _Rows("d"), _Rows("i")
        self.objects[key] = self._object

    def _close_mesh(self, thing: _Object) -> None:
        if thing.has_mesh:
            raise self._wrong("an object has two meshes")
        thing.has_mesh = True
        points, index = self._points.all(), self._index.all()
        if len(index) and (int(index.min()) < 0 or int(index.max()) >= len(points)):
            raise ModelUnreadable(
                "index", "A triangle in the file has a corner that is not in the file. Please export it again."
            )
        thing.points, thing.index = points, index
        self._points, self._index = _Rows("d"), _Rows("i")

    def _component(self, attributes: dict[str, str]) -> Component:
        part = attributes.get(f"{_PRODUCTION} path", "") or self._part
        written = attributes.get("transform")
        left_out = attributes.get("printable", "1").strip() in ("0", "false")
        return Component(
            part, attributes.get("objectid", "").strip(), None if written is None else self._matrix(written), left_out
        )

    def _matrix(self, written: str) -> Matrix:
        words = written.split()
        if len(words) != 12:
            raise self._wrong("a transform does not have twelve numbers")
        return np.array([self._value(word) for word in words]).reshape(4, 3)

    def _number(self, attributes: dict[str, str], axis: str) -> float:
        written = attributes.get(axis)
        if written is None:
            raise self._wrong(f"a vertex has no {axis}")
        return self._value(written.strip(_XML_BLANKS))

    def _value(self, word: str) -> float:
        """By the scanner's own reading, so that equal texts give equal numbers whoever met them."""
        data = np.frombuffer(word.encode(), dtype=np.uint8)
        value, end, problem = decimal(data, 0)
        if problem == NOT_FINITE:
            raise ModelUnreadable("nonfinite", f"The file has a coordinate that is not a number: “{word[:40]}”.")
        if problem != OK or end != len(data):
            raise self._wrong(f"“{word[:40]}” is not a number")
        return float(value)

    def _corner(self, attributes: dict[str, str], key: str) -> int:
        written = attributes.get(key, "").strip(_XML_BLANKS)
        if not written.isascii() or not written.isdigit():
            raise self._wrong(f"“{written[:40]}” is not the number of a vertex")
        return min(int(written[:12]), 0x7FFFFFFF)

    def _wrong(self, what: str) -> ModelUnreadable:
        return _syntax(self._part, what)


_NAMED = {local: f"{_CORE} {local}" for local in ("resources", "build", "mesh", "vertices", "triangles", "components")}

_VERTEX = np.frombuffer(b"<vertex", dtype=np.uint8)
_TRIANGLE = np.frombuffer(b"<triangle", dtype=np.uint8)
_SHORTEST_VERTEX = len('<vertex x="0"y="0"z="0"/>') - 2
_SHORTEST_TRIANGLE = len('<triangle v1="0"v2="0"v3="0"/>') - 2


@njit(cache=True, inline="always")
def _blank(c):  # type: ignore[no-untyped-def]
    """As XML has it: no other control character may stand between words."""
    return c == 32 or c == 10 or c == 9 or c == 13


@njit(cache=True)
def _tag(data, at, word):  # type: ignore[no-untyped-def]
    """(position after blanks and `word`, start of `word`, whether it is there, whether it may come with more text)."""
    size = len(data)
    while at < size and _blank(data[at]):
        at += 1
    start = at
    k = 0
    while k < len(word) and at < size and data[at] == word[k]:
        at += 1
        k += 1
    if at >= size:
        return at, start, False, True
    return at, start, k == len(word) and _blank(data[at]), False


@njit(cache=True)
def _ends(data, at):  # type: ignore[no-untyped-def]
    """(position after `/>` that stands at `at`, whether it is there, whether it may come with more text)."""
    if at + 1 >= len(data):
        return at, False, data[at] == 47 if at < len(data) else True
    return at + 2, data[at] == 47 and data[at + 1] == 62, False


@njit(cache=True, nogil=True)
def _vertices(data, at):  # type: ignore[no-untyped-def]
    """(points (n, 3), position after the last row, whether the text only ended): plain `<vertex x="" y="" z=""/>`."""
    size = len(data)
    points = np.empty(((size - at) // _SHORTEST_VERTEX + 1, 3))
    count = 0
    row = np.zeros(3)
    while True:
        end, start, found, more = _tag(data, at, _VERTEX)
        if not found:
            # Blanks before what is not a row are nobody's.
            return points[:count].copy(), start, more
        seen = 0
        at = end
        while True:
            while at < size and _blank(data[at]):
                at += 1
            if at + 3 >= size:
                done, closed, more = _ends(data, at)
                if closed and seen == 7:
                    at = done
                    break
                return points[:count].copy(), start, True
            axis = data[at] - 120
            if data[at] == 47:
                done, closed, more = _ends(data, at)
                if not closed or seen != 7:
                    return points[:count].copy(), start, False
                at = done
                break
            quote = data[at + 2]
            if not (0 <= axis <= 2) or data[at + 1] != 61 or (quote != 34 and quote != 39) or seen >> axis & 1:
                return points[:count].copy(), start, False
            at += 3
            while at < size and _blank(data[at]):
                at += 1
            value, at, problem = decimal(data, at)
            while at < size and _blank(data[at]):
                at += 1
            if at >= size:
                return points[:count].copy(), start, True
            if problem != OK or data[at] != quote:
                return points[:count].copy(), start, False
            at += 1
            if not (data[at] == 47 if at < size else True) and not (at < size and _blank(data[at])):
                return points[:count].copy(), start, False
            row[axis] = value
            seen |= 1 << axis
        points[count] = row
        count += 1


@njit(cache=True)
def _name_end(data, at):  # type: ignore[no-untyped-def]
    """Position after the attribute name (letters, digits, `_`, `:`, `-`, `.`) that starts at `at`."""
    size = len(data)
    while at < size:
        c = data[at]
        letter = 97 <= (c | 32) <= 122
        if not (letter or 48 <= c <= 57 or c == 95 or c == 58 or c == 45 or c == 46):
            break
        at += 1
    return at


@njit(cache=True, nogil=True)
def _triangle_rows(data, at):  # type: ignore[no-untyped-def]
    """(index (n, 3), position after the last row, whether the text only ended): plain `<triangle v1="" .../>`, any
    other attributes skipped but for declarations of name spaces."""
    size = len(data)
    index = np.empty(((size - at) // _SHORTEST_TRIANGLE + 1, 3), np.int32)
    count = 0
    row = np.zeros(3, np.int32)
    while True:
        end, start, found, more = _tag(data, at, _TRIANGLE)
        if not found:
            return index[:count].copy(), start, more
        seen = 0
        at = end
        while True:
            while at < size and _blank(data[at]):
                at += 1
            if at < size and data[at] == 47:
                done, closed, more = _ends(data, at)
                if more:
                    return index[:count].copy(), start, True
                if not closed or seen != 7:
                    return index[:count].copy(), start, False
                at = done
                break
            name = at
            at = _name_end(data, at)
            if at + 1 >= size:
                return index[:count].copy(), start, True
            quote = data[at + 1]
            if at == name or data[at] != 61 or (quote != 34 and quote != 39):
                return index[:count].copy(), start, False
            corner = data[name + 1] - 49 if at - name == 2 and data[name] == 118 else 9
            if at - name >= 5 and data[name] == 120 and data[name + 1] == 109:
                return index[:count].copy(), start, False
            at += 2
            if 0 <= corner <= 2:
                value = 0
                first = at
                while at < size and 48 <= data[at] <= 57 and at - first < 9:
                    value = value * 10 + (data[at] - 48)
                    at += 1
                if at >= size:
                    return index[:count].copy(), start, True
                if at == first or data[at] != quote or seen >> corner & 1:
                    return index[:count].copy(), start, False
                row[corner] = value
                seen |= 1 << corner
            else:
                while at < size and data[at] != quote and data[at] != 60 and data[at] != 38:
                    at += 1
                if at >= size:
                    return index[:count].copy(), start, True
                if data[at] != quote:
                    return index[:count].copy(), start, False
            at += 1
            if at < size and data[at] != 47 and not _blank(data[at]):
                return index[:count].copy(), start, False
        index[count] = row
        count += 1


def warm() -> None:
    """Compiles, or loads from numba's cache, both scanners."""
    _vertices(np.frombuffer(b'<vertex x="0" y="0" z="0"/>', dtype=np.uint8), 0)
    _triangle_rows(np.frombuffer(b'<triangle v1="0" v2="1" v3="2"/>', dtype=np.uint8), 0)
    decimal(np.frombuffer(b"0", dtype=np.uint8), 0)
