"""The 3MF reader: what a build places, in which unit and how, and every trap that an archive of XML can hide."""

import itertools
import re
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from lostwax import samples
from lostwax.contracts.orders import Geometry
from lostwax.pricing import mesh, threemf
from lostwax.pricing.measure import ModelUnreadable
from lostwax.samples.indexed import an_object, model, package

PRODUCTION = 'xmlns:p="http://schemas.microsoft.com/3dmanufacturing/production/2015/06" requiredextensions="p"'
ITEM = '<item objectid="1"/>'


def box(x: float = 1.0, y: float = 2.0, z: float = 3.0) -> npt.NDArray[np.float64]:
    corner = np.array([[i, j, k] for k in (0, 1) for j in (0, 1) for i in (0, 1)], dtype=np.float64)
    faces = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (1, 3, 7, 5), (3, 2, 6, 7), (2, 0, 4, 6)]
    return np.asarray(corner[[t for a, b, c, d in faces for t in ((a, b, c), (a, c, d))]] * (x, y, z))


BOX = an_object(box())


def measured(tmp_path: Path, data: bytes) -> Geometry:
    path = tmp_path / "model.3mf"
    path.write_bytes(data)
    return mesh.measure_file(path)


def refusal(tmp_path: Path, data: bytes) -> ModelUnreadable:
    with pytest.raises(ModelUnreadable) as caught:
        measured(tmp_path, data)
    assert len(caught.value.detail) > 20
    assert caught.value.mended_by == "customer"
    return caught.value


def code(tmp_path: Path, data: bytes) -> str:
    return refusal(tmp_path, data).code


def composed(number: int, *parts: str) -> str:
    return f'<object id="{number}"><components>{"".join(parts)}</components></object>'


def part(number: int, transform: str = "", more: str = "") -> str:
    return f'<component objectid="{number}" {more} {transform and f"transform={chr(34)}{transform}{chr(34)}"}/>'


def test_what_was_written_is_read(tmp_path: Path) -> None:
    triangles = samples.band(around=24, across=4).triangles
    path = tmp_path / "ring.3mf"
    samples.write_3mf(triangles, path)
    read = threemf.read(path)
    np.testing.assert_array_equal(read.corners.astype(np.float32), triangles.astype(np.float32))
    assert read.notes == ()


@pytest.mark.parametrize("shape", [samples.band(), samples.signet(), samples.solitaire(), samples.pendant()])
def test_a_shape_measures_the_same_in_every_format(tmp_path: Path, shape: samples.Shape) -> None:
    writers = {"stl": samples.write_binary, "ascii": samples.write_ascii, "obj": samples.write_obj}
    writers["3mf"] = samples.write_3mf
    found = {}
    for name, write in writers.items():
        # Named wrongly on purpose: content decides.
        path = tmp_path / f"{name}.bin"
        write(shape.triangles, path)
        found[name] = mesh.measure_file(path)
    for geometry in found.values():
        assert geometry.volume_mm3 == pytest.approx(shape.volume_mm3, rel=1e-6)
        assert geometry.volume_mm3 == pytest.approx(found["stl"].volume_mm3, rel=1e-8)
        assert geometry.area_mm2 == pytest.approx(found["stl"].area_mm2, rel=1e-8)
        assert geometry.box_mm == pytest.approx(found["stl"].box_mm, rel=1e-7)
        assert geometry.triangles == len(shape.triangles)
        assert geometry.notes == ()


@pytest.mark.parametrize(
    ("unit", "millimetres"),
    [("micron", 0.001), ("millimeter", 1), ("centimeter", 10), ("inch", 25.4), ("foot", 304.8), ("meter", 1000)],
)
def test_units_are_brought_to_millimetres_and_noted(tmp_path: Path, unit: str, millimetres: float) -> None:
    geometry = measured(tmp_path, package(model(BOX, ITEM, unit)))
    assert geometry.volume_mm3 == pytest.approx(6 * millimetres**3)
    assert geometry.box_mm == pytest.approx((millimetres, 2 * millimetres, 3 * millimetres))
    assert (unit in " ".join(geometry.notes)) == (unit != "millimeter")
    path = tmp_path / "ring.3mf"
    samples.write_3mf(box(), path, unit)
    assert mesh.measure_file(path).volume_mm3 == pytest.approx(6)


def test_a_unit_that_there_is_not_is_refused_and_none_means_millimetres(tmp_path: Path) -> None:
    assert code(tmp_path, package(model(BOX, ITEM, "furlong"))) == "unit"
    assert measured(tmp_path, package(model(BOX, ITEM).replace('unit="millimeter"', ""))).volume_mm3 == 6


def test_transforms_are_applied_from_the_inside_out(tmp_path: Path) -> None:
    inner = part(1, "2 0 0 0 1 0 0 0 1 10 0 0")
    item = '<item objectid="2" transform="0 1 0 -1 0 0 0 0 1 0 0 5"/>'
    corners = threemf.read(_written(tmp_path, package(model(BOX + composed(2, inner), item)))).corners
    # x from 10 to 12 becomes y, y from 0 to 2 becomes -x, z is lifted.
    assert corners.reshape(-1, 3).min(axis=0).tolist() == [-2, 10, 5]
    assert corners.reshape(-1, 3).max(axis=0).tolist() == [0, 12, 8]


def _written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "written.3mf"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_a_mirrored_object_still_looks_outwards(tmp_path: Path, signs: tuple[int, int, int]) -> None:
    a, b, c = signs
    cavity = an_object(box(0.5, 0.5, 0.5)[:, ::-1] + 0.2, 2)
    item = f'<item objectid="3" transform="{a} 0 0 0 {b} 0 0 0 {c} 0 0 0"/>'
    geometry = measured(tmp_path, package(model(BOX + cavity + composed(3, part(1), part(2)), item)))
    assert geometry.volume_mm3 == pytest.approx(6 - 0.125)
    assert geometry.notes == ("1 cavity inside the model taken off its volume",)


def test_only_what_is_built_counts_and_supports_do_not(tmp_path: Path) -> None:
    other = an_object(box(50, 50, 50), 2)
    support = an_object(box(1, 1, 9), 3, 'type="support"')
    apart = '<item objectid="1" transform="1 0 0 0 1 0 0 0 1 9 0 0"/>'
    geometry = measured(tmp_path, package(model(BOX + other + support, ITEM + apart + '<item objectid="3"/>')))
    assert geometry.volume_mm3 == pytest.approx(12)
    assert "1 support objects were left out" in geometry.notes
    assert any("places 3 objects" in note for note in geometry.notes)
    marked = '<item objectid="2" printable="0"/>'
    geometry = measured(tmp_path, package(model(BOX + other, ITEM + marked)))
    assert geometry.volume_mm3 == pytest.approx(6)
    assert "not to be made" in geometry.notes[0]


def test_parts_in_files_of_their_own(tmp_path: Path) -> None:
    """As Bambu Studio and PrusaSlicer's heirs write every file."""
    root = model(
        composed(8, part(1, "1 0 0 0 1 0 0 0 1 5 0 0", 'p:path="/3D/Objects/ring.model"')),
        '<item objectid="8"/><item objectid="1" p:path="/3d/objects/RING.model"/>',
        attributes=PRODUCTION,
    )
    inner = model(BOX, "")
    assert measured(tmp_path, package(root, {"3D/Objects/ring.model": inner})).volume_mm3 == pytest.approx(12)
    assert code(tmp_path, package(root)) == "index"
    assert code(tmp_path, package(root, {"3D/Objects/ring.model": model(BOX, "", "inch")})) == "unit"


def test_a_slicers_project_with_negative_parts_is_refused(tmp_path: Path) -> None:
    plain = '<config><part id="1" subtype="normal_part"/></config>'
    root = model(BOX, ITEM)
    assert measured(tmp_path, package(root, {"Metadata/model_settings.config": plain})).volume_mm3 == 6
    spoiled = plain.replace("normal", "negative")
    assert code(tmp_path, package(root, {"Metadata/model_settings.config": spoiled})) == "unsupported_extension"


HABITS = {
    "single quotes": lambda text: text.replace('"', "'"),
    "windows line ends": lambda text: text.replace("\n", "\r\n"),
    "no line ends": lambda text: text.replace("\n", ""),
    "blanks everywhere": lambda text: re.sub(r' ([xyz]|v[123])="(.*?)"', r'\n\t\1="  \2\n"', text).replace("/>", " />"),
    "blanks around =": lambda text: text.replace('y="', ' y = "').replace('v2="', 'v2 ="'),
    "end tags": lambda text: text.replace('"/>\n<v', '"></vertex>\n<v'),
    "comments between rows": lambda text: text.replace(
        "/>\n<vertex", '/>\n<!-- <vertex x="9" y="9" z="9"/> --><vertex'
    ),
    "rows in a comment": lambda text: text.replace(
        "<resources>", '<!--<vertices><vertex x="9" y="9" z="9"/>--><resources>'
    ),
    "character references": lambda text: text.replace('x="1"', 'x="&#49;"').replace('v1="3"', 'v1="&#x33;"'),
    "other order": lambda text: text.replace('x="0" y="0"', 'y="0" x="0"'),
    "properties": lambda text: text.replace('<triangle v1="0"', '<triangle pid="1" v1="0" p1="7" paint:a=">"'),
    "exponents": lambda text: text.replace('x="1"', 'x="+10.0e-1"').replace('z="3"', 'z="0.3E1"'),
    "a strange vertex": lambda text: text.replace(
        "</vertices>", '<vertex xmlns="urn:x" x="9" y="9" z="9"/></vertices>'
    ),
    "a strange triangle": lambda text: text.replace(
        "<triangles>\n", '<triangles>\n<triangle xmlns="urn:x" v1="0" v2="1" v3="2"/>'
    ),
    "a data section": lambda text: text.replace("<mesh>", "<mesh><![CDATA[<vertices>]]>"),
    "a mark at the start": lambda text: "\ufeff" + text,
}


@pytest.mark.parametrize("habit", HABITS)
@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 100, 1 << 20])
def test_the_same_xml_in_other_habits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, habit: str, prefix: bool, chunk: int
) -> None:
    """Whatever the scanner does not take must come out of expat as the same numbers, wherever the text is torn."""
    monkeypatch.setattr("lostwax.pricing.threemf.archive._CHUNK", chunk)
    text = HABITS[habit](model(BOX, ITEM, attributes='xmlns:paint="urn:slic3r"'))
    if prefix:
        text = re.sub(r"<(/?)(model|resources|object|mesh|vert|triangle|build|item)(?=\w*\W)", r"<\1c:\2", text)
        text = text.replace("xmlns=", "xmlns:c=", 1)
        text = text.replace('<c:vertex xmlns="urn:x"', "<vertex").replace('<c:triangle xmlns="urn:x"', "<triangle")
    geometry = measured(tmp_path, package(text))
    assert (geometry.volume_mm3, geometry.area_mm2, geometry.triangles, geometry.notes) == (6, 22, 12, ())


@pytest.mark.parametrize("chunk", [300, 4000])
def test_plain_rows_never_go_through_expat_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """Else a large model would take twenty times as long, with the same result."""

    def unwanted(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("lostwax.pricing.threemf.archive._CHUNK", chunk)
    monkeypatch.setattr("lostwax.pricing.threemf.model._Rows.add", unwanted)
    assert measured(tmp_path, package(model(BOX + an_object(box(), 2), ITEM))).volume_mm3 == 6


def test_utf_16(tmp_path: Path) -> None:
    text = model(BOX, ITEM).replace("UTF-8", "UTF-16")
    assert measured(tmp_path, package(text.encode("utf-16"))).volume_mm3 == 6


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (('x="1"', 'x="nan"'), "nonfinite"),
        (('x="1"', 'x="INF"'), "nonfinite"),
        (('x="1"', 'x="1e400"'), "nonfinite"),
        (('x="1"', 'x="1e9"'), "extent"),
        (('x="1"', 'x="one"'), "xml_syntax"),
        (('x="1"', 'x="1_0"'), "xml_syntax"),
        (('x="1"', 'x=""'), "xml_syntax"),
        (('x="1"', 'X="1"'), "xml_syntax"),
        (('x="1"', 'x="1" x="1"'), "xml_syntax"),
        (('x="1"', "x=1"), "xml_syntax"),
        (('v1="0"', 'v1="8"'), "index"),
        (('v1="0"', 'v1="99999999999999999999999"'), "index"),
        (('v1="0"', 'v1="-1"'), "xml_syntax"),
        (('v1="0"', 'v1="0.0"'), "xml_syntax"),
        (('v1="0"', ""), "xml_syntax"),
        (('v1="0"', 'v1="0" v1="0"'), "xml_syntax"),
        (("</vertices>", ""), "xml_syntax"),
        (("</mesh>", "</mesh><mesh><vertices/></mesh>"), "xml_syntax"),
        (("</object>", '</object><object id="1"/>'), "xml_syntax"),
        (("</model>", ""), "xml_syntax"),
        (('objectid="1"', 'objectid="2"'), "index"),
        (('objectid="1"', 'objectid="1" transform="1 0 0"'), "xml_syntax"),
        (('objectid="1"', 'objectid="1" transform="1 0 0 0 1 0 0 0 nan 0 0 0"'), "nonfinite"),
        (('objectid="1"', 'objectid="1" transform="1e300 0 0 0 1e300 0 0 0 1e300 0 0 0"'), "extent"),
        (('objectid="1"', 'objectid="1" transform="1 0 0 0 1 0 0 0 0 0 0 0"'), "no_volume"),
        (("<build>", "<!DOCTYPE x><build>"), "xml_syntax"),
        (("<model ", "<!DOCTYPE model><model "), "doctype"),
        (("<model ", '<!DOCTYPE m [<!ENTITY a SYSTEM "file:///etc/passwd">]><model '), "doctype"),
        (('x="1"', 'x="&a;"'), "xml_syntax"),
        (("3dmanufacturing/core/2015/02", "3dmanufacturing/core/2099"), "not_3mf"),
        (("xml:lang", 'requiredextensions="q" xml:lang'), "xml_syntax"),
        (("xml:lang", 'xmlns:q="urn:unheard-of" requiredextensions="q" xml:lang'), "unsupported_extension"),
        (("<resources>", "<a>" * 70 + "</a>" * 70 + "<resources>"), "xml_syntax"),
        (("<triangle ", "<!--"), "xml_syntax"),
    ],
)
def test_what_is_wrong_is_refused(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    text = model(BOX, ITEM)
    assert change[0] in text
    assert code(tmp_path, package(text.replace(change[0], change[1], 1))) == expected


@pytest.mark.parametrize(
    ("name", "where"),
    [("beamlattice/2017/02", "mesh"), ("volumetric/2022/01", "object"), ("booleanoperations/2023/07", "object")],
)
def test_geometry_of_other_kinds_is_refused_by_name_only_where_it_is_built(
    tmp_path: Path, name: str, where: str
) -> None:
    strange = an_object(box(), 2).replace(f"</{where}>", f"<q:thing/></{where}>")
    attributes = f'xmlns:q="http://schemas.microsoft.com/3dmanufacturing/{name}" requiredextensions="q"'
    failure = refusal(tmp_path, package(model(BOX + strange, '<item objectid="2"/>', attributes=attributes)))
    assert failure.code == "unsupported_extension"
    assert name[:4] in failure.detail
    assert measured(tmp_path, package(model(BOX + strange, ITEM, attributes=attributes))).volume_mm3 == 6


def test_a_mesh_that_only_stands_for_slices_is_refused(tmp_path: Path) -> None:
    rough = BOX.replace('type="model"', 's:meshresolution="lowres"')
    attributes = 'xmlns:s="http://schemas.microsoft.com/3dmanufacturing/slice/2015/07" requiredextensions="s"'
    assert code(tmp_path, package(model(rough, ITEM, attributes=attributes))) == "unsupported_extension"
    fine = rough.replace("lowres", "fullres")
    assert measured(tmp_path, package(model(fine, ITEM, attributes=attributes))).volume_mm3 == 6


def test_cycles_depth_and_numbers_of_instances_are_limited(tmp_path: Path) -> None:
    round_trip = composed(2, part(3)) + composed(3, part(2))
    assert code(tmp_path, package(model(BOX + round_trip, '<item objectid="2"/>'))) == "cycle"

    def chain(length: int, width: int) -> bytes:
        links = [composed(k, *[part(k - 1)] * width) for k in range(2, length + 2)]
        return package(model(BOX + "".join(links), f'<item objectid="{length + 1}"/>'))

    assert measured(tmp_path, chain(15, 1)).volume_mm3 == 6
    assert code(tmp_path, chain(16, 1)) == "depth"
    assert code(tmp_path, chain(14, 2)) == "instances"
    items = "".join(f'<item objectid="1" transform="1 0 0 0 1 0 0 0 1 {k} {k * k} 0"/>' for k in range(10_001))
    assert code(tmp_path, package(model(BOX, items))) == "instances"


def test_the_triangles_of_all_instances_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lostwax.pricing.threemf.build.MOST_TRIANGLES", 100)
    assert code(tmp_path, package(model(BOX, ITEM * 9))) == "too_complex"


def archive(*parts: tuple[str, bytes], **more: int) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", **more) as made:  # type: ignore[arg-type]
        for name, content in parts:
            made.writestr(name, content)
    return file.getvalue()


def test_archives_of_other_kinds(tmp_path: Path) -> None:
    text = model(BOX, ITEM).encode()
    lone = ("3D/3dmodel.model", text)
    assert measured(tmp_path, archive(lone)).volume_mm3 == 6
    assert measured(tmp_path, archive(lone, compression=zipfile.ZIP_STORED)).volume_mm3 == 6
    assert code(tmp_path, archive(lone, compression=zipfile.ZIP_LZMA)) == "compression"
    assert code(tmp_path, archive(lone, compression=zipfile.ZIP_BZIP2)) == "compression"
    failure = refusal(tmp_path, archive(("ring.stl", b"solid ring")))
    assert failure.code == "not_3mf"
    assert "of stl" in failure.detail
    assert code(tmp_path, archive()) == "not_3mf"
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = package(text, [("3d/3DModel.model", text), ("3D/3dmodel.model", text)])
    assert code(tmp_path, twice) == "archive"
    assert code(tmp_path, archive(*[(f"{k:0200d}", b"") for k in range(20_000)], lone)) == "archive"


def test_zip64_is_read(tmp_path: Path) -> None:
    file = BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made,
        made.open("3D/3dmodel.model", "w", force_zip64=True) as entry,
    ):
        entry.write(model(BOX, ITEM).encode())
    assert measured(tmp_path, file.getvalue()).volume_mm3 == 6


def test_what_an_archive_claims_is_held_against_what_it_holds(tmp_path: Path) -> None:
    text = model(BOX, ITEM).encode()
    whole = bytearray(archive(("3D/3dmodel.model", text), compression=zipfile.ZIP_DEFLATED))
    entry = whole.index(b"PK\x01\x02")
    encrypted = whole.copy()
    encrypted[entry + 8] |= 1
    assert code(tmp_path, bytes(encrypted)) == "encrypted"
    for size, expected in ((100, "archive"), (20_000, "archive"), (600 << 20, "inflate_limit")):
        lying = whole.copy()
        lying[entry + 24 : entry + 28] = size.to_bytes(4, "little")
        assert code(tmp_path, bytes(lying)) == expected
    packed = whole.copy()
    packed[entry + 20 : entry + 24] = (1 << 31).to_bytes(4, "little")
    packed[entry + 24 : entry + 28] = (300 << 20).to_bytes(4, "little")
    assert code(tmp_path, bytes(packed)) == "inflate_limit"


def test_two_parts_that_are_each_allowed_may_be_too_much_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = model(BOX, '<item objectid="1"/><item objectid="1" p:path="/a.model"/>', attributes=PRODUCTION)
    data = package(root, {"a.model": model(BOX, "")})
    assert measured(tmp_path, data).volume_mm3 == 12
    monkeypatch.setattr("lostwax.pricing.threemf.archive.MOST_INFLATED", len(root) + len(model(BOX, "")))
    assert code(tmp_path, data) == "inflate_limit"


def test_cutting_and_spoiling_never_do_worse_than_refuse(tmp_path: Path) -> None:
    data = package(model(BOX, ITEM))
    for length in range(0, len(data), 13):
        assert code(tmp_path, data[:length]) in {"empty", "truncated", "archive", "not_a_model", "not_3mf"}
    random = np.random.default_rng(6)
    for _ in range(500):
        spoiled = bytearray(data)
        spoiled[random.integers(len(data))] ^= 1 << int(random.integers(8))
        assert outcome(tmp_path, bytes(spoiled)) in {6.0, *REFUSALS}


REFUSALS = {
    *("archive", "truncated", "encrypted", "compression", "inflate_limit", "not_3mf", "not_a_model", "xml_syntax"),
    *("index", "unit", "size_mismatch", "unsupported_extension"),
}


def outcome(tmp_path: Path, data: bytes) -> float | str:
    """The volume, or the code of the refusal."""
    try:
        return measured(tmp_path, data).volume_mm3
    except ModelUnreadable as unreadable:
        return unreadable.code


def test_scanner_and_expat_agree_on_spoiled_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = model(BOX, ITEM).encode()
    random = np.random.default_rng(7)
    alphabet = np.frombuffer(b"<>/=\"'&;!-[]#:vxyz0123456789.eE+ \t\n\v\0\x80\xff", dtype=np.uint8)
    first = text.index(b"<vertices>")
    spoiled = []
    for _ in range(1500):
        changed = bytearray(text)
        at = int(random.integers(first, len(text)))
        byte = int(random.choice(alphabet))
        if random.random() < 0.5:
            changed[at] = byte
        elif random.random() < 0.5:
            changed.insert(at, byte)
        else:
            del changed[at : at + int(random.integers(1, 4))]
        spoiled.append(package(bytes(changed)))
    by_scanner = [outcome(tmp_path, data) for data in spoiled]
    monkeypatch.setattr("lostwax.pricing.threemf.model._OPENING", re.compile(rb"(?!)"))
    by_expat = [outcome(tmp_path, data) for data in spoiled]
    assert by_scanner == by_expat
    assert len(set(map(str, by_expat))) > 10
