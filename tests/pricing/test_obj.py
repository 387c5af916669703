"""The OBJ reader: every way to write a face, every way to be wrong, and no text that passes for a model by accident."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lostwax import samples
from lostwax.pricing import mesh, obj
from lostwax.pricing.measure import ModelUnreadable
from lostwax.samples.indexed import numbered

SQUARE = b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
CUBE = (
    b"v 0 0 0\nv 2 0 0\nv 0 2 0\nv 2 2 0\nv 0 0 2\nv 2 0 2\nv 0 2 2\nv 2 2 2\n"
    b"f 1 3 4 2\nf 5 6 8 7\nf 1 2 6 5\nf 2 4 8 6\nf 4 3 7 8\nf 3 1 5 7\n"
)


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "model.obj"
    path.write_bytes(data)
    return path


def refusal(tmp_path: Path, data: bytes) -> ModelUnreadable:
    with pytest.raises(ModelUnreadable) as caught:
        mesh.measure_file(written(tmp_path, data))
    return caught.value


def corners(tmp_path: Path, data: bytes) -> list[list[list[float]]]:
    return obj.read(written(tmp_path, data)).corners.tolist()  # type: ignore[no-any-return]


def test_a_cube_of_squares(tmp_path: Path) -> None:
    geometry = mesh.measure_file(written(tmp_path, CUBE))
    assert (geometry.volume_mm3, geometry.area_mm2, geometry.triangles, geometry.notes) == (8, 24, 12, ())


def test_what_was_written_is_read(tmp_path: Path) -> None:
    triangles = samples.band(around=24, across=4).triangles
    path = tmp_path / "ring.obj"
    samples.write_obj(triangles, path)
    read = obj.read(path)
    np.testing.assert_array_equal(read.corners.astype(np.float32), triangles.astype(np.float32))
    assert read.notes == ()


FORMS = ["{v}", "{v}/7", "{v}//9", "{v}/7/9", "{v}/-1/-2", "{v}/", "{v}//"]
ENDS = ["\n", "\r\n", "\r", " # seen\n", "\t\n", " \\\n\n", " \\\r\n\r\n"]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    forms=st.lists(st.sampled_from(FORMS), min_size=1, max_size=4),
    gaps=st.lists(st.sampled_from([" ", "  ", "\t", " \\\n ", " \\\r\n"]), min_size=1, max_size=3),
    ends=st.lists(st.sampled_from(ENDS), min_size=1, max_size=3),
    between=st.lists(
        st.sampled_from(["", "# C:\\models\\\n", "vn 0 0 1\n", "vt 0.5 0.5\n", "g a \\\n", "usemtl b\\\n", "s off\n"]),
        min_size=1,
        max_size=4,
    ),
)
def test_a_face_may_be_written_in_any_form(  # type: ignore[no-untyped-def]
    tmp_path_factory, seed: int, forms: list[str], gaps: list[str], ends: list[str], between: list[str]
) -> None:
    """Faces by absolute and relative numbers, given as soon as their vertices are, say what the plain form says."""
    points, index = numbered(samples.band(around=8, across=2).triangles)
    random = np.random.default_rng(seed)
    text, given_points = "", 0
    order = np.argsort(index.max(axis=1), kind="stable")
    for want, face in enumerate(order):
        while given_points <= index[face].max():
            x, y, z = points[given_points].tolist()
            text += f"v {x!r}{gaps[want % len(gaps)]}{y!r} {z!r}{ends[given_points % len(ends)]}"
            given_points += 1
        words = []
        for vertex in index[face].tolist():
            number = vertex + 1 if random.random() < 0.5 else vertex - given_points
            words.append(forms[int(random.integers(len(forms)))].format(v=number))
        gap = gaps[want % len(gaps)]
        text += between[want % len(between)] + f"f{gap}" + gap.join(words) + ends[want % len(ends)]
    path = tmp_path_factory.mktemp("obj") / "any.obj"
    path.write_text(text, newline="")
    np.testing.assert_allclose(obj.read(path).corners, points[index[order]], rtol=1e-15)


def test_colours_weights_and_byte_order_marks_are_passed_over(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf# hello\n\nv 0 0 0 1.0\nv 1 0 0 0.1 0.2 0.3\nv 0 1 0 1 1 1 1 # white\nfo 1 2 3\nl 1 2\np 1"
    assert corners(tmp_path, data) == [[[0, 0, 0], [1, 0, 0], [0, 1, 0]]]


def test_a_face_may_come_before_its_vertices(tmp_path: Path) -> None:
    assert len(corners(tmp_path, b"f 1 2 3\n" + SQUARE)) == 1
    assert refusal(tmp_path, b"f 1 2 -1\n" + SQUARE).code == "index"


def test_very_many_corners_and_comments_are_no_trouble(tmp_path: Path) -> None:
    n = 3000
    turn = np.linspace(0, 2 * np.pi, n, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1).tolist()
    data = b"#" * 100_000 + b"\n"
    for z in (0, 1):
        data += b"".join(b"v %r %r %d\n" % (x, y, z) for x, y in circle)
    data += b"f " + b" ".join(b"%d" % k for k in range(n, 0, -1)) + b"\n"
    data += b"f " + b" ".join(b"%d" % (k + n) for k in range(1, n + 1)) + b"\n"
    data += b"".join(b"f %d %d %d %d\n" % (k + 1, (k + 1) % n + 1, (k + 1) % n + n + 1, k + n + 1) for k in range(n))
    geometry = mesh.measure_file(written(tmp_path, data))
    assert geometry.volume_mm3 == pytest.approx(np.pi, rel=1e-5)
    assert geometry.triangles == 2 * (n - 2) + 2 * n


def prism(outline: npt.NDArray[np.float64]) -> bytes:
    """A prism of height 1 over a counter-clockwise outline, its ends one face each."""
    n = len(outline)
    text = "".join(f"v {x!r} {y!r} {z}\n" for z in (0, 1) for x, y in outline.tolist())
    text += "f " + " ".join(str(k) for k in range(n, 0, -1)) + "\nf " + " ".join(str(k + n) for k in range(1, n + 1))
    for k in range(n):
        following = (k + 1) % n
        text += f"\nf {k + 1} {following + 1} {following + n + 1} {k + n + 1}"
    return text.encode() + b"\n"


def shoelace(outline: npt.NDArray[np.float64]) -> float:
    x, y = outline.T
    return 0.5 * float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.2, 5), min_size=4, max_size=40), st.integers(0, 40))
def test_concave_faces_have_their_own_area(tmp_path_factory, radii: list[float], first: int) -> None:  # type: ignore[no-untyped-def]
    turn = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    outline = np.roll(np.stack([np.cos(turn), np.sin(turn)], axis=1) * np.array(radii)[:, None], first, axis=0)
    path = tmp_path_factory.mktemp("obj") / "prism.obj"
    path.write_bytes(prism(outline))
    geometry = mesh.measure_file(path)
    around = float(np.linalg.norm(outline - np.roll(outline, -1, axis=0), axis=1).sum())
    assert geometry.volume_mm3 == pytest.approx(shoelace(outline), rel=1e-9)
    assert geometry.area_mm2 == pytest.approx(2 * shoelace(outline) + around, rel=1e-9)
    assert geometry.notes == ()


def test_a_comb_that_no_fan_divides(tmp_path: Path) -> None:
    """Deep teeth, from whichever corner one looks, and a slit that leads to a hole."""
    teeth = [[x + dx, y] for x in range(8, 0, -1) for dx, y in ((0.0, 5.0), (-0.4, 1.0))]
    outline = np.array([[0, 0], [9, 0], *teeth, [0, 5]], dtype=float)
    for first in range(0, len(outline), 3):
        geometry = mesh.measure_file(written(tmp_path, prism(np.roll(outline, first, axis=0))))
        around = float(np.linalg.norm(outline - np.roll(outline, -1, axis=0), axis=1).sum())
        assert geometry.area_mm2 == pytest.approx(2 * shoelace(outline) + around)
    ring = np.array([[0, 0], [9, 0], [9, 9], [0, 9], [0, 0], [3, 3], [3, 6], [6, 6], [6, 3], [3, 3]], dtype=float)
    path = written(tmp_path, prism(ring))
    assert obj.read(path).notes == ()
    assert mesh.survey(obj.read(path))[:2] == pytest.approx((72, 2 * 72 + 36 + 12 + 2 * np.hypot(3, 3)))


def test_an_outline_that_crosses_itself_is_noted(tmp_path: Path) -> None:
    bow = b"v 0 0 0\nv 1 2 0\nv 1 0 0\nv 0 1 0\nf 1 2 3 4\n"
    assert "could not be divided" in obj.read(written(tmp_path, bow)).notes[0]


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (b"f 1 2 5\n", "index", "Line 5"),
        (b"f 1 2 0\n", "index", "Line 5"),
        (b"f 1 2 -5\n", "index", "Line 5"),
        (b"f 1 2 99999999999999999999\n", "index", "Line 5"),
        (b"f 1 2 -99999999999999999999\n", "index", "Line 5"),
        (b"f 1 2\n", "obj_syntax", "Line 5"),
        (b"f 1 2 3.0\n", "obj_syntax", "Line 5"),
        (b"f 1 2 3/4/5/6\n", "obj_syntax", "Line 5"),
        (b"f 1 2 three\n", "obj_syntax", "Line 5"),
        (b"f 1 2 3\nv 1 2\nf 1 2 4\n", "obj_syntax", "Line 6"),
        (b"v 1 2 x\nf 1 2 3\n", "obj_syntax", "Line 5"),
        (b"v 1 2 3x\nf 1 2 3\n", "obj_syntax", "Line 5"),
        (b"v 1 nan 3\nf 1 2 3\n", "nonfinite", "Line 5"),
        (b"v 1 -inf 3\nf 1 2 3\n", "nonfinite", "Line 5"),
        (b"v 1 1e400 3\nf 1 2 3\n", "nonfinite", "Line 5"),
        (b"f 1 2 3\nring of gold\n", "obj_syntax", "Line 6"),
        (b"f 1 2 3\nvertex 1 2 3\n", "obj_syntax", "Line 6"),
        (b"f 1 2 3\n\0\0\0\0", "obj_syntax", "Line 6"),
        (b"f 1 2 3\nf 1 2", "truncated", "line 6"),
        (b"f 1 2 3\nf 1 2 -", "truncated", "line 6"),
        (b"f 1 2 3\nv 0 1", "truncated", "line 6"),
        (b"f 1 2 3\nv 0 1 2e", "truncated", "line 6"),
        (b"", "zero_triangles", "no triangles"),
        (b"l 1 2 3\n", "zero_triangles", "no triangles"),
        (b"cstype bezier\ndeg 3\ncurv 0 1 1 2 3 4\nend\n", "free_form", "cstype"),
        (b"f 1 2 3\nsurf 0 1 0 1 1 2 3 4\n", "free_form", "surf"),
        (b"f 1 2 3\ncall other.obj\n", "external", "call"),
    ],
)
def test_what_is_wrong_is_refused_by_line(tmp_path: Path, text: bytes, code: str, words: str) -> None:
    failure = refusal(tmp_path, SQUARE + text)
    assert failure.code == code
    assert words in failure.detail


def test_cutting_a_file_anywhere_never_gives_another_volume(tmp_path: Path) -> None:
    for length in range(len(CUBE) - 1):
        assert refusal(tmp_path, CUBE[:length]).code in {
            *("empty", "truncated", "not_a_model", "zero_triangles", "index", "not_closed", "obj_syntax"),
        }


def test_spoiling_any_byte_never_does_worse_than_refuse(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    for _ in range(400):
        data = bytearray(CUBE)
        data[random.integers(len(data))] = random.integers(256)
        try:
            geometry = mesh.measure_file(written(tmp_path, bytes(data)))
        except ModelUnreadable:
            continue
        assert geometry.closed


@pytest.mark.parametrize(
    ("first", "is_obj"),
    [
        (b"mtllib ring.mtl\n", True),
        (b"# made by hand\r\n\r\no ring\r\n", True),
        (b"v\t0 0 0\n", True),
        (b"vertex 0 0 0\n", False),
        (b"Dear jeweller\n", False),
        (b"call me\n", False),
        (b"v 1\0 0 0\n", False),
        (b"# nothing but a comment", False),
    ],
)
def test_it_is_recognised_by_its_first_line(first: bytes, is_obj: bool) -> None:
    assert obj.recognised(first) == is_obj
