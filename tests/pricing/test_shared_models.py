"""Real and hostile STL, OBJ and 3MF files with figures that two other programs computed. Needs ../shared/models."""

import json
from pathlib import Path
from typing import Any

import pytest

from lostwax.pricing import mesh
from lostwax.pricing.measure import ModelUnreadable
from lostwax.pricing.sandbox import Limits, Sandbox

MODELS = Path(__file__).parents[3] / "shared" / "models"
if not (MODELS / "manifest.json").exists():
    pytest.skip("../shared/models is not here", allow_module_level=True)

pytestmark = pytest.mark.shared

READ = (".stl", ".obj", ".3mf")


def listed(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in entries if entry["file"].endswith(READ)]


REAL = listed(json.loads((MODELS / "manifest.json").read_text())["files"])
HOSTILE = listed(json.loads((MODELS / "hostile/manifest.json").read_text()))
OTHERS = sorted(path for path in MODELS.rglob("*.*") if path.suffix in {".glb", ".ply", ".step"})


def by_name(entry: dict[str, Any]) -> str:
    return str(entry["file"])


@pytest.mark.parametrize("entry", [e for e in REAL if e.get("volume")], ids=by_name)
def test_volume_area_and_box_agree_with_the_manifest(entry: dict[str, Any]) -> None:
    geometry = mesh.measure_file(MODELS / entry["file"])
    # The manifest keeps seven digits.
    assert geometry.volume_mm3 == pytest.approx(entry["volume"], rel=1e-6)
    assert geometry.area_mm2 == pytest.approx(entry["area"], rel=1e-6)
    assert geometry.box_mm == pytest.approx(entry["bbox"], rel=1e-6)
    assert geometry.triangles == entry["triangles"]
    noted = " ".join(geometry.notes)
    assert ("cracks along" in noted) == (entry["state"] == "closed_after_tolerance_weld")
    assert ("turned to look outwards" in noted) == (entry["state"] == "flipped")


@pytest.mark.parametrize("entry", [e for e in REAL if e["state"] == "open"], ids=by_name)
def test_open_models_are_refused_with_their_open_edges(entry: dict[str, Any]) -> None:
    with pytest.raises(ModelUnreadable) as caught:
        mesh.measure_file(MODELS / entry["file"])
    assert caught.value.code == "not_closed"
    assert f"at {entry['exact_open_edges']} edges" in caught.value.detail


def test_a_beam_lattice_is_refused_by_name() -> None:
    (entry,) = [e for e in REAL if e["state"] == "reject"]
    with pytest.raises(ModelUnreadable, match="beam lattice") as caught:
        mesh.measure_file(MODELS / entry["file"])
    assert caught.value.code == "unsupported_extension"


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.name)
def test_formats_that_are_not_read_are_refused_by_name(path: Path) -> None:
    with pytest.raises(ModelUnreadable, match=path.suffix[1:].upper()) as caught:
        mesh.measure_file(path)
    assert caught.value.code == "unsupported_format"


@pytest.mark.parametrize("entry", HOSTILE, ids=by_name)
def test_hostile_files_meet_their_expectation(entry: dict[str, Any]) -> None:
    path, expected = MODELS / "hostile" / entry["file"], entry["expect"]
    if expected.startswith("reject:"):
        with pytest.raises(ModelUnreadable) as caught:
            mesh.measure_file(path)
        assert caught.value.code == expected.removeprefix("reject:")
        return
    volume, note = {
        "adv_duplicate_face.stl": (1000, "there twice"),
        "adv_flipped.stl": (1000, "inside out"),
        "adv_mirror_transform.3mf": (1000, None),
        "adv_solid_binary.stl": (1000, None),
        "adv_trailing_garbage.stl": (1000, "33 stray bytes"),
        "adv_two_cubes_overlap.stl": (2000, "2 separate bodies"),
    }[entry["file"]]
    geometry = mesh.measure_file(path)
    assert geometry.volume_mm3 == pytest.approx(volume, rel=1e-6)
    assert note is None or note in " ".join(geometry.notes)


async def test_the_traps_take_next_to_no_memory_in_the_sandbox() -> None:
    sandbox = Sandbox(limits=Limits(extra_mb=48))
    try:
        for entry in HOSTILE:
            if entry["file"].endswith((".3mf", ".obj")) and entry["expect"].startswith("reject:"):
                with pytest.raises(ModelUnreadable) as caught:
                    await sandbox.measure(MODELS / "hostile" / entry["file"])
                assert caught.value.code == entry["expect"].removeprefix("reject:")
    finally:
        await sandbox.close()
