"""What `dispatcher check` says of AWS, Redis's durability and clocks; and who refuses to start."""

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from redis import Redis

from dispatcher.aws.account import Account, Call
from dispatcher.checks.aws import told
from dispatcher.cli import main
from dispatcher.emulator.client import Emulator
from dispatcher.redis_server import RedisServer, free_port
from dispatcher.sdk import ActionType, Owner
from dispatcher.store.fleet import PAUSED
from tests.faults.stage import Clocks
from tests.harness import Fleet, Process, eventually, fleet

CANARY = "canary-3c7d"
MODULE = "checked_providers"
HERE = "0.0.0.0"  # noqa: S104 - no loopback address, and yet it leads to this machine
REGIONS = ("eu-west-1", "us-east-1")
PROVIDERS = """
from dataclasses import dataclass
from typing import Annotated

from dispatcher.sdk import Key, action


@dataclass(frozen=True)
class Config:
    project: Annotated[str, Key(queryable=True)]


@action("Test", "Partner", version="1")
def partner(job):
    raise AssertionError("a check runs no handler")


@action("Test", "Own", version="1", owner="Custom")
def own(job):
    raise AssertionError("a check runs no handler")


@action("Test", "Asked", version="1", owner="Custom", config=Config)
def asked(job):
    raise AssertionError("a check runs no handler")
"""


class Checked:
    """What one check said, and how it ended."""

    def __init__(self, *flags: str) -> None:
        ran = CliRunner().invoke(main, ["check", *flags])
        assert CANARY not in ran.output
        assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.output
        self.exit_code = ran.exit_code
        self.found = ran.stdout.splitlines()
        lines = ran.stderr.splitlines()
        self.warnings = [
            line.removeprefix("Warning: ") for line in lines if line.startswith("Warning: ")
        ]
        self.faults = lines[: len(lines) - len(self.warnings)]
        assert not [line for line in self.faults if line.startswith("Warning: ")]  # they are last


@pytest.fixture(scope="module")
def durable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("durable"), durable=True) as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("providers")
    (made / f"{MODULE}.py").write_text(PROVIDERS)
    return made


@pytest.fixture
def aws(
    durable: RedisServer,
    folder: Path,
    codepipeline_emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
) -> Emulator:
    """An installation that is well, with its three action types, in a region."""
    monkeypatch.syspath_prepend(folder)
    for name, value in {
        "REDIS_URL": durable.url,
        "PROVIDERS": MODULE,
        "CLIENT_TOKENS": "env:TOKENS_OF_CLIENTS",
        "QUERY_PARAMS": "Asked.Project=shop,Asked.Project=blog",
        "REGIONS": REGIONS[0],
    }.items():
        monkeypatch.setenv(f"DISPATCHER_{name}", value)
    monkeypatch.setenv("TOKENS_OF_CLIENTS", f'{{"client": "{CANARY}"}}')
    codepipeline_emulator.define("Partner", owner="ThirdParty")
    codepipeline_emulator.define("Own")
    codepipeline_emulator.define("Asked", queryable="Project")
    return codepipeline_emulator


def only(lines: list[str], *texts: str) -> str:
    """The one line, and it has these texts."""
    (line,) = lines
    assert [text for text in texts if text not in line] == []
    return line


# AWS


def test_an_installation_that_is_well_says_who_it_is_and_what_it_may_poll(aws: Emulator) -> None:
    said = Checked("--strict")

    assert (said.exit_code, said.faults, said.warnings) == (0, [], [])
    assert "AWS knows us as arn:aws:sts::123456789012:user/moto, in account 123456789012." in (
        said.found
    )
    assert said.found[-1] == (
        "AWS may be asked for jobs in eu-west-1: Custom.Test.Asked.1, Custom.Test.Own.1, "
        "ThirdParty.Test.Partner.1."
    )


def test_each_type_is_polled_for_one_job_in_each_region_by_its_query(
    aws: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPATCHER_REGIONS", ",".join(REGIONS))

    said = Checked()

    assert said.exit_code == 0
    polls = aws.calls()
    assert sorted((call.operation, call.request["actionTypeId"]["provider"]) for call in polls) == [
        *[("PollForJobs", "Asked")] * 2,
        *[("PollForJobs", "Own")] * 2,
        *[("PollForThirdPartyJobs", "Partner")] * 2,
    ]
    assert {call.request["maxBatchSize"] for call in polls} == {1}
    queries = [call.request["queryParam"] for call in polls if "queryParam" in call.request]
    assert queries == [{"Project": "shop"}] * 2


def test_a_type_whose_query_is_not_set_is_not_polled(
    aws: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPATCHER_QUERY_PARAMS")

    said = Checked()

    assert said.exit_code == 2
    only(said.faults, "DISPATCHER_QUERY_PARAMS", "Custom.Test.Asked.1")
    assert "Asked" not in {call.request["actionTypeId"]["provider"] for call in aws.calls()}


def test_a_job_that_comes_of_it_is_left_alone_and_offered_again(aws: Emulator) -> None:
    aws.reset(ack_window=0.3)
    for provider, owner in (("Own", "Custom"), ("Asked", "Custom"), ("Partner", "ThirdParty")):
        aws.define(provider, owner=owner, queryable="Project" if provider == "Asked" else None)  # type: ignore[arg-type]
    job = aws.submit("Own", {"Key": CANARY})

    said = Checked()

    assert said.exit_code == 0
    assert [status for status, _ in aws.job(job).history][-1] == "Dispatched"
    assert {call.operation for call in aws.calls()} == {"PollForJobs", "PollForThirdPartyJobs"}
    eventually(lambda: aws.job(job).status == "Queued", "AWS offers it again")


def test_polls_that_a_policy_forbids_are_a_fault_with_operation_type_and_region(
    aws: Emulator,
) -> None:
    aws.add_fault("error", operation="PollForThirdPartyJobs", error="AccessDeniedException")

    said = Checked()

    assert said.exit_code == 1
    only(said.faults, "ThirdParty.Test.Partner.1", "PollForThirdPartyJobs", "eu-west-1")
    assert said.warnings == []
    assert "Custom.Test.Own.1" in said.found[-1]
    assert "Partner" not in said.found[-1]


def test_a_type_that_aws_does_not_know_is_a_warning(aws: Emulator) -> None:
    aws.reset()
    aws.define("Asked", queryable="Project")

    said, strict = Checked(), Checked("--strict")

    assert (said.exit_code, strict.exit_code) == (0, 1)
    own, partner = said.warnings
    assert own == (
        "Custom.Test.Own.1: AWS knows no such action type in eu-west-1; create it there, or "
        "correct its name."
    )
    assert partner.startswith("ThirdParty.Test.Partner.1: ")
    assert "those that may poll it" in partner


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("throttle", "it answers calls too seldom in eu-west-1 (ThrottlingException)"),
        ("unavailable", "it did not answer in eu-west-1 (ServiceUnavailableException)"),
        ("drop-before", "it did not answer in eu-west-1 (ConnectionClosedError)"),
    ],
)
def test_what_may_pass_by_itself_is_a_warning_said_once(
    aws: Emulator, kind: str, said: str
) -> None:
    aws.add_fault(kind, count=3)

    checked = Checked()

    assert (checked.exit_code, checked.faults) == (0, [])
    only(checked.warnings, said)


def test_credentials_that_are_over_are_a_fault_said_once(aws: Emulator) -> None:
    aws.add_fault("expired-credentials", count=3)

    said = Checked()

    assert said.exit_code == 1
    only(said.faults, "does not take these credentials in eu-west-1 (ExpiredTokenException)")


def test_what_aws_calls_wrong_is_a_fault(aws: Emulator) -> None:
    aws.add_fault("error", operation="PollForThirdPartyJobs", error="ValidationException")

    said = Checked()

    assert said.exit_code == 1
    only(said.faults, "ThirdParty.Test.Partner.1", "(ValidationException)", "declaration")


def test_a_paused_provider_is_not_polled(aws: Emulator, durable: RedisServer) -> None:
    with Redis.from_url(durable.url) as client:
        client.sadd(PAUSED, "Own", "Gone")
        said = Checked()
        client.delete(PAUSED)

    assert said.exit_code == 0
    assert "Own is paused, so AWS is not asked for its jobs." in said.found
    assert not [line for line in said.found if "Gone" in line]
    assert "Own" not in {call.request["actionTypeId"]["provider"] for call in aws.calls()}


def test_offline_aws_is_not_asked(aws: Emulator) -> None:
    said = Checked("--offline")

    assert (said.exit_code, said.faults) == (0, [])
    assert aws.calls() == []
    assert not [line for line in said.found if "AWS" in line]


@pytest.mark.parametrize("ahead", [60, -60])
def test_a_clock_that_is_not_awss_is_a_warning(aws: Emulator, ahead: int) -> None:
    aws.set_clock(ahead)

    said = Checked()

    assert (said.exit_code, said.faults) == (0, [])
    which = "behind" if ahead > 0 else "ahead of"
    line = only(said.warnings, f"s {which} AWS's; ")
    assert 55 <= int(line.split(" at least ")[1].split()[0]) <= 60


def test_a_clock_so_wrong_that_aws_takes_no_signature_is_the_one_fault(aws: Emulator) -> None:
    aws.set_clock(-400)

    said = Checked()

    assert (said.exit_code, said.warnings) == (1, [])
    only(said.faults, "ahead of AWS's")


def test_an_answer_that_takes_long_is_no_wrong_clock(aws: Emulator) -> None:
    aws.set_clock(6.5)  # of which at most 5 are sure with such an answer
    aws.add_fault("delay", operation="PollForThirdPartyJobs", seconds=1.5, when="after")
    call = Call("eu-west-1", ActionType("Test", Owner.THIRD_PARTY, "Partner", "1"))

    with closing(Account()) as account:
        late, quick = account.ask([call]), account.ask([call])

    assert late[0].date is not None
    assert told(late).warnings == ()
    assert [line for line in told(quick).warnings if "behind AWS's" in line]


def test_no_credentials_at_all_are_a_fault(aws: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    said = Checked()

    assert said.exit_code == 1
    only(said.faults, "AWS: boto3 finds no credentials")
    assert aws.calls() == []


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL_CODEPIPELINE"])
def test_what_boto3_cannot_use_is_a_fault_without_its_value(
    aws: Emulator, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, CANARY)
    if name == "AWS_ACCESS_KEY_ID":
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    said = Checked()

    assert said.exit_code == 1
    only(said.faults, "AWS: what boto3 is given cannot be used")


class Ears:
    """Listens, and notes how each that comes begins. Without `answers` all wait for more."""

    def __init__(self, listener: socket.socket, stack: ExitStack, *, answers: bool) -> None:
        self._listener, self._stack, self._answers = listener, stack, answers
        self.port: int = listener.getsockname()[1]
        self.heard: list[str] = []

    def listen(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            self._stack.enter_context(caller)
            self.heard.append(caller.recv(65536).decode(errors="replace").partition("\r\n")[0])
            if self._answers:
                caller.close()


@contextmanager
def hearing(*, answers: bool) -> Iterator[Ears]:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100))
        ears = Ears(listener, stack, answers=answers)
        thread = threading.Thread(target=ears.listen)
        thread.start()
        try:
            yield ears
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_each_region_is_asked_at_its_own_address(
    aws: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPATCHER_REGIONS", ",".join(REGIONS))
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_ENDPOINT_URL_CODEPIPELINE")
    with hearing(answers=True) as ears:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{ears.port}")
        said = Checked()

    assert (said.exit_code, len(said.warnings)) == (0, 3)
    assert {line.split()[1] for line in ears.heard} == {
        "sts.eu-west-1.amazonaws.com:443",
        "codepipeline.eu-west-1.amazonaws.com:443",
        "codepipeline.us-east-1.amazonaws.com:443",
    }


@pytest.mark.parametrize(("endpoint", "comes"), [("", False), ("own", True)])
def test_keys_for_an_emulator_are_not_shown_to_the_real_sts(
    aws: Emulator, monkeypatch: pytest.MonkeyPatch, endpoint: str, comes: bool
) -> None:
    """A call that went to AWS would come by the proxy."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://sts.example")
    with hearing(answers=True) as ears:
        proxy = f"http://127.0.0.1:{ears.port}"
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        monkeypatch.setenv("HTTP_PROXY", proxy)
        said = Checked()

    assert said.exit_code == 0
    assert bool(ears.heard) == comes
    assert bool([line for line in said.found if "is not asked who we are" in line]) != comes
    assert bool([line for line in said.warnings if "STS in eu-west-1" in line]) == comes
    assert "AWS may be asked for jobs" in said.found[-1]


def test_an_aws_that_keeps_silent_costs_seconds(
    aws: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPATCHER_REGIONS", ",".join(f"eu-west-{n}" for n in range(1, 11)))
    with hearing(answers=False) as ears:
        silent = f"http://127.0.0.1:{ears.port}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", silent)
        monkeypatch.setenv("AWS_ENDPOINT_URL_CODEPIPELINE", silent)
        began = time.monotonic()
        said = Checked()
        took = time.monotonic() - began

    assert took < 10
    assert (said.exit_code, said.faults) == (0, [])
    assert len(said.warnings) == 11  # STS, and each region once


def test_where_a_call_is_not_answered_no_others_follow(
    aws: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_CODEPIPELINE", f"http://127.0.0.1:{free_port()}")
    asked = [
        Call(region, ActionType("Test", Owner.CUSTOM, f"Own{n}", "1"))
        for n in range(100)
        for region in REGIONS
    ]

    with closing(Account()) as account:
        answers = account.ask([Call(REGIONS[0]), *asked])

    assert [answer.call for answer in answers] == [Call(REGIONS[0]), *asked[:2]]
    assert answers[0].arn  # STS is another place


# Redis


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[RedisServer]:
    """Of this test alone, and it keeps nothing."""
    with RedisServer(tmp_path) as server:
        yield server


def test_a_redis_that_keeps_nothing_is_a_warning_with_both_options(
    aws: Emulator, monkeypatch: pytest.MonkeyPatch, hasty: RedisServer
) -> None:
    monkeypatch.setenv("DISPATCHER_REDIS_URL", hasty.url)

    said, strict = Checked("--offline"), Checked("--offline", "--strict")

    assert (said.exit_code, strict.exit_code, said.faults) == (0, 1, [])
    only(said.warnings, "DISPATCHER_REDIS_URL", "appendonly yes", "appendfsync everysec")


def test_a_file_that_is_never_synced_is_a_warning(aws: Emulator, durable: RedisServer) -> None:
    with Redis.from_url(durable.url) as client:
        client.config_set("appendfsync", "no")
        said = Checked("--offline")
        client.config_set("appendfsync", "everysec")

    assert said.exit_code == 0
    only(said.warnings, "appendfsync everysec")


def test_what_redis_could_not_write_is_a_warning(
    aws: Emulator, monkeypatch: pytest.MonkeyPatch, hasty: RedisServer
) -> None:
    monkeypatch.setenv("DISPATCHER_REDIS_URL", hasty.url)
    with Redis.from_url(hasty.url, decode_responses=True) as client:
        shutil.rmtree(hasty.folder)
        client.bgsave()
        eventually(
            lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "it has failed"
        )

        said = Checked("--offline")

    assert said.exit_code == 0
    assert [line for line in said.warnings if "could not write its snapshot" in line]


def test_a_redis_that_tells_little_is_taken_as_it_is(
    aws: Emulator, monkeypatch: pytest.MonkeyPatch, durable: RedisServer
) -> None:
    monkeypatch.setenv("DISPATCHER_REDIS_URL", durable.url.replace("//", f"//managed:{CANARY}@"))
    with Redis.from_url(durable.url) as client:
        client.execute_command("ACL", "SETUSER", "managed", "on", f">{CANARY}", "~*", "&*", "+@all")
        client.execute_command("ACL", "SETUSER", "managed", "-config")
        said = Checked("--offline", "--strict")
        client.execute_command("ACL", "DELUSER", "managed")

    assert (said.exit_code, said.faults, said.warnings) == (0, [], [])
    assert [line for line in said.found if "it forbids CONFIG GET" in line]


@pytest.mark.skipif(Clocks.COMPILER is None, reason="no C compiler for a clock of its own")
@pytest.mark.parametrize(("off", "where"), [(30, "behind"), (-30, "ahead of")])
def test_a_clock_that_is_not_rediss_is_a_warning(
    aws: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, off: int, where: str
) -> None:
    import os

    clocks = Clocks(tmp_path, used=True)
    env = {**os.environ, **clocks.env("redis")}
    with RedisServer(tmp_path, durable=True, env=env) as server:
        monkeypatch.setenv("DISPATCHER_REDIS_URL", server.url)
        clocks.set("redis", off)
        said = Checked("--offline")

    assert (said.exit_code, said.faults) == (0, [])
    line = only(said.warnings, f"s {where} Redis's; ")
    assert 28 <= int(line.split(" at least ")[1].split()[0]) <= 30


def test_provider_modules_are_loaded_once(
    aws: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Seen of one that fails, which Python imports afresh each time."""
    (tmp_path / "failing_providers.py").write_text(
        "from pathlib import Path\n"
        "with (Path(__file__).parent / 'loads').open('a') as loads:\n"
        "    loads.write('x')\n"
        "raise RuntimeError\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("DISPATCHER_PROVIDERS", f"{MODULE},failing_providers")
    monkeypatch.delenv("DISPATCHER_CLIENT_TOKENS")

    said = Checked("--offline")

    assert said.exit_code == 1
    assert (tmp_path / "loads").read_text() == "x"


def test_faults_of_all_parts_are_said_at_once_before_the_warnings(
    aws: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPATCHER_REDIS_URL", f"redis://{CANARY}@10.1.2.3/0")
    monkeypatch.setenv("DISPATCHER_BROKER_URL", f"amqp://user:{CANARY}@10.1.2.3//")
    aws.add_fault("error", operation="PollForThirdPartyJobs", error="AccessDeniedException")
    aws.add_fault("throttle", operation="PollForJobs")

    said = Checked()

    assert said.exit_code == 1
    assert [line.partition(":")[0] for line in said.faults] == [
        "DISPATCHER_REDIS_URL",
        "DISPATCHER_BROKER_URL",
        "ThirdParty.Test.Partner.1",
    ]
    only(said.warnings, "ThrottlingException")


# Who starts


@pytest.fixture
def boots(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> Iterator[Fleet]:
    with fleet(redis_server.url.replace("127.0.0.1", HERE), tmp_path) as made:
        made.env["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1"
        yield made


def start(boots: Fleet, command: str) -> Process:
    options = ["-P", "solo"] if command == "worker" else []
    return boots.start(command, "celery", "-A", "dispatcher", command, *options)


@pytest.mark.parametrize("command", ["worker", "beat"])
@pytest.mark.parametrize("name", ["REDIS_URL", "BROKER_URL"])
def test_nothing_starts_on_what_others_could_read_nor_asks_it(
    boots: Fleet, command: str, name: str
) -> None:
    boots.env["DISPATCHER_REDIS_URL"] = boots.redis_url.replace(HERE, "127.0.0.1")
    with hearing(answers=True) as ears:
        address = f"redis://{HERE}:{ears.port}/0"
        boots.env[f"DISPATCHER_{name}"] = address
        process = start(boots, command)
        ended = process.wait()

    assert ended == 1
    lines = [line for line in process.output.splitlines() if line.startswith("DISPATCHER_")]
    only(lines, f"DISPATCHER_{name}", "ALLOW_INSECURE_REDIS=true")
    assert "Traceback" not in process.output
    assert ears.heard == []


@pytest.mark.parametrize("command", ["worker", "beat"])
def test_what_an_operator_allows_starts(boots: Fleet, redis: Redis, command: str) -> None:
    boots.env["DISPATCHER_ALLOW_INSECURE_REDIS"] = "true"
    process = start(boots, command)

    def works() -> bool:
        names = [str(client["name"]) + client["cmd"] for client in redis.client_list()]
        return bool(redis.llen("dispatcher")) or "brpop" in " ".join(names)

    eventually(lambda: works() or process.popen.poll() is not None, "it does its work")

    assert process.popen.poll() is None, process.output
