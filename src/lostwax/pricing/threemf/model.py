"""One model part of a 3MF: expat for its structure, the scanner for its rows."""

import re
from array import array
from collections.abc import Iterable
from typing import Any, NamedTuple
from xml.parsers import expat

import numpy as np
import numpy.typing as npt

from lostwax.pricing.measure import ModelUnreadable
from lostwax.pricing.scan import NOT_FINITE, OK, decimal
from lostwax.pricing.threemf.rows import triangle_rows, vertex_rows

Matrix = npt.NDArray[np.float64]
"""(4, 3): a point p, a row, goes to p @ M[:3] + M[3]."""

MOST_INSTANCES = 10_000
_MOST_OBJECTS = 100_000
_DEEPEST_XML = 64
_LONGEST_ROW = 1 << 16
_XML_BLANKS = " \t\r\n"

UNITS = {"micron": 0.001, "millimeter": 1.0, "centimeter": 10.0, "inch": 25.4, "foot": 304.8, "meter": 1000.0}

SCHEMAS = "http://schemas.microsoft.com/3dmanufacturing/"
_CORE = SCHEMAS + "core/2015/02"
_PRODUCTION = SCHEMAS + "production/2015/06"
_MESH_RESOLUTION = SCHEMAS + "slice/2015/07 meshresolution"
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
_OPENING = re.compile(rb"<(?:vertices|triangles)(?:\s[^<>]*)?>")


class Component(NamedTuple):
    """A reference to an object, from a build item or from another object."""

    part: str
    object_id: str
    matrix: Matrix | None
    left_out: bool = False


_NO_POINTS = np.empty((0, 3))
_NO_TRIANGLES = np.empty((0, 3), np.int32)


class Object:
    __slots__ = ("components", "has_mesh", "index", "kind", "points", "unmeasurable")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.has_mesh = False
        self.points: npt.NDArray[np.float64] = _NO_POINTS
        self.index: npt.NDArray[np.int32] = _NO_TRIANGLES
        self.components: list[Component] = []
        self.unmeasurable: str | None = None


def wrong_xml(part: str, what: str) -> ModelUnreadable:
    return ModelUnreadable(
        "xml_syntax", f"“{part}” in the file is not what a 3MF model says: {what}. Please export it again."
    )


def unsupported(name: str) -> ModelUnreadable:
    return ModelUnreadable(
        "unsupported_extension",
        f"The model uses the 3MF extension for {name} geometry, which is not measured here. Please export it as a "
        "plain mesh.",
    )


def too_many_instances() -> ModelUnreadable:
    return ModelUnreadable(
        "instances", f"The file places more than {MOST_INSTANCES:,} objects. Please place fewer and export it again."
    )


def new_parser() -> expat.XMLParserType:
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


class Model:
    """One model part: its unit, its objects by id, and its build items."""

    def __init__(self, part: str) -> None:
        self.unit = "millimeter"
        self.objects: dict[str, Object] = {}
        self.items: list[Component] = []
        self._part = part
        self._path: list[str] = []
        self._prefixes: dict[str, str] = {}
        self._object: Object | None = None
        self._points = _Rows("d")
        self._index = _Rows("i")
        self._opened: tuple[str, int] | None = None
        self._fed = 0
        self._parser = new_parser()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.StartNamespaceDeclHandler = self._declare

    def parsed(self, chunks: Iterable[bytes]) -> "Model":
        rest = b""
        scanning: str | None = None
        try:
            for chunk in chunks:
                rest, scanning = self._take(rest + chunk, scanning)
            self._feed(rest)
            self._parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise wrong_xml(self._part, expat.ErrorString(error.code)) from error
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
            points, at, more = vertex_rows(data, at)
            self._points.add_block(points)
        else:
            index, at, more = triangle_rows(data, at)
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
                raise too_many_instances()

    def _inside_object(self, thing: Object, space: str, local: str, attributes: dict[str, str]) -> None:
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
        if self.unit not in UNITS:
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
                raise unsupported(f"“{uri[-60:]}”")

    def _open_object(self, attributes: dict[str, str]) -> None:
        key = attributes.get("id", "").strip()
        if not key or key in self.objects:
            raise self._wrong(f"there are two objects “{key[:40]}”, or one without a number")
        if len(self.objects) >= _MOST_OBJECTS:
            raise too_many_instances()
        self._object = Object(attributes.get("type", "model"))
        self._points, self._index = _Rows("d"), _Rows("i")
        if attributes.get(_MESH_RESOLUTION) == "lowres":
            # The mesh only shows roughly what the slices say.
            self._object.unmeasurable = "slice"
        self.objects[key] = self._object

    def _close_mesh(self, thing: Object) -> None:
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
        return wrong_xml(self._part, what)


_NAMED = {local: f"{_CORE} {local}" for local in ("resources", "build", "mesh", "vertices", "triangles", "components")}
