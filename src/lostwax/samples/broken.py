"""Files that pretend to be models, STL, OBJ and 3MF: what a reader must refuse, and two that it must forgive."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from lostwax.samples.files import binary
from lostwax.samples.indexed import an_object, model, numbered, package
from lostwax.samples.shapes import Array, band


class BrokenSample(msgspec.Struct, frozen=True):
    """`why`: the code of the refusal, or `accept` when the model can be mended without guessing (see `volume_mm3`)."""

    name: str
    path: Path
    why: str
    volume_mm3: float | None = None


_File = tuple[str, bytes, str, float | None]


def broken(folder: Path) -> list[BrokenSample]:
    """Writes one file for each way of being broken into `folder`, which is made. The same bytes every time."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = band(size=52, profile="comfort", width=3.5, thickness=1.6, around=64, across=8)
    sound = shape.triangles
    whole = binary(sound)
    count = len(sound)

    def with_count(n: int) -> bytes:
        return whole[:80] + n.to_bytes(4, "little") + whole[84:]

    def spoiled(change: Callable[[Array], None]) -> bytes:
        triangles = sound.copy()
        change(triangles)
        return binary(triangles)

    files: list[_File] = [
        ("empty.stl", b"", "empty", None),
        ("header-only.stl", whole[:83], "truncated", None),
        ("truncated.stl", whole[: len(whole) // 2], "truncated", None),
        ("count-too-high.stl", with_count(count + 1000), "truncated", None),
        ("count-too-low.stl", with_count(count // 2), "size_mismatch", None),
        ("zero-triangles.stl", whole[:80] + bytes(4), "zero_triangles", None),
        ("nan.stl", spoiled(_put((17, 1, 2), np.nan)), "nonfinite", None),
        ("infinite.stl", spoiled(_put((17, 1, 2), np.inf)), "nonfinite", None),
        ("far-away.stl", spoiled(_put((17, 1, 2), 3e30)), "extent", None),
        ("hole.stl", binary(np.delete(sound, range(40, 48), axis=0)), "not_closed", None),
        ("not-an-stl.stl", b"Dear jeweller, please find the ring attached.\n" * 9, "not_a_model", None),
        ("a-zip.stl", b"PK\x03\x04" + bytes(200), "truncated", None),
        (
            "ascii-cut.stl",
            b"solid ring\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\n",
            "truncated",
            None,
        ),
        ("some-faces-flipped.stl", binary(_flipped(sound, slice(100, 160))), "accept", shape.volume_mm3),
        ("inside-out.stl", binary(_flipped(sound, slice(None))), "accept", shape.volume_mm3),
        *_broken_obj(sound),
        *_broken_3mf(sound),
    ]
    samples = []
    for name, data, why, volume in files:
        path = folder / name
        path.write_bytes(data)
        samples.append(BrokenSample(name, path, why, volume))
    return samples


def _put(where: tuple[int, int, int], value: float) -> Callable[[Array], None]:
    def change(triangles: Array) -> None:
        triangles[where] = value

    return change


def _flipped(triangles: npt.NDArray[Any], which: slice) -> npt.NDArray[Any]:
    turned = triangles.copy()
    turned[which] = triangles[which, ::-1]
    return turned


def _broken_obj(sound: Array) -> list[_File]:
    points, index = numbered(sound)
    vertices = b"".join(b"v %r %r %r\n" % tuple(point) for point in points.tolist())
    faces = [b"f %d %d %d\n" % tuple(face) for face in (index + 1).tolist()]
    whole = vertices + b"".join(faces)
    return [
        ("cut.obj", whole[: whole.rindex(b" ")], "truncated", None),
        ("points-only.obj", vertices, "zero_triangles", None),
        ("corner-missing.obj", whole + b"f 1 2 %d\n" % (len(points) + 1), "index", None),
        ("corner-zero.obj", whole + b"f 1 2 0\n", "index", None),
        ("nan.obj", b"v 0 nan 0\n" + whole, "nonfinite", None),
        ("garbage.obj", whole + b"\0\1\2\n", "obj_syntax", None),
        ("curved.obj", whole + b"cstype bspline\ndeg 3 3\n", "free_form", None),
        ("hole.obj", vertices + b"".join(faces[8:]), "not_closed", None),
        ("far-away.obj", b"v 3e30 0 0\n" + whole + b"f 1 2 3\n", "extent", None),
    ]


def _broken_3mf(sound: Array) -> list[_File]:
    plain = an_object(sound)
    item = '<item objectid="1"/>'
    whole = package(model(plain, item))
    first = plain.index("<triangle ")
    strange = plain[:first] + '<triangle v1="0" v2="1" v3="999999"/>' + plain[first:]
    cycle = '<object id="2"><components><component objectid="2"/></components></object>'
    laughs = '<!DOCTYPE x [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    text = model(plain, item)
    bomb = plain.replace("</vertices>", '<vertex x="0" y="0" z="0"/>' * 400_000 + "</vertices>")
    lattice = plain.replace("</mesh>", '<b:beamlattice minlength="0.1" radius="1"/></mesh>')
    beams = 'xmlns:b="http://schemas.microsoft.com/3dmanufacturing/beamlattice/2017/02"'
    return [
        ("cut.3mf", whole[: len(whole) // 2], "truncated", None),
        ("nothing-built.3mf", package(model(plain, "")), "zero_triangles", None),
        ("corner-missing.3mf", package(model(strange, item)), "index", None),
        ("object-missing.3mf", package(model(plain, '<item objectid="9"/>')), "index", None),
        ("itself.3mf", package(model(plain + cycle, '<item objectid="2"/>')), "cycle", None),
        ("laughs.3mf", package(text.replace("<model", laughs + "<model", 1)), "doctype", None),
        ("bomb.3mf", package(model(bomb, item)), "inflate_limit", None),
        ("torn-xml.3mf", package(text[: len(text) // 2]), "xml_syntax", None),
        ("lattice.3mf", package(model(lattice, item, attributes=beams)), "unsupported_extension", None),
        ("a-letter.3mf", package("<letter/>"), "not_3mf", None),
    ]
