"""SeaweedFS as S3, with an identity of its own for each service that may do no more than its work needs."""

import asyncio
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from lostwax.local import places
from lostwax.local.credentials import Credentials
from lostwax.local.processes import Program
from lostwax.local.setup import write_private

STAGING, MODELS = "staging-partner-api", "models"
STAGING_OF = {"partner_api": STAGING, "shop": "staging-shop", "crm": "staging-crm"}
"""Each channel's own."""

BUCKETS = (*STAGING_OF.values(), MODELS)

PARTS = ("master", "volume", "filer", "admin")
OTHER_PORTS = ("s3-grpc", *(f"s3-{part}" for part in PARTS), *(f"s3-{part}-grpc" for part in PARTS))

READ = ["s3:GetObject"]
LIST = ["s3:ListBucket", "s3:GetBucketLocation"]
DELETE = ["s3:DeleteObject"]
WRITE = [
    "s3:PutObject",
    *DELETE,
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
    "s3:ListBucketMultipartUploads",
]

MAY: dict[str, dict[str, list[str]]] = {
    **{channel: {bucket: [*READ, *LIST, *WRITE]} for channel, bucket in STAGING_OF.items()},
    # takes a staged file over and clears it away, but can put nothing there
    "orders": {
        **{bucket: [*READ, *LIST, *DELETE] for bucket in STAGING_OF.values()},
        MODELS: [*READ, *LIST, *WRITE],
    },
    "pricing": {MODELS: READ},
}
"""What each service may do, by bucket. `admin`, who may do all, is used by set-up only."""


def program(folder: Path, ports: Mapping[str, int], credentials: Credentials) -> Program:
    """The one SeaweedFS of a stack, all its parts in one process. Raises places.Missing when there is no binary."""
    home = folder / "s3"
    sockets = places.socket_folder(folder)
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    parts = [f"-s3.port={ports['s3']}", f"-s3.port.grpc={ports['s3-grpc']}"]
    for part in PARTS:
        parts += [f"-{part}.port={ports[f's3-{part}']}", f"-{part}.port.grpc={ports[f's3-{part}-grpc']}"]
    return Program(
        name="s3",
        kind="server",
        port=ports["s3"],
        url=endpoint,
        command=[
            places.weed(),
            "-logtostderr=true",
            "mini",
            f"-dir={home / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            *parts,
            f"-filer.localSocket={sockets / 'seaweedfs-filer.sock'}",
            f"-s3.localSocket={sockets / 'seaweedfs-s3.sock'}",
            f"-s3.config={home / 'identities.json'}",
            f"-bucket={','.join(BUCKETS)}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
            "-volume.preStopSeconds=0",
            # A master that resumes its raft log is no leader yet when the volume server first calls, which calls again
            # after 5 s only. It has no peers and learns volumes and keys from the volume server all the same.
            "-master.resumeState=false",
        ],
        prepare=partial(_prepare, home, sockets, ports, credentials),
        settle=partial(_settle, endpoint, credentials),
        check=partial(_connect, ports["s3"]),
        # Its admin part takes 5 s to stop when it has just started; what is stored survives SIGKILL.
        stop_limit_s=3,
    )


def identities(credentials: Credentials) -> str:
    """SeaweedFS's file of identities and policies, as JSON."""
    everything = ["Admin", "Read", "Write", "List", "Tagging"]
    people: list[dict[str, object]] = []
    policies = []
    for user, key in credentials.s3.items():
        pair = {"accessKey": key.access_key, "secretKey": key.secret_key}
        rights = {"actions": everything} if user == "admin" else {"policyNames": [user]}
        people.append({"name": user, "credentials": [pair], **rights})
    for user, buckets in MAY.items():
        statements = [
            {
                "Effect": "Allow",
                "Action": actions,
                "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
            }
            for bucket, actions in buckets.items()
        ]
        content = json.dumps({"Version": "2012-10-17", "Statement": statements})
        policies.append({"name": user, "content": content})
    return json.dumps({"identities": people, "policies": policies}, indent=1)


def remove_sockets(ports: Mapping[str, int]) -> None:
    """Remove the sockets that weed makes under /tmp, whatever it is told, and leaves there when it is killed."""
    for part in (*PARTS, "s3"):
        port = ports["s3-grpc" if part == "s3" else f"s3-{part}-grpc"]
        Path(f"/tmp/seaweedfs-{part}-grpc-{port}.sock").unlink(missing_ok=True)


def _prepare(home: Path, sockets: Path, ports: Mapping[str, int], credentials: Credentials) -> None:
    (home / "data").mkdir(parents=True, exist_ok=True)
    sockets.mkdir(mode=0o700, exist_ok=True)
    for left_over in sockets.glob("seaweedfs-*.sock"):
        left_over.unlink()
    remove_sockets(ports)
    write_private(home / "identities.json", identities(credentials))


async def _connect(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()


async def _settle(endpoint: str, credentials: Credentials) -> None:
    """Write one object to each bucket and delete it: after a crash SeaweedFS answers seconds before it can write."""
    import obstore
    from obstore.store import S3Store

    key = credentials.s3["admin"]
    for bucket in BUCKETS:
        store = S3Store(
            bucket,
            endpoint=endpoint,
            region="us-east-1",
            access_key_id=key.access_key,
            secret_access_key=key.secret_key,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True, "timeout": "5s"},
            retry_config={"max_retries": 0},
        )
        await obstore.put_async(store, ".ready", b"ready")
        await obstore.delete_async(store, ".ready")
