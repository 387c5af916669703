"""SQL of price jobs: what waits for a price, and which of it is out. Every function works in its caller's
transaction."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec

from lostwax.contracts.orders import Specification
from lostwax.kit.postgres import Connection

_specification = msgspec.json.Decoder(Specification)
_NEWEST_WEIGHT = 0.1
_LONGEST_QUEUE_COUNTED = 10_000


class SubjectKind(StrEnum):
    """What a price is for."""

    ORDER = "order"
    QUOTE = "quote"


class Lane(StrEnum):
    QUICK = "quick"
    HEAVY = "heavy"


class Terms(msgspec.Struct, frozen=True):
    """Of one lane: how many jobs may be out on a shard at once, and after how many seconds the first publication of a
    job counts as lost (each further one is given twice as long as the one before)."""

    window: int
    patience_s: float


class PriceJob(msgspec.Struct, frozen=True):
    """A price that is wanted. `tariff` is its version; `attempts` counts publications."""

    job_id: UUID
    kind: SubjectKind
    subject_id: UUID
    account: UUID
    lane: Lane
    specification: Specification
    tariff: str
    traceparent: str | None = None
    attempts: int = 0


class Place(msgspec.Struct, frozen=True):
    """Where a job stands. `place` 0: being priced; 1: next. `expected_at` None: the lane has answered nothing yet."""

    job_id: UUID
    lane: Lane
    state: str
    place: int
    attempts: int
    enqueued_at: datetime
    expected_at: datetime | None


async def insert(connection: Connection, jobs: Sequence[PriceJob]) -> None:
    """Let jobs wait, in the order given; one that is there already is left as it is."""
    if not jobs:
        return
    await connection.execute(
        """
        INSERT INTO price_jobs (job_id, subject_kind, subject_id, account, lane, specification, tariff, traceparent)
        SELECT job_id, subject_kind, subject_id, account, lane, specification, tariff, traceparent
        FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::text[], $6::jsonb[], $7::text[], $8::text[])
             WITH ORDINALITY
             AS n(job_id, subject_kind, subject_id, account, lane, specification, tariff, traceparent, position)
        ORDER BY position
        ON CONFLICT (job_id) DO NOTHING
        """,
        [j.job_id for j in jobs],
        [j.kind.value for j in jobs],
        [j.subject_id for j in jobs],
        [j.account for j in jobs],
        [j.lane.value for j in jobs],
        [msgspec.json.encode(j.specification).decode() for j in jobs],
        [j.tariff for j in jobs],
        [j.traceparent for j in jobs],
    )


async def remove(connection: Connection, job_ids: Iterable[UUID]) -> None:
    """Forget superseded jobs."""
    if ids := sorted(set(job_ids)):
        await connection.execute("DELETE FROM price_jobs WHERE job_id = ANY($1)", ids)


async def answer(connection: Connection, job_ids: Iterable[UUID]) -> None:
    """Forget answered jobs and let their times into their lanes' means. To be the last statement that locks anything.

    A mean that another transaction is just changing goes without these times: nobody waits for statistics.
    """
    if not (ids := sorted(set(job_ids))):
        return
    await connection.execute(
        """
        WITH done AS (
            DELETE FROM price_jobs WHERE job_id = ANY($1) RETURNING lane, published_at
        ), lately AS (
            SELECT lane, count(*)::int AS jobs, avg(extract(epoch FROM clock_timestamp() - published_at))::float8 AS s
            FROM done WHERE published_at IS NOT NULL GROUP BY lane
        ), free AS MATERIALIZED (
            SELECT lane FROM price_lanes WHERE lane IN (SELECT lane FROM lately) FOR UPDATE SKIP LOCKED
        )
        UPDATE price_lanes p
        SET mean_s = coalesce(p.mean_s + (1 - power(1 - $2::float8, l.jobs)) * (l.s - p.mean_s), l.s)
        FROM lately l JOIN free USING (lane) WHERE p.lane = l.lane
        """,
        ids,
        _NEWEST_WEIGHT,
    )


async def out(connection: Connection) -> tuple[dict[Lane, int], float | None]:
    """How many jobs of each lane are out, and in how many seconds (0: now) the first of them counts as lost."""
    rows = await connection.fetch(
        """
        SELECT lane, count(*)::int AS jobs, extract(epoch FROM min(due_at) - clock_timestamp())::float8 AS due_in_s
        FROM price_jobs WHERE state = 'published' GROUP BY lane
        """
    )
    counts = dict.fromkeys(Lane, 0) | {Lane(r["lane"]): r["jobs"] for r in rows}
    return counts, max(0.0, min(r["due_in_s"] for r in rows)) if rows else None


async def anyone_waits(connection: Connection) -> set[Lane]:
    """Lanes in which a job waits."""
    rows = await connection.fetch(
        """
        SELECT lane FROM unnest($1::text[]) AS lane
        WHERE EXISTS (SELECT FROM price_jobs j WHERE j.lane = lane.lane AND j.state = 'waiting')
        """,
        [lane.value for lane in Lane],
    )
    return {Lane(r["lane"]) for r in rows}


async def publish_next(
    connection: Connection, lane: Lane, places: int, window: int, patience_s: float
) -> list[PriceJob]:
    """Mark the jobs that go next as published, at most `places`, and return them in their order.

    One place after the other goes to the account that has the fewest jobs out, to the older job where that leaves a
    choice; within an account the oldest goes first. Accounts are found by skipping through the index. Of n accounts
    that wait, one can get a k-th job only when the others have k - 1 each, so that of most only a job or two is looked
    at, however many wait. Jobs that a transaction is just taking back are passed over.
    """
    rows = await connection.fetch(
        """
        WITH RECURSIVE accounts AS (
            (SELECT account FROM price_jobs WHERE lane = $1 AND state = 'waiting' ORDER BY account LIMIT 1)
            UNION ALL
            SELECT (SELECT j.account FROM price_jobs j
                    WHERE j.lane = $1 AND j.state = 'waiting' AND j.account > a.account ORDER BY j.account LIMIT 1)
            FROM accounts a WHERE a.account IS NOT NULL
        ), out AS (
            SELECT account, count(*) AS jobs FROM price_jobs
            WHERE lane = $1 AND state = 'published' GROUP BY account
        ), turns AS (
            SELECT j.job_id, j.sequence, coalesce(o.jobs, 0) + row_number() OVER (PARTITION BY a.account
                                                                                ORDER BY j.sequence) AS turn
            FROM accounts a
            LEFT JOIN out o USING (account)
            CROSS JOIN LATERAL (
                SELECT job_id, sequence FROM price_jobs
                WHERE lane = $1 AND state = 'waiting' AND account = a.account
                ORDER BY sequence
                LIMIT least($2, 2 + $3 / greatest(1, (SELECT count(*) - 2 FROM accounts)))
            ) j
            WHERE a.account IS NOT NULL
        ), next AS (
            SELECT job_id, turn FROM turns ORDER BY turn, sequence LIMIT $2
        ), taken AS MATERIALIZED (
            SELECT j.job_id, n.turn FROM price_jobs j JOIN next n USING (job_id)
            WHERE j.state = 'waiting' FOR UPDATE OF j SKIP LOCKED
        )
        UPDATE price_jobs p
        SET state = 'published', attempts = 1, published_at = clock_timestamp(),
            due_at = clock_timestamp() + make_interval(secs => $4)
        FROM taken t WHERE p.job_id = t.job_id
        RETURNING p.*, t.turn
        """,
        lane.value,
        places,
        window,
        patience_s,
    )
    return [_job(r) for r in sorted(rows, key=lambda r: (r["turn"], r["sequence"]))]


async def publish_lost(
    connection: Connection, lane: Lane, topic: str, patience_s: float, most_attempts: int
) -> tuple[list[PriceJob], list[PriceJob]]:
    """Jobs that have been out for too long: those to be published again, counted, and those that have been published
    `most_attempts` times (they are given as much time again, for whoever fails their price). Patience doubles with each
    attempt. A job whose message still waits in the outbox is not lost: it is only given more time."""
    rows = await connection.fetch(
        """
        WITH due AS MATERIALIZED (
            SELECT job_id,
                   EXISTS (SELECT FROM outbox o WHERE o.topic = $2 AND o.key = j.job_id::text) AS unsent
            FROM price_jobs j
            WHERE lane = $1 AND state = 'published' AND due_at <= clock_timestamp()
            ORDER BY sequence FOR UPDATE SKIP LOCKED
        )
        UPDATE price_jobs p
        SET attempts = CASE WHEN d.unsent OR p.attempts >= $4 THEN p.attempts ELSE p.attempts + 1 END,
            published_at = CASE WHEN d.unsent OR p.attempts >= $4 THEN p.published_at ELSE clock_timestamp() END,
            due_at = clock_timestamp() + make_interval(secs => $3 * power(2, CASE WHEN d.unsent THEN 0
                                                                                  ELSE least(p.attempts, $4) END))
        FROM due d, price_jobs old WHERE p.job_id = d.job_id AND old.job_id = p.job_id
        RETURNING p.*, d.unsent, old.attempts AS before
        """,
        lane.value,
        topic,
        patience_s,
        most_attempts,
    )
    lost = [r for r in rows if not r["unsent"]]
    again = [_job(r) for r in lost if r["before"] < most_attempts]
    return again, [_job(r) for r in lost if r["before"] >= most_attempts]


async def place(
    connection: Connection, kind: SubjectKind, subject_id: UUID, terms: Mapping[Lane, Terms]
) -> Place | None:
    """Where the subject's job stands (the oldest of several), or None when no price is due.

    Its place counts the jobs that go first if nobody asks for more: in each account as many as the desk would publish
    before it, at most 10,000. Expected: a window of W jobs that take m seconds each lets W / m go on every second, so
    the job at place n is answered after m x (1 + n / W); one that is out, m after its publication, or just now.
    """
    row = await connection.fetchrow(
        """
        SELECT j.*, l.mean_s, clock_timestamp() AS now,
               j.published_at + make_interval(secs => l.mean_s) AS due_by_mean
        FROM price_jobs j LEFT JOIN price_lanes l USING (lane)
        WHERE j.subject_id = $1 AND j.subject_kind = $2 ORDER BY j.sequence LIMIT 1
        """,
        subject_id,
        kind.value,
    )
    if row is None:
        return None
    lane = Lane(row["lane"])
    position, expected_at = 0, None
    if row["state"] == "waiting":
        position = await _before(connection, lane, row["account"], row["sequence"]) + 1
        if row["mean_s"] is not None:
            expected_at = await connection.fetchval(
                "SELECT clock_timestamp() + make_interval(secs => $1)",
                row["mean_s"] * (1 + position / terms[lane].window),
            )
    elif row["due_by_mean"] is not None:
        expected_at = max(row["due_by_mean"], row["now"])
    return Place(
        job_id=UUID(int=row["job_id"].int),
        lane=lane,
        state=row["state"],
        place=position,
        attempts=row["attempts"],
        enqueued_at=row["enqueued_at"],
        expected_at=expected_at,
    )


async def _before(connection: Connection, lane: Lane, account: UUID, sequence: int) -> int:
    """How many waiting jobs go before the one of this account and sequence."""
    return int(
        await connection.fetchval(
            """
            WITH RECURSIVE accounts AS (
                (SELECT account FROM price_jobs WHERE lane = $1 AND state = 'waiting' ORDER BY account LIMIT 1)
                UNION ALL
                SELECT (SELECT j.account FROM price_jobs j
                        WHERE j.lane = $1 AND j.state = 'waiting' AND j.account > a.account ORDER BY j.account LIMIT 1)
                FROM accounts a WHERE a.account IS NOT NULL
            ), out AS (
                SELECT account, count(*) AS jobs FROM price_jobs
                WHERE lane = $1 AND state = 'published' GROUP BY account
            ), own AS (
                SELECT (SELECT count(*) FROM (SELECT FROM price_jobs WHERE lane = $1 AND state = 'waiting'
                                              AND account = $2 AND sequence < $3 LIMIT $4) AS older) AS older,
                       coalesce((SELECT jobs FROM out WHERE account = $2), 0) AS jobs
            ), others AS (
                -- `full` jobs go before it whatever their age, and the one after them if it is the older one.
                SELECT a.account, greatest(0, own.jobs + own.older - coalesce(o.jobs, 0)) AS fully,
                       own.jobs + own.older + 1 - coalesce(o.jobs, 0) AS turns
                FROM own, accounts a LEFT JOIN out o USING (account)
                WHERE a.account IS NOT NULL AND a.account <> $2
            )
            SELECT own.older + coalesce(sum(j.jobs), 0)
            FROM own LEFT JOIN LATERAL (
                SELECT (SELECT count(*) FROM (
                            SELECT n.sequence, row_number() OVER (ORDER BY n.sequence) AS number
                            FROM (SELECT sequence FROM price_jobs WHERE lane = $1 AND state = 'waiting'
                                  AND account = x.account ORDER BY sequence LIMIT greatest(0, x.turns)) n) m
                        WHERE m.number <= x.fully OR m.sequence < $3) AS jobs
                FROM others x
            ) j ON true
            GROUP BY own.older
            """,
            lane.value,
            account,
            sequence,
            _LONGEST_QUEUE_COUNTED,
        )
    )


async def waiting_for(connection: Connection, subject_ids: Collection[UUID]) -> list[PriceJob]:
    """Jobs of these subjects, waiting or out."""
    rows = await connection.fetch(
        "SELECT * FROM price_jobs WHERE subject_id = ANY($1) ORDER BY sequence", list(subject_ids)
    )
    return [_job(r) for r in rows]


def _job(row: Any) -> PriceJob:
    return PriceJob(
        job_id=UUID(int=row["job_id"].int),
        kind=SubjectKind(row["subject_kind"]),
        subject_id=UUID(int=row["subject_id"].int),
        account=UUID(int=row["account"].int),
        lane=Lane(row["lane"]),
        specification=_specification.decode(row["specification"]),
        tariff=row["tariff"],
        traceparent=row["traceparent"],
        attempts=row["attempts"],
    )
