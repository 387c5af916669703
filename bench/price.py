"""`lostwax bench price`: CPU and memory of a price, warm, on one core.

CPU is this process's own, best of several rounds; the sandbox row is wall time, through its pipe and fork. When
trimesh can be had it is measured on the same files, alternating, and gives the ratios; it is installed beside the
project, under .lostwax/, at the first run.
"""

import asyncio
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from lostwax import samples
from lostwax.contracts.orders import ModelRef, Specification
from lostwax.contracts.pricing import Tariff
from lostwax.local.places import HOME
from lostwax.pricing import domain, mesh, stl
from lostwax.pricing.sandbox import Sandbox

_PEER, _PEERS = "trimesh==4.6.0", HOME / "peers"

Metrics = dict[str, dict[str, Any]]

_PEAK = """
import re, sys
from pathlib import Path
from lostwax.pricing import mesh

def kilobytes(field):
    return int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

mesh.warm()
before = kilobytes("VmRSS")
mesh.measure_file(sys.argv[1])
print(kilobytes("VmHWM") - before)
"""


def run(quick: bool) -> Metrics:
    """Prints a table; returns {metric: {value, unit, ceiling, ratio}}. Writes up to 320 MB of models to a temporary
    folder (quick: 70 MB) and removes them."""
    _install_peer()
    mesh.warm()
    tariff = msgspec.json.decode(files("lostwax.orders").joinpath("tariffs/2026-11.json").read_bytes(), type=Tariff)
    specification = Specification(ModelRef("0" * 64, 1, "ring.stl"), "gold-14k", "polished")
    metrics: Metrics = {}
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"84k": (420, 49), "100k": (500, 49), "1300k": (2030, 159)}
        if not quick:
            sizes["5000k"] = (5000, 249)
        paths = {}
        for name, (around, across) in sizes.items():
            paths[name] = Path(folder) / f"{name}.stl"
            samples.write_binary(samples.band(around=around, across=across).triangles, paths[name])
        rounds = 5 if quick else 11
        for name in ("84k", "1300k", "5000k")[: 2 if quick else 3]:
            ours, theirs = _alternate(
                rounds, partial(_survey, paths[name]), _trimesh(paths[name]), peer_rounds=1 if quick else 3
            )
            metrics[f"parse_{name}"] = _metric(ours, "ms", theirs)
        for name in ("100k", "1300k"):
            measured, _ = _alternate(rounds, partial(_price, paths[name], specification, tariff), None)
            metrics[f"cpu_ms_{name}"] = _metric(measured, "ms", None)
        geometry = mesh.measure_file(paths["100k"])
        requote, _ = _alternate(rounds * 20, lambda: domain.price(geometry, specification, tariff), None)
        metrics["requote_ms"] = _metric(requote, "ms", None)
        metrics["memory"] = _metric(_memory(paths["1300k"]), "x file", None)
        made = samples.generate(Path(folder) / "samples", 40, seed=1)
        worst = max(abs(mesh.measure_file(s.path).volume_mm3 / s.volume_mm3 - 1) for s in made)
        metrics["accuracy"] = _metric(worst, "relative", None)
        metrics["sandbox_ms"] = _metric(asyncio.run(_sandboxed(made[0].path, rounds * 4)), "ms", None)
    for name, metric in metrics.items():
        ratio = "" if metric["ratio"] is None else f"  {metric['ratio']:8.1f} x as fast as trimesh"
        print(f"{name:>14}  {metric['value']:12.4g} {metric['unit']:<9}{ratio}")
    return metrics


def _survey(path: Path) -> object:
    return mesh.survey(stl.read(path))


def _price(path: Path, specification: Specification, tariff: Tariff) -> object:
    return domain.price(mesh.measure_file(path), specification, tariff)


def _metric(value: float, unit: str, ceiling: float | None) -> dict[str, Any]:
    return {"value": value, "unit": unit, "ceiling": ceiling, "ratio": ceiling / value if ceiling else None}


def _alternate(
    rounds: int, ours: Callable[[], object], theirs: Callable[[], object] | None, peer_rounds: int = 3
) -> tuple[float, float | None]:
    """CPU ms of each, the best of so many rounds; the slow peer gets fewer."""
    own, other = [], []
    for k in range(rounds):
        own.append(_cpu_ms(ours))
        if theirs is not None and k < peer_rounds:
            other.append(_cpu_ms(theirs))
    return min(own), min(other) if other else None


def _cpu_ms(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return (time.process_time() - started) * 1e3


def _install_peer() -> None:
    """What it needs for this, numpy, is here already. Without a registry there is no peer; the figures stand alone."""
    if not (_PEERS / "trimesh").exists():
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "-q"]
        subprocess.run([*pip, "install", "--no-deps", "--target", str(_PEERS), _PEER], check=False)
    sys.path.append(str(_PEERS))


def _trimesh(path: Path) -> Callable[[], object] | None:
    if importlib.util.find_spec("trimesh") is None:
        return None
    trimesh: Any = importlib.import_module("trimesh")

    def peer() -> object:
        loaded = trimesh.load_mesh(path)
        return loaded.volume, loaded.area, loaded.is_watertight

    return peer


def _memory(path: Path) -> float:
    """Peak memory over that of a warm interpreter, the mapped file included, as a multiple of the file, in a process
    of its own. Linux only; 0 elsewhere."""
    if sys.platform != "linux":
        return 0.0
    printed = subprocess.run(
        [sys.executable, "-c", _PEAK, str(path)], check=True, capture_output=True, text=True
    ).stdout
    return int(printed) * 1024 / path.stat().st_size


async def _sandboxed(path: Path, rounds: int) -> float:
    """Median wall time, ms, of one small model through the sandbox."""
    sandbox = Sandbox(jobs=1)
    await sandbox.start()
    try:
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            await sandbox.measure(path)
            times.append((time.perf_counter() - started) * 1e3)
    finally:
        await sandbox.close()
    return statistics.median(times)


if __name__ == "__main__":
    print(run(quick="--quick" in sys.argv))
