"""The operator's commands and the start of each process, run for real: exit codes and sentences."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from redis import Redis

from dispatcher.redis_server import RedisServer
from dispatcher.scaffold import new_provider
from tests.harness import BIN, TOKENS, Fleet, eventually, fleet

CANARY = "canary-77aa"
NOWHERE = "redis://127.0.0.1:1/0"
ECHO = (Path(__file__).parents[2] / "workers" / "echo.py").read_text()
WRONG = {
    "DISPATCHER_REDIS_URL": f"http://{CANARY}",
    "DISPATCHER_LEASE": CANARY,
    "DISPATCHER_POLL_INTERVAL": "9",
    "DISPATCHER_CLIENT_TOKENS": CANARY,
}
WORKER = ("celery", "-A", "dispatcher", "worker", "-P", "solo")
BEAT = ("celery", "-A", "dispatcher", "beat")
CHECK = ("dispatcher", "check", "--offline")  # what AWS says is in test_check_command


class Place:
    """A folder with provider modules, and an environment that is well to begin with."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.folder = folder
        self.modules = folder / "modules"  # not `workers`: an editable install brings that along
        self.modules.mkdir()
        self.write("echo", ECHO)
        tokens = folder / "tokens.json"
        tokens.write_text(json.dumps({"one": CANARY, "two": CANARY}))
        self.env: dict[str, str] = {
            **os.environ,
            "C_FORCE_ROOT": "1",
            "DISPATCHER_REDIS_URL": redis_url,
            "DISPATCHER_PROVIDERS": "modules",
            "DISPATCHER_CLIENT_TOKENS": f"file://{tokens}",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:1",  # whatever asks AWS does not reach it
        }

    def write(self, name: str, text: str) -> None:
        (self.modules / f"{name}.py").write_text(text)

    def run(
        self, *command: str, settings: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            env={**self.env, **(settings or {})},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def faults(
        self, exit_code: int, *command: str, settings: Mapping[str, str] | None = None
    ) -> list[str]:
        """Of a command that must fail so: its lines, none of them a traceback or a value.

        Without warnings: that the Redis of this run keeps nothing is none of these tests' faults.
        """
        ran = self.run(*command, settings=settings)

        assert ran.returncode == exit_code, ran.stdout + ran.stderr
        assert "Traceback" not in ran.stdout + ran.stderr
        assert CANARY not in ran.stdout + ran.stderr
        return [line for line in ran.stderr.splitlines() if not line.startswith("Warning: ")]


@pytest.fixture
def place(tmp_path: Path, redis: Redis, redis_server: RedisServer) -> Place:
    return Place(tmp_path, redis_server.url)


@pytest.fixture
def evicting(redis: Redis) -> Iterator[None]:
    redis.config_set("maxmemory-policy", "allkeys-lru")
    yield
    redis.config_set("maxmemory-policy", "noeviction")


@pytest.fixture
def keeping(redis: Redis) -> Iterator[None]:
    redis.config_set("appendonly", "yes")
    yield
    redis.config_set("appendonly", "no")


@pytest.fixture
def old_redis(redis_server: RedisServer) -> Iterator[str]:
    """The address of a Redis that says it is 6.2: this run's own, with its answers changed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_pose, args=(listener, redis_server.port), daemon=True).start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


def _pose(listener: socket.socket, port: int) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        server = socket.create_connection(("127.0.0.1", port))
        for source, target in ((client, server), (server, client)):
            threading.Thread(target=_pass_on, args=(source, target), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with source, target:
        try:
            while data := source.recv(65536):
                data = data.replace(b"valkey_version", b"walkey_version")
                target.sendall(data.replace(b"redis_version:7", b"redis_version:6"))
        except OSError:
            return


@pytest.mark.usefixtures("keeping")
def test_a_check_that_finds_nothing_wrong_says_what_is_there(place: Place) -> None:
    ran = place.run(*CHECK)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert "provider.Echo" in ran.stdout
    assert "eu-west-1" in ran.stdout
    assert "2 clients known" in ran.stdout
    assert CANARY not in ran.stdout


@pytest.mark.usefixtures("evicting")
def test_a_check_says_all_faults_at_once(place: Place) -> None:
    place.write("broken", "import no_such_library")
    settings = {
        "DISPATCHER_BROKER_URL": NOWHERE,
        "DISPATCHER_CLIENT_TOKENS": "env:NOT_THERE",
    }

    lines = place.faults(1, *CHECK, settings=settings)

    for text in ("noeviction", "BROKER_URL", "modules.broken", "NOT_THERE"):
        assert sum(text in line for line in lines) == 1, (text, lines)
    assert len(lines) == 4


@pytest.mark.usefixtures("evicting")
def test_a_wrong_setting_hides_no_fault_of_another_part(place: Place) -> None:
    del place.env["AWS_REGION"]
    settings = {"DISPATCHER_LEASE": CANARY}

    lines = place.faults(2, *CHECK, settings=settings)

    assert [line.partition(":")[0] for line in lines] == [
        "DISPATCHER_LEASE",
        "DISPATCHER_REDIS_URL",
        "DISPATCHER_REGIONS",
    ]


def test_third_party_actions_without_client_tokens_are_a_fault(place: Place) -> None:
    settings = {"DISPATCHER_CLIENT_TOKENS": ""}

    (line,) = place.faults(1, *CHECK, settings=settings)

    assert "ThirdParty.Test.Echo.1" in line
    assert line.startswith("DISPATCHER_CLIENT_TOKENS: ")


def test_custom_actions_need_no_client_tokens(place: Place) -> None:
    place.write("echo", ECHO.replace('version="1"', 'version="1", owner="Custom"'))

    assert place.run(*CHECK, settings={"DISPATCHER_CLIENT_TOKENS": ""}).returncode == 0


def test_options_that_no_redis_client_knows_are_a_fault(place: Place) -> None:
    settings = {"DISPATCHER_REDIS_URL": f"{place.env['DISPATCHER_REDIS_URL']}?{CANARY}=1"}

    (line,) = place.faults(1, *CHECK, settings=settings)

    assert line.startswith("DISPATCHER_REDIS_URL: ")


@pytest.mark.parametrize("command", [CHECK, WORKER, BEAT], ids=["check", "worker", "beat"])
def test_an_absent_redis_is_one_line(place: Place, command: tuple[str, ...]) -> None:
    (line,) = place.faults(1, *command, settings={"DISPATCHER_REDIS_URL": NOWHERE})

    assert line.startswith("DISPATCHER_REDIS_URL: no Redis answers there")


@pytest.mark.parametrize("command", [CHECK, WORKER, BEAT], ids=["check", "worker", "beat"])
def test_an_old_redis_is_one_line(place: Place, old_redis: str, command: tuple[str, ...]) -> None:
    (line,) = place.faults(1, *command, settings={"DISPATCHER_REDIS_URL": old_redis})

    assert "use Redis 7 or newer" in line


@pytest.mark.parametrize(
    "command",
    [
        CHECK,
        WORKER,
        BEAT,
        ("celery", "-A", "dispatcher", "flower"),
        ("dispatcher", "providers"),
        ("dispatcher", "action-type", "Echo"),
        ("dispatcher", "health", "worker"),
        ("dispatcher", "health", "beat"),
    ],
    ids=" ".join,
)
def test_wrong_settings_are_said_all_at_once_by_every_process(
    place: Place, command: tuple[str, ...]
) -> None:
    lines = place.faults(2, *command, settings=WRONG)

    assert {line.partition(":")[0] for line in lines} == {
        "DISPATCHER_REDIS_URL",
        "DISPATCHER_LEASE",
        "DISPATCHER_POLL_INTERVAL_MAX",
        "DISPATCHER_CLIENT_TOKENS",
    }


def test_a_worker_needs_a_region_and_other_processes_know_the_actions_without(
    place: Place,
) -> None:
    del place.env["AWS_REGION"]
    program = "from dispatcher.celery import app; print('ThirdParty.Test.Echo.1' in app.tasks)"

    (line,) = place.faults(2, *WORKER)

    assert line.startswith("DISPATCHER_REGIONS: ")
    assert place.run(Path(sys.executable).name, "-c", program).stdout == "True\n"


def test_a_mistyped_queue_stops_a_worker_and_names_those_there_are(place: Place) -> None:
    (line,) = place.faults(2, *WORKER, "-Q", "provider.Ecko")

    assert "provider.Ecko" in line
    assert "there are dispatcher, provider.Echo" in line


@pytest.mark.parametrize("command", [WORKER, ("dispatcher", "providers")], ids=" ".join)
def test_provider_modules_that_cannot_be_used_are_named(
    place: Place, command: tuple[str, ...]
) -> None:
    place.write("broken", "import no_such_library")
    place.write("twin", ECHO)

    lines = place.faults(1, *command)

    assert len(lines) == 2
    assert "modules.broken" in lines[0]
    assert "modules.echo.echo and by modules.twin.echo" in lines[1]


@pytest.mark.parametrize("command", [WORKER, ("dispatcher", "providers")], ids=" ".join)
def test_no_provider_at_all_is_one_line(place: Place, command: tuple[str, ...]) -> None:
    (place.modules / "echo.py").unlink()

    (line,) = place.faults(1, *command)

    assert line.startswith("No provider was found in modules")


def test_the_providers_are_listed(place: Place) -> None:
    place.write("mine", ECHO.replace('"Echo"', '"Mine"').replace('"1"', '"1", owner="Custom"'))

    ran = place.run("dispatcher", "providers")

    assert (ran.returncode, ran.stderr) == (0, "")
    assert [re.split(" {2,}", line) for line in ran.stdout.splitlines()] == [
        ["ACTION TYPE", "QUEUE", "TASK", "MODULE"],
        ["Custom Test Mine 1", "provider.Mine", "Custom.Test.Mine.1", "modules.mine"],
        ["ThirdParty Test Echo 1", "provider.Echo", "ThirdParty.Test.Echo.1", "modules.echo"],
    ]


@pytest.mark.parametrize("command", [CHECK, ("dispatcher", "providers")], ids=" ".join)
def test_the_providers_that_can_be_used_are_listed_beside_the_faults(
    place: Place, command: tuple[str, ...]
) -> None:
    place.write("broken", "import no_such_library")

    ran = place.run(*command)

    assert ran.returncode == 1
    assert "ThirdParty.Test.Echo.1" in ran.stdout
    assert "modules.broken" in ran.stderr.splitlines()[0]


@pytest.mark.parametrize("owner", ["Custom", "ThirdParty"])
def test_what_is_declared_is_taken_by_the_aws_command(place: Place, owner: str) -> None:
    place.write("echo", ECHO.replace('version="1"', f'version="1", owner="{owner}"'))
    of_partner = owner == "ThirdParty"
    account = ["--account", "123456789012"] if of_partner else []
    command = "update-action-type" if of_partner else "create-custom-action-type"

    ran = place.run(
        "dispatcher", "action-type", "Echo", "--inputs", "1-2", "--outputs", "3", *account
    )
    (place.folder / "declared.json").write_text(ran.stdout)
    taken = place.run(
        *("aws", "codepipeline", command, "--cli-input-json", "file://declared.json"),
        *("--generate-cli-skeleton", "output"),
        settings={"AWS_DEFAULT_REGION": "eu-west-1"},
    )

    assert ran.returncode == 0, ran.stderr
    assert len(ran.stderr.splitlines()) == of_partner
    declared = json.loads(ran.stdout)
    declared = declared["actionType"] if of_partner else declared
    keys = declared["properties" if of_partner else "configurationProperties"]
    assert [key["name"] for key in keys] == ["Message", "FailWith"]
    assert declared["inputArtifactDetails"] == {"minimumCount": 1, "maximumCount": 2}
    assert declared["outputArtifactDetails"] == {"minimumCount": 3, "maximumCount": 3}
    assert taken.returncode == 0, taken.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (("Ecko",), 1, "There is no provider or task Ecko; there are ThirdParty.Test.Echo.1."),
        (("Echo", "--inputs", "0-11"), 1, "inputArtifactDetails is 0 to 11; give two numbers"),
        (("Echo", "--account", "1"), 1, "--account 1: give the 12 digits of an AWS account."),
        (("Echo", "--outputs", "few"), 2, "give the least and the most, as in 0-5"),
        (("Echo", "--outputs", "1-"), 2, "give the least and the most, as in 0-5"),
    ],
    ids=str,
)
def test_what_cannot_be_declared_is_refused(
    place: Place, arguments: tuple[str, ...], exit_code: int, said: str
) -> None:
    lines = place.faults(exit_code, "dispatcher", "action-type", *arguments)

    assert said in lines[-1]


def test_a_provider_can_be_declared_beside_a_broken_one(place: Place) -> None:
    place.write("broken", "import no_such_library")

    ran = place.run("dispatcher", "action-type", "ThirdParty.Test.Echo.1")

    assert ran.returncode == 0
    assert "no_such_library" not in ran.stderr


def test_a_new_provider_is_written_once(place: Place) -> None:
    ran = place.run("dispatcher", "new-provider", "acme-deploy", "--owner", "Custom")
    (line,) = place.faults(1, "dispatcher", "new-provider", "AcmeDeploy")

    assert ran.returncode == 0, ran.stderr
    assert "workers/acme_deploy.py" in ran.stdout
    assert 'owner="Custom"' in (place.folder / "workers" / "acme_deploy.py").read_text()
    assert line.startswith("workers/acme_deploy.py and tests/test_acme_deploy.py exist already")


def test_a_new_provider_takes_jobs_as_it_is(
    tmp_path: Path, redis: Redis, redis_server: RedisServer
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    new_provider("acme-deploy", "ThirdParty", "Deploy", mine)
    settings = {"DISPATCHER_PROVIDERS": "workers", "PYTHONPATH": str(mine)}

    with fleet(redis_server.url, tmp_path, **settings) as made:
        made.start_emulator("--continuation-delay", "0.1")
        made.start_beat()
        made.start_worker("threads")
        job = made.aws.submit(
            "AcmeDeploy",
            {"AppURL": "https://a.example", "ApiKey": CANARY},
            owner="ThirdParty",
            category="Deploy",
            client_token=TOKENS["client"],
            inputs={"Source": b"bundle"},
            outputs=["Report"],
        )
        ended = made.aws.wait_for(job)

        assert ended.status == "Succeeded"
        assert len(made.aws.chain(job)) == 2
        assert made.aws.artifact(ended.id, "Report") == f"run-{job}: no complaints\n".encode()
        assert CANARY not in made.processes[-1].output


def test_a_port_that_is_taken_is_one_line(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        (line,) = place.faults(1, "dispatcher", "emulator", "--port", port)

    assert f"cannot listen on 127.0.0.1:{port}" in line


@pytest.mark.parametrize(
    "flags",
    [
        ("--ack-window", "nan"),
        ("--ack-window", "0"),
        ("--job-timeout", "soon"),
        ("--continuation-delay", "-1"),
        ("--batch-cap", "0"),
        ("--second-ack", "perhaps"),
    ],
    ids=" ".join,
)
def test_the_emulator_refuses_what_it_cannot_assume(place: Place, flags: tuple[str, str]) -> None:
    place.faults(2, "dispatcher", "emulator", "--port", "0", *flags)


@pytest.mark.parametrize(
    ("command", "extra"), [("['emulator', '--port', '0']", "emulator"), ("['demo']", "demo")]
)
def test_an_extra_that_is_not_installed_is_named(place: Place, command: str, extra: str) -> None:
    program = (
        f"import sys; sys.modules['uvicorn'] = None; import dispatcher.cli as c; c.main({command})"
    )

    (line,) = place.faults(1, Path(sys.executable).name, "-c", program)

    assert f"pip install 'codepipeline-dispatcher[{extra}]'" in line


def test_help_is_quick_for_it_imports_nothing_heavy(place: Place) -> None:
    heavy = "{'celery', 'boto3', 'pydantic', 'redis', 'uvicorn'}"
    program = f"import sys, dispatcher.cli; print({heavy} & sys.modules.keys())"

    ran = place.run(Path(sys.executable).name, "-c", program)

    assert ran.stdout == "set()\n"


def test_a_worker_is_healthy_as_long_as_it_consumes_something(empty: Fleet) -> None:
    worker = empty.start_worker("threads", slots=1, queues="dispatcher,provider.Probe")
    assert ask(empty, "worker", "--node", "w@test") == 0

    control(empty, "cancel_consumer", "provider.Probe")
    assert ask(empty, "worker", "--node", "w@test") == 0

    control(empty, "cancel_consumer", "dispatcher")
    consuming_nothing = eventually(lambda: ask(empty, "worker", "--node", "w@test"), "exit 1")
    worker.end()

    assert consuming_nothing == 1
    assert ask(empty, "worker", "--node", "w@test") == 1
    assert "does not answer" in empty.processes[-1].output


def test_a_beat_is_healthy_as_long_as_it_runs(empty: Fleet) -> None:
    beat = empty.processes[-1]
    eventually(lambda: ask(empty, "beat") == 0, "beat answers")

    beat.signal(signal.SIGSTOP)

    assert ask(empty, "beat") == 1
    assert ask(empty, "beat", "--node", "celerybeat@elsewhere") == 1


@pytest.mark.parametrize("kind", ["worker", "beat"])
def test_nothing_is_healthy_without_a_broker(place: Place, kind: str) -> None:
    (line,) = place.faults(
        1, "dispatcher", "health", kind, settings={"DISPATCHER_REDIS_URL": NOWHERE}
    )

    assert "the broker does not answer" in line


def ask(fleet: Fleet, *arguments: str) -> int:
    return fleet.start("health", "dispatcher", "health", *arguments).wait()


def control(fleet: Fleet, *arguments: str) -> None:
    command = ("celery", "-A", "dispatcher", "control", "-d", "w@test", *arguments)
    assert fleet.start("control", *command).wait() == 0
