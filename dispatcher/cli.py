"""`dispatcher ...`: what an operator types. Errors are sentences, and exit codes are documented.

What a command needs is imported inside it, so that `--help` answers at once."""

# ruff: noqa: PLC0415

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from dispatcher.emulator.command import emulator

if TYPE_CHECKING:
    from dispatcher.declaration import Count
    from dispatcher.health import Answer
    from dispatcher.operate import Operator
    from dispatcher.settings import Settings

WRONG_SETTINGS = 2
STATES = ("waiting", "running", "retry", "finished", "reported", "dead", "damaged", "failed")
OWNERS = ("ThirdParty", "Custom")
CATEGORIES = ("Source", "Build", "Deploy", "Test", "Invoke", "Approval", "Compute")
ACCOUNT = "Account whose workers may poll a third-party action type; repeat it for more."


def artifacts(text: str) -> "Count":
    """How many: 0-5. Whether AWS allows so many, `declare` says."""
    from dispatcher.declaration import Count

    least, dash, most = text.partition("-")
    try:
        return Count(int(least), int(most if dash else least))
    except ValueError:
        raise click.BadParameter("give the least and the most, as in 0-5") from None


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="codepipeline-dispatcher")
def main() -> None:
    """Takes AWS CodePipeline jobs of partner and custom actions to your workers."""


main.add_command(emulator)


@main.command()
@click.option("--strict", is_flag=True, help="Exit 1 for a warning too, as a gate of deploys.")
@click.option("--offline", is_flag=True, help="Do not ask AWS.")
def check(*, strict: bool, offline: bool) -> None:
    """Look at this installation, and say all that is wrong with it, with remedies.

    Settings, Redis (version, eviction, append-only file, clock), the broker, providers, regions,
    client tokens. AWS is asked who these credentials are, and for one job of each action type in
    each region, unless its provider is paused: that there is leave to poll, no other call tells. A
    job that comes of it is left alone, and AWS offers it again, up to 30 seconds later.

    A fault stops a worker, or only you can mend it. A warning costs safety, or may pass by itself.
    Exit status: 0 well, 1 a fault, 2 wrong settings.
    """
    from dispatcher.checks import examine

    report = examine(offline=offline)
    _say(report.found)
    warnings = [f"Warning: {text}" for text in report.warnings]
    exit_code = report.exit_code or int(strict and bool(warnings))
    _refuse([*report.faults, *warnings], exit_code)


@main.command()
def providers() -> None:
    """List the action types that this installation serves.

    What cannot be used follows on standard error. Exit status: 0, or 1 if there is any of that.
    """
    from dispatcher.checks import table
    from dispatcher.registry import survey

    found = survey(_settings().providers)
    _say(table(found.actions))
    _refuse(found.faults, 1 if found.faults else 0)


@main.command("action-type")
@click.argument("name")
@click.option("--inputs", type=artifacts, metavar="MIN-MAX", help="Input artifacts; default 0-5.")
@click.option("--outputs", type=artifacts, metavar="MIN-MAX", help="Output artifacts; default 0-5.")
@click.option("--account", "accounts", multiple=True, metavar="ID", help=ACCOUNT)
def action_type(
    *, name: str, inputs: "Count | None", outputs: "Count | None", accounts: tuple[str, ...]
) -> None:
    """Print the JSON that declares a provider's action type to AWS.

    NAME is a provider, or a whole task name where several action types have that provider. What
    AWS asks the customer for follows from the handler's configuration class. For a custom action it
    is the input of `aws codepipeline create-custom-action-type --cli-input-json file://FILE`, for a
    third-party one of `update-action-type`. Add the settings that a handler knows nothing of, such
    as URLs. Exit status: 0, or 1 for a name that is not known, or for what AWS would refuse.
    """
    from dispatcher.declaration import DeclarationError, Wishes, declare
    from dispatcher.registry import ProviderError, survey

    try:
        action = survey(_settings().providers).named(name)
        declared = declare(action.spec, Wishes(inputs, outputs, accounts))
    except (ProviderError, DeclarationError) as error:
        _refuse(error.faults, 1)
    _say([json.dumps(declared.body, indent=2)])
    _refuse(declared.notes, 0)


@main.command("new-provider")
@click.argument("name")
@click.option("--owner", type=click.Choice(OWNERS), default=OWNERS[0], show_default=True)
@click.option("--category", type=click.Choice(CATEGORIES), default="Deploy", show_default=True)
def new_provider(*, name: str, owner: str, category: str) -> None:
    """Write a provider module to start from, and its test, below this folder.

    NAME, such as acme-deploy or AcmeDeploy, gives workers/acme_deploy.py, tests/test_acme_deploy.py
    and the provider AcmeDeploy. Nothing is replaced. Exit status: 0, or 1 if nothing was written.
    """
    from dispatcher.scaffold import ScaffoldError, new_provider

    try:
        made = new_provider(name, owner, category, Path.cwd())
    except ScaffoldError as error:
        _refuse([str(error)], 1)
    _say(made.told())


@main.group(invoke_without_command=True)
@click.option("--state", type=click.Choice(STATES), help="Only those in this state.")
@click.option("--provider", help="Only those of this provider.")
@click.option("--client", help="Only those of this client.")
@click.option("--job", metavar="START", help="Only those whose id begins so.")
@click.option("--text", help="Only those that have this somewhere, as a message does.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a job.")
@click.pass_context
def jobs(context: click.Context, /, *, as_json: bool, **wanted: str | None) -> None:
    """List the jobs that the ledger knows. Exit status: 0, or 1 when Redis does not answer.

    Reported ones for an hour; with --state reported or failed the last 10,000, for 7 days.
    """
    if context.invoked_subcommand is not None:
        return
    from dispatcher.operate import table
    from dispatcher.store.records import Wanted

    with _operator() as operator:
        found = operator.jobs(Wanted(**{name: text for name, text in wanted.items() if text}))
    _say([json.dumps(one.shown()) for one in found] if as_json else table(found))


@jobs.command()
@click.argument("job_id", metavar="ID")
def show(job_id: str) -> None:
    """Show a job, and its life step by step. Exit status 1: there is no such job."""
    with _operator() as operator:
        _say(operator.show(job_id))


@jobs.command()
@click.argument("job_id", metavar="ID")
def resend(job_id: str) -> None:
    """Have the result of a dead letter put to AWS once more. Exit status 1: it has none."""
    with _operator() as operator:
        _say([operator.resend(job_id)])


@jobs.command()
@click.argument("job_id", metavar="ID")
def release(job_id: str) -> None:
    """End a job's wait: for its Retry, or for the look that follows a dead worker's lease.

    What a living worker holds is not taken from it. Exit status 1: there is nothing to end.
    """
    with _operator() as operator:
        _say([operator.release(job_id)])


@jobs.command()
@click.argument("job_id", metavar="ID")
@click.option("--reason", default="", help="Shown in the pipeline.")
def fail(job_id: str, reason: str) -> None:
    """End an acknowledged job as JobFailed, also one that runs or that AWS refused a result of.

    A handler that runs it is told to stop. Exit status 1: it has ended, or nobody acknowledged it.
    """
    with _operator() as operator:
        _say([operator.fail(job_id, reason)])


@main.command()
@click.argument("provider")
def pause(provider: str) -> None:
    """Poll no more jobs of PROVIDER, whatever their owner, version and region; AWS keeps them.

    Jobs that run go on, and the pause outlasts every restart. Exit status 1: no such provider.
    """
    with _operator() as operator:
        _say([operator.pause(provider, _providers())])


@main.command()
@click.argument("provider")
def resume(provider: str) -> None:
    """Poll jobs of PROVIDER again. Exit status 1: it is not paused."""
    with _operator() as operator:
        _say([operator.resume(provider)])


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a provider.")
def workers(*, as_json: bool) -> None:
    """List the providers, with their workers, slots, running jobs, and which are paused."""
    from dispatcher.operate import crew_table

    with _operator() as operator:
        found = operator.crews(_providers())
    _say(map(json.dumps, found) if as_json else crew_table(found))


@main.command()
def audit() -> None:
    """List what operators did, and when, newest first."""
    with _operator() as operator:
        _say(operator.audit())


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


@contextmanager
def _operator() -> "Iterator[Operator]":
    from dispatcher.operate import Operator, OperatorError

    try:
        yield Operator(_settings())
    except OperatorError as error:
        _refuse([str(error)], 1)


def _providers() -> set[str]:
    """Those that are loaded here; an operator's machine may have none."""
    from dispatcher.registry import survey

    return {action.spec.type.provider for action in survey(_settings().providers).actions}


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


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


def _refuse(faults: Iterable[str], exit_code: int) -> NoReturn:
    for fault in faults:
        click.echo(fault, err=True)
    sys.exit(exit_code)
