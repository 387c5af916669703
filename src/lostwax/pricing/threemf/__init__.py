"""Reads the solid that a 3MF file's build places: core specification, and parts in files of their own (production).

expat parses the text in pieces and knows the structure. The rows of vertices and triangles, nearly all of the text, are
taken over by a compiled scanner from the very byte at which expat reported their opening tag; whatever is not a plain
row (a comment, an entity, a stranger's element) goes back to expat. So both see what the XML says, and nothing else.

What would change the price but cannot be measured here (beam lattices, volumetric parts, displacement, booleans,
modifiers of a slicer's project) is refused by name. Materials, colours, properties, slices and thumbnails are skipped.

`archive` opens the zip and holds its limits, `model` reads one part's XML with `rows` for its rows, `build` brings
together what the build places.
"""

import os

from lostwax.pricing.threemf.archive import Package
from lostwax.pricing.threemf.build import Build, refuse_modifiers, root_part
from lostwax.pricing.threemf.rows import warm
from lostwax.pricing.triangles import Indexed

__all__ = ["read", "warm"]


def read(path: str | os.PathLike[str]) -> Indexed:
    """Triangles of what a 3MF file's build items place, in mm.

    Raises ModelUnreadable with code truncated, archive, encrypted, compression, inflate_limit, not_3mf, doctype,
    xml_syntax, index, cycle, depth, instances, too_complex, unit, unsupported_extension, nonfinite or zero_triangles;
    OSError when the file cannot be opened.
    """
    with Package(path) as package:
        root = root_part(package)
        refuse_modifiers(package)
        return Build(package, root).triangles()
