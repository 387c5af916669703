"""The fences of the architecture hold, and each of them can fail: a seeded violation is seen."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from lostwax.local.places import PROJECT
from lostwax.local.stack import Stack

SERVICES = "services are independent siblings above kit above contracts"
INSIDE = "inside a service: main > api | worker > handlers > store | clients > domain"
PURE = "contracts and domains do no I/O"


def lint_imports(root: Path) -> tuple[int, dict[str, str], str]:
    """Exit code of import-linter on the package under `root/src`, KEPT or BROKEN by contract, and all it said."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--config", str(root / "pyproject.toml")],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root / "src"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout + done.stderr
    verdicts = {
        line.rpartition(" ")[0]: line.rpartition(" ")[2]
        for line in said.splitlines()
        if line.endswith((" KEPT", " BROKEN"))
    }
    return done.returncode, verdicts, said


def a_copy(folder: Path) -> Path:
    """The package's sources and the contracts, somewhere else."""
    shutil.copytree(
        PROJECT / "src/lostwax", folder / "src/lostwax", ignore=shutil.ignore_patterns("__pycache__", "*.so")
    )
    shutil.copy(PROJECT / "pyproject.toml", folder)
    return folder


def seed(root: Path, module: str, line: str) -> None:
    path = root / "src/lostwax" / module
    path.write_text(f"{path.read_text() if path.exists() else ''}\n{line}\n")


def test_all_fences_hold() -> None:
    code, verdicts, said = lint_imports(PROJECT)
    assert code == 0, said
    assert verdicts == {SERVICES: "KEPT", INSIDE: "KEPT", PURE: "KEPT"}


@pytest.mark.parametrize(
    ("fence", "module", "line"),
    [
        (SERVICES, "orders/store.py", "import lostwax.mes.domain"),
        (SERVICES, "mes/api.py", "from lostwax.partner_api import keys_store as other"),
        (SERVICES, "pricing/handlers.py", "from lostwax.orders.domain import RULES"),
        (SERVICES, "crm/handlers.py", "from lostwax.orders.domain import RULES"),
        (SERVICES, "kit/outbox.py", "import lostwax.orders.domain"),
        (SERVICES, "contracts/ids.py", "import lostwax.kit.clock"),
        (SERVICES, "orders/main.py", "import lostwax.local.stack"),
        (SERVICES, "boutique/__init__.py", '"""A new folder that nobody has given its place."""'),
        (INSIDE, "orders/domain.py", "from lostwax.orders import store"),
        (INSIDE, "orders/store.py", "from lostwax.orders import handlers"),
        (INSIDE, "mes/clients.py", "from lostwax.mes import store"),
        (INSIDE, "channel/handlers.py", "from lostwax.channel import api"),
        (INSIDE, "mes/worker.py", "from lostwax.mes import api"),
        (INSIDE, "partner_api/callers.py", "from lostwax.partner_api import main"),
        (SERVICES, "channel/store.py", "import lostwax.partner_api.domain"),
        (PURE, "orders/domain.py", "import asyncpg"),
        (PURE, "mes/domain.py", "from redis import Redis"),
        (PURE, "crm/domain.py", "from lostwax.kit.problems import Problem"),
        (PURE, "pricing/domain.py", "from lostwax.kit import clock"),
        (PURE, "contracts/orders.py", "import httpx"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.endswith(".py") else "",
)
def test_each_fence_can_fail(tmp_path: Path, fence: str, module: str, line: str) -> None:
    root = a_copy(tmp_path)
    (root / "src/lostwax" / module).parent.mkdir(exist_ok=True)
    seed(root, module, line)
    code, verdicts, said = lint_imports(root)
    assert code != 0
    if module.startswith("shop/"):
        assert "lostwax.shop" in said  # a folder without a place is an error of the contract itself
    else:
        assert verdicts.get(fence) == "BROKEN", said


def test_the_copy_itself_is_clean(tmp_path: Path) -> None:
    """Otherwise the seeded violations above would prove nothing."""
    code, _, said = lint_imports(a_copy(tmp_path))
    assert code == 0, said


def test_no_two_advisory_locks_have_one_number() -> None:
    """They are one space for each database: whoever shares a number waits for a stranger."""
    numbers = [
        (number, path.relative_to(PROJECT))
        for path in sorted((PROJECT / "src").rglob("*.py"))
        for number in re.findall(r"^_\w*LOCK = ([\d_]+)$", path.read_text(), re.MULTILINE)
    ]
    assert len(numbers) >= 7
    assert len({number for number, _ in numbers}) == len(numbers), numbers


async def test_no_service_reads_the_database_of_another(stack: Stack) -> None:
    own, other = (stack.env(name)["LOSTWAX_DATABASE_URL"] for name in ("mes", "partner_api"))
    trespassing = own.rpartition("/")[0] + "/" + other.rpartition("/")[2]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(trespassing, timeout=5)
    connection = await asyncpg.connect(own, timeout=5)
    await connection.close()
