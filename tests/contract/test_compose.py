"""docker-compose.yml, without Docker: it keeps to the specification, and its commands exist."""

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from compose_spec import PyCompose

from dispatcher.broker import QUEUE
from dispatcher.cli import main
from dispatcher.registry import load

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = PyCompose.from_yaml(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE.to_dict()["services"]
OURS = sorted(SERVICES.keys() - {"redis"})
PROBES = [
    name for name in OURS if SERVICES[name]["healthcheck"]["test"][:2] == ["CMD", "dispatcher"]
]


def option(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def follow(group: click.Command, arguments: list[str]) -> None:
    """Raises click's UsageError where a command, option or value does not exist. Runs nothing."""
    while isinstance(group, click.Group):
        name, *arguments = arguments
        found = group.get_command(click.Context(group), name)
        assert found is not None, f"no command {name}"
        group = found
    with group.make_context(group.name, arguments):
        pass


def test_the_file_keeps_to_the_specification() -> None:
    COMPOSE.validate()
    COMPOSE.to_spec()

    assert set(SERVICES) == {"redis", "emulator", "beat", "worker", "provider-worker", "flower"}


@pytest.mark.parametrize("name", OURS)
def test_each_command_exists_with_its_options(name: str) -> None:
    program, *arguments = SERVICES[name]["command"]

    if program == "dispatcher":
        follow(main, arguments)
    else:
        assert [program, *arguments[:2]] == ["celery", "-A", "dispatcher"]
        follow_celery(arguments[2:])


def follow_celery(arguments: list[str]) -> None:
    from celery.bin.celery import celery

    name, *options = arguments
    command = celery.commands[name]
    if name == "flower":
        follow_flower(options)
        return
    with click.Context(command) as context:
        _, extra, _ = command.make_parser(context).parse_args(options)
    assert not extra


def follow_flower(options: list[str]) -> None:
    from flower.options import default_options

    for written in options:
        name = written.removeprefix("--").partition("=")[0].replace("-", "_")
        assert name in default_options, f"Flower has no option {name}"


@pytest.mark.parametrize("name", PROBES)
def test_each_health_command_exists(name: str) -> None:
    follow(main, SERVICES[name]["healthcheck"]["test"][2:])


def test_the_workers_serve_every_queue_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    environment = SERVICES["provider-worker"]["environment"]
    loaded = load(environment["DISPATCHER_PROVIDERS"].split(","))

    polls = option(SERVICES["worker"]["command"], "-Q")
    jobs = option(SERVICES["provider-worker"]["command"], "-Q")
    assert polls == QUEUE
    assert set(jobs.split(",")) == {action.spec.type.queue for action in loaded}


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


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_has_a_health_check_and_comes_back(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", OURS)
def test_each_service_waits_until_what_it_needs_is_healthy(name: str) -> None:
    needs = SERVICES[name].get("depends_on", {})

    assert ("redis" in needs) == (name != "emulator")
    assert all(need == {"condition": "service_healthy"} for need in needs.values())


@pytest.mark.parametrize("name", ["worker", "provider-worker"])
def test_a_worker_gets_the_time_that_its_shutdown_takes(name: str) -> None:
    from dispatcher.settings import read

    grace = SERVICES[name]["stop_grace_period"]

    assert float(grace.removesuffix("s")) > read({}).shutdown_grace
    assert SERVICES[name]["init"]


@pytest.mark.parametrize("name", ["beat", "flower", "emulator"])
def test_only_workers_know_clients_and_call_aws(name: str) -> None:
    names = SERVICES[name].get("environment", {}).keys()

    assert not [one for one in names if one.startswith("AWS_") or "TOKEN" in one]


def test_the_workers_environment_is_right() -> None:
    from dispatcher.settings import read

    environment = SERVICES["worker"]["environment"]
    found = read(environment)

    assert environment == SERVICES["provider-worker"]["environment"]
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
