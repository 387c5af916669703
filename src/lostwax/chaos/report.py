"""What a run showed, as a page for people and as JSON."""

import msgspec

from lostwax.chaos.faults import MEANING, Kind
from lostwax.chaos.run import UNFINISHED_AT_LEAST, Result


def as_json(result: Result) -> str:
    """The whole result."""
    return msgspec.json.format(msgspec.json.encode(result)).decode() + "\n"


def as_markdown(result: Result, machine: str, command: str) -> str:
    """The page that `docs/chaos.md` is. `machine` and `command`: where, and by what, this was made."""
    short = result.shortfalls()
    began = min((wound.at for wound in result.wounds), default=result.audit.at)
    done = sorted({wound.fault.kind for wound in result.wounds}, key=list(Kind).index)
    recovered = sorted(wound.recovered_s for wound in result.wounds if wound.recovered_s is not None)
    lines = [
        "# Chaos: what was broken under load, and how long it took to recover",
        "",
        f"Written by `{command}` on {began:%Y-%m-%d %H:%M} UTC, on {machine}. Seed {result.seed}.",
        "",
        f"{result.accepted} orders were accepted in {result.seconds:.0f} s"
        f" ({result.accepted / max(result.seconds, 1):.1f}/s of {result.rate:g}/s wished for, faults included)"
        f" while {len(result.wounds)} faults were made, one after the other. Robots play partners, a seller and"
        " operators beside the servers and services on the same cores.",
        "",
        "**" + ("Audit clean" if result.audit.clean else "AUDIT NOT CLEAN") + "**"
        f": {result.audit.acknowledged} orders acknowledged to clients, {result.audit.orders} in Orders,"
        f" {len(result.audit.findings)} findings ({result.audit.seconds:.0f} s).",
        "",
    ]
    if result.covered:
        lines += [f"Processes: {', '.join(result.covered)}. Each was there to be hurt; the table says which were.", ""]
        busy = sum(wound.unapproved >= UNFINISHED_AT_LEAST for wound in result.wounds)
        lines += [
            f"{busy} of {len(result.wounds)} faults met at least {UNFINISHED_AT_LEAST} orders that were not approved"
            f" yet, all of them at least {min((w.unfinished for w in result.wounds), default=0)} unfinished ones.",
            "",
        ]
    if recovered:
        lines += [
            f"Recovered after {recovered[len(recovered) // 2]:.1f} s in the median, {recovered[-1]:.1f} s at most.",
            "",
        ]
    if looking_on := _looking_on(result):
        lines += [f"Who only looks on was ready again after a kill, at the latest: {looking_on}.", ""]
    if short:
        lines += ["What this run does not show:", "", *(f"- {each}" for each in short), ""]
    if result.left_out:
        lines += ["Left out:", "", *(f"- {each}" for each in result.left_out), ""]
    if result.audit.findings:
        lines += ["Findings:", ""]
        lines += [f"- {f.kind} {f.order_id or ''}: {f.detail}" for f in result.audit.findings[:50]]
        lines += [""]
    lines += [
        "| fault | held s | unfinished | not approved | no price yet | recovered s | accepted | longest 202 s | 503 |"
        " no answer |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for wound in sorted(result.wounds, key=lambda w: (done.index(w.fault.kind), w.fault.target, w.at)):
        back = "not" if wound.recovered_s is None else f"{wound.recovered_s:.1f}"
        felt = wound.felt
        lines.append(
            f"| {wound.fault.name} | {wound.fault.seconds:.0f} | {wound.unfinished} | {wound.unapproved} |"
            f" {wound.unpriced} | {back} |"
            f" {felt.accepted} | {felt.longest_s:.2f} | {felt.not_now} | {felt.unanswered} |"
        )
    for wound in result.wounds:
        if wound.answers:
            said = ", ".join(f"{answer} ({number})" for answer, number in wound.answers.items())
            lines += ["", f"While {wound.fault.target} was full, small writes were answered: {said}."]
    lines += ["", *(f"- **{kind}**: {MEANING[kind]}." for kind in done)]
    lines += [
        "",
        "*Unfinished*: accepted, neither shipped nor cancelled, when the fault began (at least"
        f" {UNFINISHED_AT_LEAST} are asked for), *not approved* and *no price yet* those of them on which work could"
        " not begin. *Recovered*: from the fault's end (for a kill: from the kill) until on"
        " every shard an order that was accepted after it stood approved, and the databases of the operators, the"
        " sellers and the partner API knew it. *Accepted*, *longest 202*, *503* and *no answer* are what partners'"
        " programs felt from the fault's beginning until then; each sent what was not answered, or answered with 503,"
        " again under the same key.",
        "",
    ]
    return "\n".join(lines)


def _looking_on(result: Result) -> str:
    """How long those who stand in no order's way were gone after a kill."""
    back: dict[str, float] = {}
    for wound in result.wounds:
        if wound.aside and wound.fault.kind is Kind.KILL and wound.back_s is not None:
            back[wound.fault.target] = max(wound.back_s, back.get(wound.fault.target, 0.0))
    return ", ".join(f"{name} {seconds:.0f} s" for name, seconds in sorted(back.items()))
