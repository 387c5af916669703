"""Credentials of a stack: kept once made, and completed when a stack is from before a service came."""

import json
from pathlib import Path

from lostwax.local import credentials
from lostwax.local.credentials import CONSOLE, ROLES, S3_USERS, SERVICES


def test_what_an_older_stack_lacks_is_added_and_the_rest_is_kept(tmp_path: Path) -> None:
    made = credentials.load(tmp_path)
    assert credentials.load(tmp_path) == made
    path = tmp_path / "secrets.json"
    older = json.loads(path.read_bytes())
    del older["passwords"]["crm"], older["service_keys"]["crm"]
    path.write_text(json.dumps(older))
    completed = credentials.load(tmp_path)
    assert completed.passwords.keys() == set(ROLES)
    assert completed.service_keys.keys() == {*SERVICES, CONSOLE}
    assert completed.s3.keys() == set(S3_USERS)
    assert completed.redis == made.redis
    assert {r: p for r, p in completed.passwords.items() if r != "crm"} == older["passwords"]
    assert {s: k for s, k in completed.service_keys.items() if s != "crm"} == older["service_keys"]
    assert credentials.load(tmp_path) == completed
    assert path.stat().st_mode & 0o077 == 0
