"""`dispatcher ...`: what an operator types. Errors are sentences, and exit codes are documented.

What a command needs is imported inside it, so that `--help` answers at once."""

# ruff: noqa: PLC0415

import sys
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from dispatcher.health import Answer
    from dispatcher.settings import Settings

WRONG_SETTINGS = 2


def seconds(text: str) -> timedelta:
    """A duration; decimals allowed. Whether it is long enough, its user says."""
    try:
        return timedelta(seconds=float(text))
    except (ValueError, OverflowError):
        raise click.BadParameter("give a number of seconds, such as 30 or 0.5") from None


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="codepipeline-dispatcher")
def main() -> None:
    """Takes AWS CodePipeline jobs of partner and custom actions to your workers."""


@main.command()
@click.option("--port", type=click.IntRange(0, 65535), required=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--ack-window",
    type=seconds,
    default="30",
    show_default=True,
    help="A job that nobody acknowledged for so long is offered again.",
)
@click.option(
    "--continuation-delay",
    type=seconds,
    default="30",
    show_default=True,
    help="A result with a continuation token makes the next job after so long.",
)
@click.option(
    "--job-timeout",
    type=seconds,
    default="3600",
    show_default=True,
    help="An acknowledged job without a result times out after so long.",
)
@click.option(
    "--batch-cap",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="One poll hands out so many jobs at most.",
)
@click.option(
    "--second-ack",
    type=click.Choice(["error", "status"]),
    default="error",
    show_default=True,
    help="A second acknowledgement, or a stale nonce, gets InvalidNonceException or the status.",
)
def emulator(port: int, host: str, second_ack: str, **assumed: Any) -> None:
    """Serve CodePipeline's job calls on this machine, until it is stopped.

    Durations are seconds, decimals allowed. AWS publishes none of these numbers: each option is an
    assumption that you can change. Point the workers at it by AWS_ENDPOINT_URL_CODEPIPELINE.
    """
    try:
        from dispatcher.emulator.machine import Options, SecondAck
        from dispatcher.emulator.server import serve
    except ModuleNotFoundError as error:
        _missing(error, "emulator")
    try:
        options = Options(second_ack=SecondAck(second_ack), **assumed)
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None
    serve(port=port, host=host, options=options)


@main.command()
def check() -> None:
    """Look at this installation, and say all that is wrong with it, with remedies.

    Settings, Redis (version, eviction), the broker, providers, regions and client tokens; AWS is
    not called. Exit status: 0 well, 1 a fault, 2 wrong settings.
    """
    from dispatcher.checks import examine

    report = examine()
    _say(report.found)
    _refuse(report.faults, report.exit_code)


@main.command()
def providers() -> None:
    """List the action types that this installation serves. Exit status 1: some cannot be used."""
    from dispatcher.checks import table
    from dispatcher.registry import ProviderError, load

    try:
        actions = load(_settings().providers)
    except ProviderError as error:
        _refuse(error.faults, 1)
    _say(table(actions))


@main.group()
def health() -> None:
    """Ask a running process whether it does its work. Exit status: 0 it does, 1 it does not."""


@health.command()
@click.option("--node", help="Its Celery name, as in -n; default celery@<this host>.")
def worker(node: str | None) -> None:
    """Does the worker answer, and consume at least one queue?"""
    from dispatcher.health import ask_worker

    _pass_on(ask_worker(_settings().broker, node))


@health.command()
@click.option("--node", help="Its Celery name, as in -n; default celerybeat@<this host>.")
def beat(node: str | None) -> None:
    """Does the beat answer? One whose clock stands still keeps silent."""
    from dispatcher.health import ask_beat

    _pass_on(ask_beat(_settings().broker, node))


@main.command()
@click.option("--jobs", type=click.IntRange(1), default=20, show_default=True, help="How many.")
@click.option("--exit", "leave", is_flag=True, help="End when all jobs are done.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object.")
def demo(*, jobs: int, leave: bool, as_json: bool) -> None:
    """See it run: Redis, an emulated CodePipeline, beat, workers and Flower on this machine.

    On a terminal everything stays up after the summary, until Ctrl-C.
    """
    from dispatcher.demo import run

    sys.exit(run(jobs=jobs, stay=not leave and sys.stdout.isatty(), as_json=as_json))


def _settings() -> "Settings":
    from dispatcher.settings import SettingsError, settings

    try:
        return settings()
    except SettingsError as error:
        _refuse(str(error).splitlines(), WRONG_SETTINGS)


def _pass_on(answer: "Answer") -> None:
    if not answer.well:
        _refuse([answer.text], 1)
    _say([answer.text])


def _missing(error: ModuleNotFoundError, extra: str) -> NoReturn:
    if (error.name or "").partition(".")[0] == "dispatcher":
        raise error
    _refuse([f"{error.name} is not installed; pip install 'codepipeline-dispatcher[{extra}]'."], 1)


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


def _refuse(faults: Iterable[str], exit_code: int) -> NoReturn:
    for fault in faults:
        click.echo(fault, err=True)
    sys.exit(exit_code)
