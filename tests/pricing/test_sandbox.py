"""The sandbox: right answers, typed failures, and nothing that a job does reaches the service or the next job."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from lostwax import samples
from lostwax.pricing import mesh
from lostwax.pricing.measure import ModelUnreadable
from lostwax.pricing.sandbox import Limits, Sandbox
from lostwax.samples.indexed import model, package


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    sandbox = Sandbox(jobs=2)
    await sandbox.start()
    yield sandbox
    await sandbox.close()


async def code_of(sandbox: Sandbox, path: Path) -> str:
    with pytest.raises(ModelUnreadable) as caught:
        await sandbox.measure(path)
    return caught.value.code


def fine_ring(folder: Path, triangles: int = 400_000) -> Path:
    path = folder / "fine.stl"
    samples.write_binary(samples.band(around=triangles // 400, across=99).triangles, path)
    return path


async def test_it_measures_as_the_kernel_does(sandbox: Sandbox, tmp_path: Path) -> None:
    made = samples.generate(tmp_path, 6, seed=5)
    measured = await asyncio.gather(*(sandbox.measure(sample.path) for sample in made))
    assert measured == [mesh.measure_file(sample.path) for sample in made]


async def test_broken_files_keep_their_codes_and_the_sandbox_its_process(sandbox: Sandbox, tmp_path: Path) -> None:
    before = sandbox.pid
    for sample in samples.broken(tmp_path):
        if sample.why != "accept":
            assert await code_of(sandbox, sample.path) == sample.why
    assert await code_of(sandbox, tmp_path / "absent.stl") == "not_found"
    assert sandbox.pid == before


async def test_every_broken_file_is_refused_within_little_memory(tmp_path: Path) -> None:
    """A bomb must be seen before it goes off: not one of them may need what a model of its size would."""
    sandbox = Sandbox(limits=Limits(extra_mb=48))
    try:
        for sample in samples.broken(tmp_path):
            if sample.why != "accept" and not sample.name.endswith(".stl"):
                assert await code_of(sandbox, sample.path) == sample.why, sample.name
    finally:
        await sandbox.close()


async def test_a_model_that_inflates_beyond_its_memory_is_too_complex(tmp_path: Path) -> None:
    """Within every limit on sizes, but with millions of vertices: the limit on memory is the last fence."""
    rows = '<vertex x="0" y="0" z="0"/>' * 2_500_000
    noise = os.urandom(450_000).hex()
    text = model(f'<object id="1"><mesh><vertices>{rows}</vertices><!--{noise}--><triangles/></mesh></object>', "")
    path = tmp_path / "wide.3mf"
    path.write_bytes(package(text))
    sandbox = Sandbox(limits=Limits(extra_mb=48))
    try:
        assert await code_of(sandbox, path) == "too_complex"
    finally:
        await sandbox.close()


async def test_a_dead_process_is_started_again_and_the_job_repeated(sandbox: Sandbox, tmp_path: Path) -> None:
    path = fine_ring(tmp_path)
    expected = await sandbox.measure(path)
    first = sandbox.pid
    assert first
    job = asyncio.create_task(sandbox.measure(path))
    await asyncio.sleep(0.02)
    os.kill(first, signal.SIGKILL)
    assert await job == expected
    assert sandbox.pid != first


async def test_the_service_does_not_load_the_kernels() -> None:
    code = "import sys, lostwax.pricing.sandbox; sys.exit('numba' in sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await process.wait() == 0


async def test_too_little_memory_is_too_complex(tmp_path: Path) -> None:
    sandbox = Sandbox(limits=Limits(extra_mb=10, file_times=0))
    try:
        assert await code_of(sandbox, fine_ring(tmp_path)) == "too_complex"
        small = samples.generate(tmp_path, 1, seed=1)[0].path
        assert (await sandbox.measure(small)).closed
    finally:
        await sandbox.close()


async def test_too_little_time_is_too_complex(tmp_path: Path) -> None:
    # A named pipe that nobody writes: opening it waits for ever.
    pipe = tmp_path / "pipe.stl"
    os.mkfifo(pipe)
    sandbox = Sandbox(limits=Limits(wall_s=0.5))
    try:
        started = time.monotonic()
        assert await code_of(sandbox, pipe) == "too_complex"
        assert time.monotonic() - started < 20
    finally:
        await sandbox.close()


async def test_a_crashing_child_is_a_typed_failure(sandbox: Sandbox, tmp_path: Path) -> None:
    """A file that shrinks while it is mapped: SIGBUS, as on a real full or failing disk. Here sent by hand."""
    pipe = tmp_path / "pipe.stl"
    os.mkfifo(pipe)
    before = sandbox.pid
    job = asyncio.create_task(sandbox.measure(pipe))
    children: list[psutil.Process] = []
    while not children:
        await asyncio.sleep(0.01)
        children = psutil.Process(sandbox.pid).children()
    children[0].send_signal(signal.SIGBUS)
    with pytest.raises(ModelUnreadable) as caught:
        await job
    assert caught.value.code == "crashed"
    assert caught.value.mended_by == "operator"
    assert sandbox.pid == before


async def test_a_cancelled_job_ends_its_child_and_frees_its_place(sandbox: Sandbox, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.stl"
    os.mkfifo(pipe)
    jobs = [asyncio.create_task(sandbox.measure(pipe)) for _ in range(2)]
    await asyncio.sleep(0.1)
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)
    sample = samples.generate(tmp_path, 1, seed=2)[0]
    assert (await asyncio.wait_for(sandbox.measure(sample.path), 10)).triangles == sample.triangles
    await asyncio.sleep(0.1)
    assert psutil.Process(sandbox.pid).children() == []


async def test_it_ends_with_its_service(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.stl"
    os.mkfifo(pipe)
    code = (
        "import asyncio, sys\n"
        "from lostwax.pricing.sandbox import Sandbox\n"
        "async def main():\n"
        "    sandbox = Sandbox()\n"
        "    await sandbox.start()\n"
        "    job = asyncio.create_task(sandbox.measure(sys.argv[1]))\n"
        "    await asyncio.sleep(0.3)\n"
        "    print(sandbox.pid, flush=True)\n"
        "    await job\n"
        "asyncio.run(main())\n"
    )
    service = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(pipe), stdout=asyncio.subprocess.PIPE
    )
    assert service.stdout
    warm = psutil.Process(int(await service.stdout.readline()))
    family = [warm, *warm.children()]
    assert len(family) == 2
    service.kill()
    await service.wait()
    _, alive = await asyncio.to_thread(psutil.wait_procs, family, 5)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


async def test_the_sandbox_sees_no_secrets_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSTWAX_TEST_SECRET", "hunter2")
    sandbox = Sandbox()
    await sandbox.start()
    try:
        assert "LOSTWAX_TEST_SECRET" not in psutil.Process(sandbox.pid).environ()
    finally:
        await sandbox.close()
