"""docker-compose.yml, without Docker: it keeps to the specification, and its commands exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compose_spec import PyCompose
from redis import Redis

from dispatcher.broker import QUEUE
from dispatcher.redis_server import RedisServer
from dispatcher.registry import load
from dispatcher.settings import read
from tests.command_lines import follow
from tests.harness import Fleet, fleet

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = PyCompose.from_yaml(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE.to_dict()["services"]
OURS = sorted(SERVICES.keys() - {"redis"})
LASTING = sorted(SERVICES.keys() - {"jobs"})
PROVIDER_WORKERS = [name for name in OURS if name.endswith("-worker")]
WORKERS = ["worker", *PROVIDER_WORKERS]
PROBES = ["beat", *WORKERS]


def option(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def test_the_file_keeps_to_the_specification() -> None:
    COMPOSE.validate()
    COMPOSE.to_spec()

    assert set(SERVICES) == {
        "redis",
        "emulator",
        "jobs",
        "beat",
        "worker",
        "echo-worker",
        "countdown-worker",
        "flower",
    }


@pytest.mark.parametrize("name", sorted({*OURS} - {"jobs"}))
def test_each_command_exists_with_its_options(name: str) -> None:
    follow(SERVICES[name]["command"])


@pytest.mark.parametrize("name", PROBES)
def test_each_health_command_exists(name: str) -> None:
    kind, *command = SERVICES[name]["healthcheck"]["test"]

    assert kind == "CMD"
    follow(command)


def test_each_provider_has_workers_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    loaded = load(SERVICES["worker"]["environment"]["DISPATCHER_PROVIDERS"].split(","))

    served = {name: option(SERVICES[name]["command"], "-Q") for name in WORKERS}

    assert served == {"worker": QUEUE} | {
        f"{action.spec.type.provider.lower()}-worker": action.spec.type.queue for action in loaded
    }


def test_the_scale_that_is_shown_is_of_a_service_that_is_there() -> None:
    shown = re.findall(r"--scale (\S+)=", TEXT)

    assert shown
    assert set(shown) <= set(PROVIDER_WORKERS)


def test_all_processes_load_the_same_providers() -> None:
    chosen = {
        service["environment"]["DISPATCHER_PROVIDERS"]
        for service in SERVICES.values()
        if "DISPATCHER_PROVIDERS" in service.get("environment", {})
    }

    assert len(chosen) == 1


def test_redis_keeps_what_it_was_given() -> None:
    command = SERVICES["redis"]["command"]

    assert option(command, "--appendonly") == "yes"
    assert option(command, "--appendfsync") == "everysec"
    assert option(command, "--maxmemory-policy") == "noeviction"
    assert SERVICES["redis"]["volumes"] == ["redis:/data"]


def test_flower_asks_for_a_password_and_changes_nothing() -> None:
    flower = SERVICES["flower"]

    assert "${FLOWER_PASSWORD:?" in flower["environment"]["FLOWER_BASIC_AUTH"]
    assert "--read-only" in flower["command"]
    assert "FLOWER_UNAUTHENTICATED_API" not in TEXT


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_the_loopback_interface_alone(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_is_root_or_may_become_it(name: str) -> None:
    service = SERVICES[name]

    assert service["user"] in {"10001:10001", "valkey"}
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_flower_remembers_in_a_volume_that_is_its_users() -> None:
    flower = SERVICES["flower"]
    place = next(part for part in flower["command"] if part.startswith("--db="))[5:]
    made = next(
        step
        for step in flower["build"]["dockerfile_inline"].splitlines()
        if step.startswith("RUN mkdir ")
    )

    assert "--persistent=true" in flower["command"]
    assert flower["volumes"] == [f"flower:{Path(place).parent}"]
    assert "flower" in COMPOSE.to_dict()["volumes"]
    assert str(Path(place).parent) in made.partition(" chown 10001:10001 ")[2].split()


@pytest.mark.parametrize("name", LASTING)
def test_each_service_has_a_health_check_and_comes_back(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", OURS)
def test_each_service_waits_until_what_it_needs_is_healthy(name: str) -> None:
    needs = SERVICES[name].get("depends_on", {})

    assert ("redis" in needs) == (name not in {"emulator", "jobs"})
    assert ("emulator" in needs) == (name in {"jobs", *WORKERS})
    assert all(need == {"condition": "service_healthy"} for need in needs.values())


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_gets_the_time_that_its_shutdown_takes(name: str) -> None:
    grace = SERVICES[name]["stop_grace_period"]

    assert float(grace.removesuffix("s")) > read({}).shutdown_grace + 6
    assert SERVICES[name]["init"]


@pytest.mark.parametrize("name", sorted({*OURS} - {*WORKERS}))
def test_only_workers_know_clients_and_call_aws(name: str) -> None:
    names = SERVICES[name].get("environment", {}).keys()

    assert not [one for one in names if one.startswith("AWS_") or "TOKEN" in one]


def test_the_workers_environment_is_right() -> None:
    environment = SERVICES["worker"]["environment"]
    found = read(environment)

    assert all(SERVICES[name]["environment"] == environment for name in PROVIDER_WORKERS)
    assert found.redis_url.get_secret_value() == "redis://redis:6379/0"
    port = option(SERVICES["emulator"]["command"], "--port")
    for service in ("CODEPIPELINE", "S3"):
        assert environment[f"AWS_ENDPOINT_URL_{service}"] == f"http://emulator:{port}"


@pytest.mark.parametrize("name", OURS)
def test_the_image_is_built_here_and_has_no_root(name: str) -> None:
    steps = SERVICES[name]["build"]["dockerfile_inline"].splitlines()

    assert steps[-1] == "USER 10001:10001"
    assert not re.search("https?://", "\n".join(steps))


def test_what_the_image_copies_is_there_and_not_kept_out() -> None:
    steps = SERVICES["worker"]["build"]["dockerfile_inline"].splitlines()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [one for step in steps if step.startswith("COPY ") for one in shlex.split(step)[1:-1]]

    assert copied
    assert all((ROOT / one).exists() and f"!{one}" in ignored for one in copied)


@pytest.mark.parametrize("name", OURS)
def test_who_is_told_a_redis_without_tls_is_told_that_it_may_be(name: str) -> None:
    environment = SERVICES[name].get("environment", {})
    found = read(environment)

    told = "DISPATCHER_REDIS_URL" in environment
    assert told == (name not in {"emulator", "jobs"})
    assert found.allow_insecure_redis == told


@pytest.fixture
def composed(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> Iterator[Fleet]:
    """Emulator, beat and workers by the file's commands and settings, at other addresses."""
    given = SERVICES["worker"]["environment"]
    there = {name: value for name, value in given.items() if not name.startswith("AWS_ENDPOINT")}
    here = {"DISPATCHER_REDIS_URL": redis_server.url, "PYTHONPATH": str(ROOT)}
    with fleet(redis_server.url, tmp_path, **there | here) as made:
        made.start_emulator("--continuation-delay", "0.3")
        for name in ("beat", *WORKERS):
            node = [] if name == "beat" else ["-n", f"{name}@test"]
            made.start(name, *SERVICES[name]["command"], *node)
        yield made


def test_its_jobs_show_what_there_is_to_see(composed: Fleet) -> None:
    composed.env["EMULATOR"] = composed.emulator

    done = composed.start("jobs", *SERVICES["jobs"]["command"])

    assert done.wait() == 0, done.output
    offered = [job.id for job in composed.aws.jobs()]
    assert len(offered) == 7
    ends = [ended(composed, job) for job in offered]
    assert ends == [
        "Succeeded: shop works",
        "Succeeded: blog works",
        "Succeeded: search works",
        "Succeeded: copied",
        "JobFailed: 2 of 40 tests failed",
        "Succeeded: All 3 steps are done.",
        "ConfigurationError: The action's configuration does not fit: "
        "Steps must be a whole number.",
    ]
    assert composed.aws.artifact(offered[3], "Copy") == b"hello"


def ended(composed: Fleet, job_id: str) -> str:
    job = composed.aws.wait_for(job_id, timeout=60)
    request: dict[str, Any] = composed.calls(job.id, "Put")[-1]["request"]
    if job.status == "Succeeded":
        return f"Succeeded: {request['executionDetails']['summary']}"
    return "{type}: {message}".format_map(request["failureDetails"])
