"""Writes shapes in formats that number their vertices: Wavefront OBJ and 3MF."""

import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lostwax.samples.shapes import Array

CORE = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
_MILLIMETRES = {"micron": 0.001, "millimeter": 1.0, "centimeter": 10.0, "inch": 25.4, "foot": 304.8, "meter": 1000.0}
_TYPES = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/></Types>'
)
_RELATIONS = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Target="/3D/3dmodel.model" Id="rel0" '
    'Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/></Relationships>'
)


def write_obj(triangles: npt.NDArray[Any], path: Path) -> None:
    """A Wavefront OBJ of triangles (n, 3, 3) in mm, with nine significant digits."""
    points, index = numbered(triangles)
    with path.open("w", encoding="ascii") as file:
        file.write("# Lostwax sample, mm\no sample\n")
        file.writelines(f"v {x:.9g} {y:.9g} {z:.9g}\n" for x, y, z in points.tolist())
        file.writelines(f"f {a} {b} {c}\n" for a, b, c in (index + 1).tolist())


def write_3mf(triangles: npt.NDArray[Any], path: Path, unit: str = "millimeter") -> None:
    """A 3MF of one object made of triangles (n, 3, 3) in mm, its numbers written in `unit`. Same bytes every time."""
    path.write_bytes(package(model(an_object(triangles / _MILLIMETRES[unit]), '<item objectid="1"/>', unit)))


def numbered(triangles: npt.NDArray[Any]) -> tuple[Array, npt.NDArray[np.int64]]:
    """Points (m, 3) with the precision of float32, and triangles (n, 3) as numbers of them."""
    corners = triangles.astype(np.float32).reshape(-1, 3) + np.float32(0)
    points, inverse = np.unique(corners, axis=0, return_inverse=True)
    return points.astype(np.float64), inverse.reshape(-1, 3)


def an_object(triangles: npt.NDArray[Any], number: int = 1, attributes: str = 'type="model"') -> str:
    """The XML of a 3MF object with a mesh."""
    points, index = numbered(triangles)
    vertices = "".join(f'<vertex x="{x:.9g}" y="{y:.9g}" z="{z:.9g}"/>\n' for x, y, z in points.tolist())
    faces = "".join(f'<triangle v1="{a}" v2="{b}" v3="{c}"/>\n' for a, b, c in index.tolist())
    return (
        f'<object id="{number}" {attributes}><mesh>\n<vertices>\n{vertices}</vertices>\n'
        f"<triangles>\n{faces}</triangles>\n</mesh></object>\n"
    )


def model(objects: str, items: str, unit: str = "millimeter", attributes: str = "") -> str:
    """The XML of a 3MF model part."""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<model unit="{unit}" xml:lang="en-US" xmlns="{CORE}" {attributes}>\n'
        f"<resources>\n{objects}</resources>\n<build>{items}</build>\n</model>\n"
    )


def package(root: str | bytes, others: Mapping[str, str | bytes] | Sequence[tuple[str, str | bytes]] = ()) -> bytes:
    """A 3MF file with this model part and `others`, by name. Same bytes every time."""
    parts: list[tuple[str, str | bytes]] = [
        ("[Content_Types].xml", _TYPES),
        ("_rels/.rels", _RELATIONS),
        ("3D/3dmodel.model", root),
        *(others.items() if isinstance(others, Mapping) else others),
    ]
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts:
            info = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return file.getvalue()
