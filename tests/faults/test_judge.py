"""The judge finds what is wrong, names nothing else, and leaves lawful histories alone."""

import re
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu import Connection
from redis import Redis

from dispatcher.redis_server import RedisServer
from tests.faults import judge
from tests.faults.judge import History, Terms, Verdict, Violation
from tests.harness import Fleet, eventually, fleet

Told = dict[str, Any]

TERMS = Terms(fail={"Probe"}, rerun={"Rerun"}, ack_window=3, poll_interval=0.24, lease=4, read_at=0)
ACK, SUCCESS, FAILURE = "AcknowledgeJob", "PutJobSuccessResult", "PutJobFailureResult"
STATES = {ACK: "InProgress", SUCCESS: "Succeeded", FAILURE: "Failed"}
NO: Told = {"applied": False, "status": 400, "error": "InvalidJobStateException"}
CALLS: dict[str, tuple[str, Told]] = {
    "acked": (ACK, {}),
    "foreign": (ACK, {**NO, "fault": "foreign-acknowledge"}),
    "put": (SUCCESS, {}),
    "continued": (SUCCESS, {}),
    "unheard": (SUCCESS, {"fault": "drop-after"}),
    "unanswered": (SUCCESS, {"applied": False, "status": None, "fault": "drop-before"}),
    "refused": (SUCCESS, NO),
    "ignored": (SUCCESS, {"applied": False}),
    "failed": (FAILURE, {}),
}


S3: dict[str, Told] = {
    "declares": {},
    "uploads": {"operation": "PutObject", "status": 200},
    "completes": {"operation": "CompleteMultipartUpload", "status": 200},
    "reads": {"operation": "GetObject", "status": 200},
    "part": {"operation": "UploadPart", "status": 200},
    "denied": {"operation": "PutObject", "status": 403},
}


class Story:
    """A history as it is told: each word is what happens a second after the word before.

    `+20` lets 20 seconds pass; `queued`, at no time, is for the provider that was named last;
    `word@2` happens in process 2, else in 1; `word:+` to the job that continues the one told of.
    """

    def __init__(self, text: str = "") -> None:
        self.now = 0.0
        self.provider = "Probe"
        self.jobs: dict[str, dict[str, Any]] = {}
        self.log: list[dict[str, Any]] = []
        self.effects: list[dict[str, Any]] = []
        self.s3: list[dict[str, Any]] = []
        self.runs: defaultdict[str, list[int]] = defaultdict(list)  # pids, by job
        self.told: Told = {"deaths": {}, "outside": [], "retries": {}}
        self.tell(text)

    def tell(self, text: str, job: str = "a", pids: int = 0) -> "Story":
        for word, more, pid in re.findall(r"([+\w.]+):?(\+?)@?(\d*)", text):
            if word[0] == "+":
                self.now += float(word)
            elif word[0].isupper():
                self.provider = word
            else:
                self.happens(word, job + more, int(pid or 1) + pids)
        return self

    def happens(self, word: str, job: str, pid: int) -> None:
        self.now += word not in {"queued", "declares"}
        if word == "queued":
            self.jobs[job] = {"id": job, "actionTypeId": {"provider": self.provider}, "next": None}
            self.jobs[job] |= {"result": None, "history": [{"status": "Created", "at": 0.0}]}
            self.became(job, "Queued")
        elif word == "closed":
            self.became(job, "TimedOut")
        elif word == "killed":
            self.told["deaths"][pid] = self.now
            self.told["outside"].append((self.now, self.now))
        elif word == "asks":
            self.told["retries"].setdefault(job, []).append(20)
        elif word in S3:
            self.moved(job, word)
        elif word in {"start", "end"}:
            self.noted(word, job, pid)
        else:
            self.called(job, *CALLS[word])
            if word == "continued":
                self.jobs[job]["next"] = f"{job}+"
                self.happens("queued", f"{job}+", pid)

    def moved(self, job: str, word: str) -> None:
        if word == "declares":
            place = {"s3Location": {"objectKey": "out"}}
            self.jobs[job]["outputArtifacts"] = [{"name": "Out", "location": place}]
        else:
            self.s3.append({"at": self.now, "jobId": job, "key": "out", "fault": None, **S3[word]})

    def noted(self, event: str, job: str, pid: int) -> None:
        runs = self.runs[job]
        runs.extend([pid] if event == "start" else [])
        attempt = len(runs) - runs[::-1].index(pid)
        line = {"job": job, "event": event, "attempt": attempt, "pid": pid, "at": self.now}
        self.effects.append(line)

    def called(self, job: str, operation: str, given: Told) -> None:
        call = {"at": self.now, "operation": operation, "jobId": job, "applied": True}
        call |= {"status": 200, "error": None, "fault": None, **given}
        self.log.append(call)
        if call["applied"]:
            self.became(job, STATES[operation])
            self.jobs[job]["result"] = None if operation == ACK else {"operation": operation}

    def became(self, job: str, status: str) -> None:
        self.jobs[job]["status"] = status
        self.jobs[job]["history"].append({"status": status, "at": self.now})

    def history(self) -> History:
        log = sorted(self.log, key=lambda call: float(call["at"]))
        return History(self.effects, list(self.jobs.values()), log, self.s3)

    def judged(self, **told: Any) -> list[Violation]:
        terms = replace(TERMS, **{"read_at": self.now, **self.told, **told})
        return judge.judge(self.history(), terms)


TAKEN = "queued acked start "
LIVED = "queued acked start end "  # at 0, 1, 2 and 3
RERUN = "Rerun queued acked start "

LAWFUL: dict[str, tuple[str, Told]] = {
    "success, all as late as it may be": ("+9 queued +65 acked start end +119 put", {}),
    "put again after a lost answer": (LIVED + "unheard refused", {}),
    "put again after an answer lost on the network": (LIVED + "put refused", {"unheard": "a"}),
    "put again after a kill": (LIVED + "put killed refused", {}),
    "put again after no answer": (LIVED + "unanswered put", {}),
    "run again after a kill": (RERUN + "killed start@2 end@2 put", {}),
    "two Retries": (TAKEN + "asks start asks start end put", {}),
    "a kill long after a Retry": (RERUN + "asks start@2 end@2 killed put", {}),
    "a kill long after a failure": (RERUN + "failed killed", {}),
    "a kill long after a Continue": (TAKEN + "continued acked:+ start:+@2 killed", {}),
    "stopped right after a freeze": (RERUN + "+9 start@2 +3 end", {"frozen": {1: [(3, 14)]}}),
    "failed by others in a freeze": (TAKEN + "+9 failed end", {"frozen": {1: [(2.5, 12)]}}),
    "failed by others in a freeze at its end": (LIVED + "+9 failed", {"cut_off": {1: [(3.5, 12)]}}),
    "another worker's": ("queued foreign +500", {}),
    "another client's": ("queued acked +500", {"foreign": "a"}),
    "an unknown client's": ("queued +500", {"unknown_clients": "a"}),
    "a dead letter": (LIVED + "refused +500", {"dead_letters": "a"}),
    "closed by AWS": (LIVED + "closed refused +500", {}),
    "closed by AWS at once": ("queued closed +500", {}),
    "a success that died": (LIVED + "killed failed", {}),
    "a success after its kill was sent": (LIVED + "failed", {"deaths": {1: 1.5}}),
    "a success too late": (TAKEN + "failed end", {"time_limits": {"Probe": 1.5}}),
    "a long run": (TAKEN + "+300 end +100 put", {}),
    "a long run that fails": (TAKEN + "+300 failed", {"longest": 200}),
    "a long pause": (TAKEN + "asks +135", {}),
    "late after a fault outside": ("queued +260 acked", {"outside": [(190, 200)]}),
    "late after a fault in the log": ("queued acked queued:+ +200 foreign:+ +100", {}),
    "an upload, then success": ("queued declares acked start uploads end put", {}),
    "an upload in parts": ("queued declares acked start part completes end put", {}),
    "an upload again": ("queued declares acked start denied uploads end put", {}),
    "no upload, and failed": ("queued declares acked start failed", {}),
    "no upload before a Continue": ("queued declares acked start end continued acked:+ put:+", {}),
    "late for want of a slot": ("queued +300", {"free_since": 250}),
}

BROKEN: dict[str, tuple[str, Told]] = {
    "I1 two results": (LIVED + "put put", {}),
    "I2 no result": (LIVED + "+121", {}),
    "I2 no start": ("queued acked +121", {}),
    "I2 a late result": (LIVED + "+120 put", {}),
    "I2 closed late": (LIVED + "+120 closed", {}),
    "I2 no result of a run without an end": (TAKEN + "+121", {}),
    "I2 no result after a Retry": (TAKEN + "asks +141", {}),
    "I2 no result after a kill": (TAKEN + "killed +121", {}),
    "I3 nobody takes it": ("queued +67", {}),
    "I3 taken late": ("queued +67 acked", {}),
    "I3 closed before anybody took it": ("queued +67 closed", {}),
    "I3 nobody takes it after a fault": ("queued +87", {"outside": [(1, 20)]}),
    "I4 two starts": (TAKEN + "start@2", {}),
    "I4 four starts": (RERUN + "start@2 start@3 start@4", {}),
    "I4 more starts than Retries": (TAKEN + "asks start start", {}),
    "I4 two at once": (RERUN + "start@2 end end@2 put", {}),
    "I4 two at once until a kill": (RERUN + "start@2 killed end@2 put", {}),
    "I4 going on after a freeze": (RERUN + "+9 start@2 +5 end", {"frozen": {1: [(3, 14)]}}),
    "I4 a short freeze": (RERUN + "start@2 end", {"frozen": {1: [(2.5, 6)]}}),
    "I4 a freeze of another": (RERUN + "start@2 +9 start@3 +3 end@2", {"frozen": {1: [(4, 15)]}}),
    "I4 a late freeze": (RERUN + "start@2 +9 end", {"frozen": {1: [(3.5, 12)]}}),
    "I5 started before": ("queued start acked end put", {}),
    "I5 never acknowledged": ("queued start end", {}),
    "I5 another worker's": ("queued foreign start", {}),
    "I5 another client's": (LIVED, {"foreign": "a"}),
    "I5 of no job": ("start", {}),
    "I6 another worker's": ("queued foreign failed", {}),
    "I6 another client's": ("queued acked failed", {"foreign": "a"}),
    "I6 nobody's": ("queued put", {}),
    "I7 failed": (LIVED + "failed", {}),
    "I7 failed, its process lived on": (LIVED + "+0.5 killed failed", {}),
    "I7 failed meanwhile": (TAKEN + "failed end", {}),
    "I7 failed after a short freeze": (LIVED + "failed", {"frozen": {1: [(2, 5.9), (4.5, 9)]}}),
    "I7 failed after a freeze before": ("+9 " + LIVED + "failed", {"frozen": {1: [(0, 8)]}}),
    "I7 failed in time": (LIVED + "failed", {"time_limits": {"Probe": 1.5}}),
    "I8 put again": (LIVED + "put refused", {}),
    "I8 put again, ignored": (LIVED + "put ignored", {}),
    "I8 put again, unanswered": (LIVED + "put unanswered", {}),
    "I8 put again long before a kill": (LIVED + "put +2 killed refused", {}),
    "I8 put again after an earlier kill": (LIVED + "killed@2 put refused", {}),
    "I8 refused for nothing": (LIVED + "refused put", {}),
    "I8 ignored for nothing": (LIVED + "ignored put", {}),
    "I8 refused twice for one fault": (LIVED + "closed refused refused", {}),
    "I9 two at once": (TAKEN + "continued acked:+ start:+ end", {}),
    "I9 no upload": ("queued declares acked start reads part end put", {}),
    "I9 a refused upload": ("queued declares acked start denied end put", {}),
    "I9 success before the upload": ("queued declares acked start end put uploads", {}),
    "I9 back again": (TAKEN + "asks continued acked:+ start:+ start", {}),
}

# Lawful in any combination; and so in many lives at once.
BEGINS = ["Probe queued +9 acked", RERUN + "killed", RERUN + "+3 end killed +1 start@2 killed@2"]
RUNS = ["start@3", "start@4 asks start@3", "start@4 asks start@4 asks start@3"]
ENDS = ["failed", "+9 end@3 put", "end@3 unheard refused", "end@3 unanswered put killed@3"]
ENDS += ["closed refused", "continued acked:+ start:+@5 end:+@5 put:+"]
LIVES = st.tuples(*map(st.sampled_from, (BEGINS, RUNS, ENDS))).map(" ".join)


@pytest.mark.parametrize(("text", "told"), LAWFUL.values(), ids=LAWFUL)
def test_a_lawful_history_has_no_violations(text: str, told: Told) -> None:
    assert Story(text).judged(**told) == []


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named_and_nothing_else(name: str) -> None:
    text, told = BROKEN[name]

    found = Story(text).judged(**told)

    assert {one.invariant for one in found} == {name[:2]}
    assert all(re.search(r"\bat 00:0\d:\d\d\.\d{3}", one.text) for one in found)


def test_a_violation_says_what_was_seen_and_when() -> None:
    (found,) = Story(RERUN + "start@2 end end@2 put").judged()

    assert (found.invariant, found.job_id) == ("I4", "a")
    assert found.text.startswith("started again at 00:00:03.000 during a run that started at 00:")
    assert found.text.endswith("00:02.000 and was over at 00:00:04.000 in process 1")


def test_what_more_is_to_come_of_is_unsettled() -> None:
    lives = "queued", "queued acked", "queued foreign", "queued acked closed", LIVED + "put"
    story = Story()
    for job, life in zip("bcdef", lives, strict=True):
        story.tell(life, job)
    story.tell(TAKEN + "continued", "g").tell("queued", "unknown").tell(LIVED, "dead")
    terms = replace(TERMS, unknown_clients={"unknown"}, dead_letters={"dead"})

    assert judge.unsettled(story.history(), terms) == ["b", "c", "g+"]


@pytest.mark.parametrize("text", ["queued acked put", "Unheard queued"])
def test_no_verdict_is_given_on_evidence_with_a_gap(text: str) -> None:
    story = Story(text)
    story.log = story.log[:1]

    with pytest.raises(ValueError, match=r"not whole|Unheard"):
        story.judged()


def test_only_faults_that_took_effect_are_counted() -> None:
    log = (
        Story("queued foreign").tell("queued acked unanswered unanswered unheard refused", "b").log
    )

    assert judge.effective(log) == {"foreign-acknowledge": 1, "drop-before": 2, "drop-after": 1}


def test_runs_add_up_to_a_table() -> None:
    bad = [Violation("I4", "a", ""), Violation("I1", "b", "")]
    verdicts = [Verdict("kill|freeze", seed, {"kill": 2}, []) for seed in (3, 1, 2)]
    verdicts += [Verdict("kill|freeze", 9, {"kill": 1, "freeze": 1}, bad)]
    verdicts += [Verdict("lost answers", 5, {"drop-after": 0}, [])]

    assert judge.table(verdicts).splitlines() == [
        "| fault | runs | took effect | violations | seeds |",
        "|---|---|---|---|---|",
        r"| kill\|freeze | 4 | freeze 1, kill 7 | **I1** 1 (seed 9), **I4** 1 (seed 9) | 1..3, 9 |",
        "| lost answers | 1 | **nothing** | 0 | 5 |",
        "| all | 5 | freeze 1, kill 7 | **I1** 1 (seed 9), **I4** 1 (seed 9) | 1..3, 5, 9 |",
    ]


@settings(deadline=None)
@given(st.lists(st.tuples(LIVES, st.sampled_from([0.0, 0.5, 7.25])), min_size=1, max_size=4))
def test_jobs_of_lawful_lives_have_no_violations(lives: list[tuple[str, float]]) -> None:
    story = Story()

    for number, (life, story.now) in enumerate(lives):
        story.tell(life, "bcde"[number], 10 * number)

    assert story.judged(read_at=1000) == []


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet with a Redis of its own, for all tests that leave it standing."""
    folder = tmp_path_factory.mktemp("standing")
    with RedisServer(tmp_path_factory.mktemp("redis")) as server, fleet(server.url, folder) as made:
        made.start_emulator("--ack-window", "3", "--continuation-delay", "0.3")
        made.start_beat()
        made.start_worker("threads", slots=8)
        yield made


@pytest.fixture
def ledger(standing: Fleet) -> Iterator[Redis]:
    with Redis.from_url(standing.redis_url, decode_responses=True) as redis:
        yield redis


def seen(made: Fleet, *of: str, **told: Any) -> list[str]:
    """The invariants that the judge finds broken for these jobs."""
    terms = replace(TERMS, **{"read_at": time.time(), **told})
    effects, jobs = judge.read_effects(made.effects_file), made.aws.ask("/_admin/jobs")
    found = judge.judge(History(effects, jobs, made.log()), terms)
    return sorted({one.invariant for one in found if one.job_id in of})


def held(made: Fleet, provider: str = "Probe") -> str:
    owner = "Custom" if provider == "Rerun" else "ThirdParty"
    (job,) = made.submit(provider, owner=owner, configuration={"Do": "hold"})
    made.started(job)
    return job


def rewrite(ledger: Redis, made: Fleet, job: str, record: dict[str, str]) -> None:
    """Makes the record untrue, and has it delivered: to be run, or with a verdict to be put."""
    key = f"dispatcher:job:{job}"
    known = {str(name): str(value) for name, value in ledger.hgetall(key).items()}
    untrue: Any = {"ack": "sure", "owner": "nobody", "lease": 0, **record}
    ledger.hset(key, mapping=untrue)
    provider, puts = known["type"].split(".")[2], "verdict" in record
    told = {name: known.get(name) for name in ("type", "client", "region")}
    with Connection(made.redis_url) as connection:
        queue = connection.SimpleQueue("dispatcher" if puts else f"provider.{provider}")
        headers = {"id": job, "task": "dispatcher.settle" if puts else known["type"]}
        queue.put([[], {"job": job, **told}, {}], serializer="json", headers=headers)
        queue.close()


QUEUED = {"state": "queued"}
VERDICT = '{"kind": "failure", "message": "untrue", "failure_type": "JobFailed"}'
FAILED = {"state": "finished", "verdict": VERDICT}


def test_a_real_fleet_breaks_nothing(standing: Fleet) -> None:
    standing.aws.add_fault("drop-after", operation="PutJobSuccessResult", count=3)
    jobs = standing.submit(count=10) + standing.submit("Rerun", owner="Custom", count=10)
    jobs += [standing.submit(configuration={"Do": do})[0] for do in ("retry", "continue", "fail")]

    jobs.append(standing.ended(jobs[-2])["next"])
    for job in jobs:
        standing.ended(job)

    assert seen(standing, *jobs, retries={jobs[20]: [0.2, 0.4]}) == []
    assert judge.effective(standing.log())["drop-after"] == 3


@pytest.mark.parametrize(
    ("provider", "record", "found"),
    [("Probe", QUEUED, "I4"), ("Rerun", QUEUED, "I4"), ("Probe", FAILED, "I7")],
)
def test_a_running_job_that_is_given_away_breaks_i4_or_i7(
    standing: Fleet, ledger: Redis, provider: str, record: dict[str, str], found: str
) -> None:
    job = held(standing, provider)

    rewrite(ledger, standing, job, record)
    eventually(lambda: standing.effects(job)[1:] or standing.job(job)["result"], "it is given away")
    standing.release(job)
    starts = len(standing.effects(job))
    eventually(lambda: len(standing.effects(job, "end")) == starts, "all handlers end")
    standing.ended(job)

    assert seen(standing, job) == [found]


def test_another_workers_job_that_is_taken_breaks_i5_and_i6(standing: Fleet, ledger: Redis) -> None:
    standing.aws.add_fault("foreign-acknowledge")
    (job,) = standing.submit()
    eventually(lambda: standing.calls(job, "Ack"), "the acknowledgement is refused")

    rewrite(ledger, standing, job, QUEUED)
    standing.ended(job)

    assert seen(standing, job) == ["I5", "I6"]


def test_a_put_that_is_forgotten_breaks_i8(standing: Fleet, ledger: Redis) -> None:
    (job,) = standing.submit()
    eventually(lambda: ledger.hget(f"dispatcher:job:{job}", "state") == "reported", "reported")

    rewrite(ledger, standing, job, FAILED)
    eventually(lambda: len(standing.calls(job, "Put")) == 2, "a second put")

    assert seen(standing, job) == ["I8"]


def test_a_result_that_is_forgotten_breaks_i2(standing: Fleet, ledger: Redis) -> None:
    lost = held(standing)

    ledger.hset(f"dispatcher:job:{lost}", mapping={"state": "reported", "owner": "nobody"})
    standing.release(lost)
    eventually(lambda: standing.effects(lost, "end"), "the handler ends")
    (other,) = standing.submit()
    took = standing.ended(other)["result"]["at"] - standing.effects(other, "end")[0]["at"]

    assert seen(standing, other, result_within=took + 0.001) == []
    assert seen(standing, lost, result_within=took + 0.001) == ["I2"]
