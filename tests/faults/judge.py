"""Judges one run from outside: the emulator's call log and jobs, and what the handlers noted.

Plain data in, sentences out. It must not know the engine, whose mistakes it would share.

    I1  no job has two accepted results
    I2  an acknowledged job has a result in time, or stands as a dead letter
    I3  a job of a known client is acknowledged in time
    I4  a `fail` handler starts once, a `rerun` one 3 times, Retries apart; no two runs overlap
    I5  a handler starts only after this fleet's acknowledgement was accepted
    I6  no result is accepted for a job that this fleet did not acknowledge
    I7  a handler that succeeded, in a process that lived on, has its success accepted
    I8  at most one put is refused for each fault; none follows an accepted one that was heard of
    I9  the jobs of a continuation run one after the other, in its order; no success is put before
        the job's output artifacts are there
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import combinations, groupby
from math import inf
from operator import itemgetter
from pathlib import Path
from typing import Any

Entry = Mapping[str, Any]
Span = tuple[float, float]

FINAL = {"Succeeded", "Failed", "TimedOut"}
NO_JOB: Entry = {"actionTypeId": {"provider": None}, "status": "", "result": None, "history": []}
# The caller may not know that its call was handled: the log does not say for how long it listened.
UNHEARD = {"drop-after", "truncate", "delay", "hold"}
MOST_STARTS = 3
LIVES_ON = 1.0  # seconds from a handler's end in which its process must not die to owe the result
SETTLES = 2.0  # seconds from an accepted put in which a fault may lose its answer, or our note


@dataclass(frozen=True)
class Violation:
    invariant: str
    job_id: str
    text: str


@dataclass(frozen=True)
class History:
    """What a run left: `read_effects`, and the answers of GET /_admin/jobs, /_admin/log and
    /_admin/s3. While the fleet goes on, read them in this order: then each shows the causes of the
    one before.
    """

    effects: Sequence[Entry]
    jobs: Sequence[Entry]
    log: Sequence[Entry]
    s3: Sequence[Entry] = ()


@dataclass(frozen=True)
class Terms:
    """How the fleet is set up, what befell it, and when it was looked at.

    Epoch seconds, and durations in seconds. What is not told has not happened: without `outside`,
    for instance, a second put after a kill is a violation.
    """

    fail: Collection[str]  # providers
    rerun: Collection[str]
    ack_window: float
    poll_interval: float  # the longest rest between two polls
    lease: float
    read_at: float  # right before the history was read: what is due later is not missing yet
    # Faults that the emulator's log does not show, such as kills, freezes and cuts: from when to
    # when each. One that strikes many processes is one. The log's own faults need no telling.
    outside: Sequence[Span] = ()
    deaths: Mapping[int, float] = field(default_factory=dict)  # pid: right before it was killed
    frozen: Mapping[int, Sequence[Span]] = field(default_factory=dict)  # pid: from when to when
    cut_off: Mapping[int, Sequence[Span]] = field(default_factory=dict)  # from the ledger
    retries: Mapping[str, Sequence[float]] = field(default_factory=dict)  # job: pauses asked for
    time_limits: Mapping[str, float] = field(default_factory=dict)  # by provider
    unknown_clients: Collection[str] = ()  # here and below: job ids
    foreign: Collection[str] = ()  # acknowledged by another worker, which puts nothing
    dead_letters: Collection[str] = ()
    unheard: Collection[str] = ()  # a put's answer was lost on the network
    longest: float = 0.0  # that a handler may run which notes no end
    free_since: float = 0.0  # before that, all slots may have been in use
    result_within: float = 120.0
    ack_within: float = 60.0  # beside the two rounds of offers that may be lost


@dataclass(frozen=True)
class Run:
    """One start of a handler, in a process that died then, or is not known to have died."""

    pid: int
    started: float
    ended: float | None  # as it noted itself: only one that succeeds does
    died: float | None
    over: float | None  # until then it went on, for all that is known; None: nothing is

    def overlaps(self, other: float, terms: Terms) -> bool:
        """Whether it surely went on when another started, and had no right to.

        A process that stood still for longer than its lease cannot know that its job was given
        away: it is to stop within one heartbeat after waking.
        """
        if self.over is None or self.over <= other:
            return False
        beat = terms.lease / 4 + LIVES_ON
        slept = self.stalls(terms.frozen, terms.lease)
        return not any(since <= other and self.over <= until + beat for since, until in slept)

    def owes_its_result(self, limit: float, terms: Terms) -> bool:
        if self.ended is None or self.ended - self.started >= limit:
            return False
        if self.died is not None and self.died - self.ended <= LIVES_ON:
            return False
        return not any(self.stalls(spans, terms.lease) for spans in (terms.frozen, terms.cut_off))

    def stalls(self, known: Mapping[int, Sequence[Span]], lease: float) -> list[Span]:
        """Those of its process that outlasted the lease, and began before the run was settled."""
        last = inf if self.over is None else self.over + LIVES_ON
        long = [(since, until) for since, until in known.get(self.pid, ()) if until - since > lease]
        return [(since, until) for since, until in long if since <= last and until >= self.started]

    def __str__(self) -> str:
        over = "" if self.over is None else f" and was over {clock(self.over)}"
        return f"a run that started {clock(self.started)}{over} in process {self.pid}"


@dataclass(frozen=True)
class Life:
    """All that is known of one job."""

    id: str
    provider: str | None  # None: AWS has no such job
    queued: float | None
    closed: float | None  # by AWS, without a result
    ended: float | None  # the same, or by a result
    foreign: bool  # acknowledged by another worker
    acknowledged: float | None  # by this fleet
    puts: Sequence[Entry]
    accepted: Sequence[Entry]  # of the puts
    faults: int  # of the emulator's, in calls about this job
    runs: Sequence[Run]
    outputs: Collection[str] = ()  # keys of its output artifacts
    s3: Sequence[Entry] = ()  # requests with its session keys

    def needless(self, terms: Terms) -> list[Entry]:
        """Puts after the accepted one. A second accepted one is I1's."""
        if not self.accepted or self.id in terms.unheard:
            return []
        first = self.accepted[0]
        hidden = any(since - SETTLES <= first["at"] <= until for since, until in terms.outside)
        if hidden or first["fault"] in UNHEARD:
            return []
        return [put for put in self.puts[self.puts.index(first) + 1 :] if not put["applied"]]


@dataclass(frozen=True)
class Case:
    terms: Terms
    lives: Mapping[str, Life]
    before: Mapping[str, str]  # a continuation's job: the one that it continues
    calm: float  # when the last fault was over


def judge(history: History, terms: Terms) -> list[Violation]:
    """All violations, by invariant and then in the order of the jobs.

    ValueError: the evidence has a gap, so that no verdict would be worth anything.
    """
    case = open_case(history, terms)
    return [
        Violation(name, life.id, text)
        for name, rule in RULES
        for life in case.lives.values()
        for text in rule(life, case)
    ]


def unsettled(history: History, terms: Terms) -> list[str]:
    """Jobs of which more is to come. Before there are none, a run may be judged too early."""
    lives = open_case(history, terms).lives.values()
    open_ended = [life.id for life in lives if life.ended is None and not life.foreign]
    return [one for one in open_ended if one not in {*terms.unknown_clients, *terms.dead_letters}]


def effective(log: Sequence[Entry]) -> Counter[str]:
    """How many faults of each kind took effect. Of those asked for, some may never have."""
    return Counter(call["fault"] for call in log if call["fault"] is not None)


def read_effects(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def open_case(history: History, terms: Terms) -> Case:
    calls, effects = by(history.log, "jobId"), by(history.effects, "job")
    s3 = by(history.s3, "jobId")
    jobs = {job["id"]: job for job in history.jobs}
    lives = {
        one: replace(
            to_life(one, jobs.get(one, NO_JOB), calls[one], effects[one], terms),
            outputs=output_keys(jobs.get(one, NO_JOB)),
            s3=s3[one],
        )
        for one in dict.fromkeys([*jobs, *effects])
    }
    struck = [call["at"] for call in (*history.log, *history.s3) if call["fault"] is not None]
    calm = max([*struck, *(until for _, until in terms.outside)], default=0.0)
    return Case(terms, lives, {job["next"]: job["id"] for job in history.jobs if job["next"]}, calm)


def by(entries: Sequence[Entry], name: str) -> defaultdict[Any, list[Entry]]:
    found = defaultdict(list)
    for entry in entries:
        found[entry[name]].append(entry)
    return found


def output_keys(job: Entry) -> list[str]:
    places = [artifact["location"]["s3Location"] for artifact in job.get("outputArtifacts", ())]
    return [place["objectKey"] for place in places]


def to_life(job_id: str, job: Entry, calls: list[Entry], noted: list[Entry], terms: Terms) -> Life:
    kinds = effective(calls)
    foreign = job_id in terms.foreign or "foreign-acknowledge" in kinds
    applied = [call for call in calls if call["applied"]]
    acks = [call["at"] for call in applied if call["operation"].startswith("Ack")]
    accepted = [call for call in applied if call["operation"].startswith("Put")]
    provider, steps = job["actionTypeId"]["provider"], job["history"]
    if job["result"] is not None and not accepted:
        raise ValueError(f"the log is not whole: it does not show the result that {job_id} has")
    if provider not in {None, *terms.fail, *terms.rerun}:
        raise ValueError(f"is {provider} of kind fail or rerun?")
    results, asks = [put["at"] for put in accepted], terms.retries.get(job_id)
    starts = sorted((line for line in noted if line["event"] == "start"), key=itemgetter("at"))
    closed = steps[-1]["at"] if job["status"] in FINAL and job["result"] is None else None
    return Life(
        id=job_id,
        provider=provider,
        queued=next((step["at"] for step in steps if step["status"] == "Queued"), None),
        closed=closed,
        ended=accepted[0]["at"] if accepted else closed,
        foreign=foreign,
        acknowledged=acks[0] if acks and not foreign else None,
        puts=[call for call in calls if call["operation"].startswith("Put")],
        accepted=accepted,
        faults=kinds.total(),
        runs=[to_run(start, noted, results, bool(asks), terms) for start in starts],
    )


def to_run(start: Entry, noted: list[Entry], results: list[float], asks: bool, terms: Terms) -> Run:
    """A killed process ends its run, unless the handler may have ended before without a note."""
    since, who = start["at"], (start["pid"], start["attempt"])
    same = [line for line in noted if (line["pid"], line["attempt"]) == who and line["at"] >= since]
    ended = min((line["at"] for line in same if line["event"] == "end"), default=None)
    death = terms.deaths.get(start["pid"], -inf)
    # Told from before the signal: a process may still start something until that comes.
    died = death if death >= since - LIVES_ON else None
    over = None if died is None or asks else min([died, *(at for at in results if at >= since)])
    return Run(start["pid"], since, ended, died, over if ended is None else ended)


def one_result(life: Life, case: Case) -> Iterator[str]:
    if len(life.accepted) > 1:
        first, second = (clock(put["at"]) for put in life.accepted[:2])
        yield f"has a result accepted {first} and another {second}"


def result_in_time(life: Life, case: Case) -> Iterator[str]:
    terms = case.terms
    if life.acknowledged is None or life.id in terms.dead_letters:
        return
    pause = max(terms.retries.get(life.id, ()), default=0.0)
    ends = [run.started + terms.longest if run.over is None else run.over for run in life.runs]
    retries = [run.started + pause for run in life.runs]
    due = max(case.calm, life.acknowledged, *ends, *retries) + terms.result_within
    if (terms.read_at if life.ended is None else life.ended) > due:
        found = f"was acknowledged {clock(life.acknowledged)}, with a result due {clock(due)}"
        yield f"{found}, but ended {clock(life.ended)}"


def acknowledged_in_time(life: Life, case: Case) -> Iterator[str]:
    terms = case.terms
    if life.queued is None or life.foreign or life.id in terms.unknown_clients:
        return
    rounds = 2 * (terms.ack_window + terms.poll_interval)
    due = max(life.queued, case.calm, terms.free_since) + rounds + terms.ack_within
    until = life.closed if life.acknowledged is None else life.acknowledged
    if (terms.read_at if until is None else until) > due:
        found = f"was queued {clock(life.queued)}, its acknowledgement due {clock(due)}"
        yield f"{found}, but acknowledged {clock(life.acknowledged)}"


def few_starts(life: Life, case: Case) -> Iterator[str]:
    asked = len(case.terms.retries.get(life.id, ()))
    most = asked + (MOST_STARTS if life.provider in case.terms.rerun else 1)
    if len(life.runs) > most:
        last = clock(life.runs[-1].started)
        yield f"started {len(life.runs)} times, the last {last}, where {most} is the most"
        return
    for one, other in combinations(life.runs, 2):
        if one.overlaps(other.started, case.terms):
            yield f"started again {clock(other.started)} during {one}"


def start_after_acknowledgement(life: Life, case: Case) -> Iterator[str]:
    for run in life.runs:
        if life.acknowledged is None or run.started < life.acknowledged:
            found = f"started {clock(run.started)}, but this fleet acknowledged it"
            yield f"{found} {clock(life.acknowledged)}"


def own_results_only(life: Life, case: Case) -> Iterator[str]:
    if life.acknowledged is None:
        for put in life.accepted:
            what = "success" if "Success" in put["operation"] else "failure"
            whose = "another worker" if life.foreign else "nobody"
            yield f"had a {what} accepted {clock(put['at'])}, though {whose} acknowledged it"


def success_is_told(life: Life, case: Case) -> Iterator[str]:
    if not life.accepted or "Success" in life.accepted[0]["operation"]:
        return
    limit = case.terms.time_limits.get(life.provider or "", inf)
    for run in life.runs:
        if run.owes_its_result(limit, case.terms):
            at = clock(life.accepted[0]["at"])
            yield f"succeeded in {run}, but had a failure accepted {at}"


def few_puts(life: Life, case: Case) -> Iterator[str]:
    terms = case.terms
    told = sum(life.id in ids for ids in (terms.dead_letters, terms.unheard))
    most = life.faults + len(terms.outside) + told + (life.closed is not None)
    # With or without an error: AWS may ignore them. One without an answer has its own fault.
    refused = [put for put in life.puts if not put["applied"]]
    again = life.needless(terms)
    if again:
        at, first = clock(again[0]["at"]), clock(life.accepted[0]["at"])
        yield f"was put again {at}, though its result was accepted {first} and nothing hid that"
    elif len(refused) > most:
        at = clock(refused[-1]["at"])
        yield f"had {len(refused)} puts refused, the last {at}, with {most} faults to explain them"


def one_after_the_other(life: Life, case: Case) -> Iterator[str]:
    before = case.before.get(life.id)
    if before is None or not life.runs:
        return
    first = life.runs[0].started
    for run in case.lives[before].runs:
        if run.started >= first or run.overlaps(first, case.terms):
            yield f"started {clock(first)}, but {before}, which it continues, had {run}"


def uploaded_before_success(life: Life, case: Case) -> Iterator[str]:
    continued = life.id in case.before.values()  # a later job may have what its outputs need
    if continued or not life.accepted or "Success" not in life.accepted[0]["operation"]:
        return
    at = life.accepted[0]["at"]
    there = {
        call["key"]
        for call in life.s3
        if call["operation"] in UPLOADED and call["status"] == 200 and call["at"] <= at
    }
    for key in life.outputs:
        if key not in there:
            yield f"had a success accepted {clock(at)}, before {key} was there"


UPLOADED = {"PutObject", "CompleteMultipartUpload"}
RULES: Sequence[tuple[str, Callable[[Life, Case], Iterator[str]]]] = [
    ("I1", one_result),
    ("I2", result_in_time),
    ("I3", acknowledged_in_time),
    ("I4", few_starts),
    ("I5", start_after_acknowledgement),
    ("I6", own_results_only),
    ("I7", success_is_told),
    ("I8", few_puts),
    ("I9", one_after_the_other),
    ("I9", uploaded_before_success),
]


def clock(at: float | None) -> str:
    """UTC, as in the workers' logs."""
    return "never" if at is None else f"at {datetime.fromtimestamp(at, UTC):%H:%M:%S.%f}"[:-3]


@dataclass(frozen=True)
class Verdict:
    """One run. `faults` took effect: `effective`, and what the test did outside the emulator."""

    row: str  # of the table
    seed: int
    faults: Mapping[str, int]
    violations: Sequence[Violation]


def table(verdicts: Sequence[Verdict]) -> str:
    """Markdown: a row for each fault, in the order in which they came, and one for all of them."""
    rows = defaultdict(list)
    for verdict in verdicts:
        rows[verdict.row].append(verdict)
    head = "| fault | runs | took effect | violations | seeds |\n|---|---|---|---|---|"
    lines = [summed(name.replace("|", "\\|"), found) for name, found in rows.items()]
    return "\n".join([head, *lines, summed("all", verdicts)]) + "\n"


def summed(name: str, verdicts: Sequence[Verdict]) -> str:
    faults: Counter[str] = Counter()
    broken = defaultdict(list)
    for verdict in verdicts:
        faults.update(verdict.faults)
        for violation in verdict.violations:
            broken[violation.invariant].append(verdict.seed)
    # A fault that never struck proves nothing: it must not look like a fault survived.
    struck = ", ".join(f"{kind} {n}" for kind, n in sorted(faults.items()) if n) or "**nothing**"
    bad = [f"**{one}** {len(seeds)} (seed {spans(seeds)})" for one, seeds in sorted(broken.items())]
    seeds = [verdict.seed for verdict in verdicts]
    return f"| {name} | {len(seeds)} | {struck} | {', '.join(bad) or 0} | {spans(seeds)} |"


def spans(numbers: Sequence[int]) -> str:
    """1, 2, 3, 7 as 1..3, 7."""
    known = enumerate(sorted(set(numbers)))
    runs = [[n for _, n in group] for _, group in groupby(known, lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}..{run[-1]}" if run[1:] else str(run[0]) for run in runs)
