"""`dispatcher emulator`: its options, one for each assumption, and its help.

Loads the server when it is run, so that other commands' help answers at once."""

# ruff: noqa: PLC0415

import sys
from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from typing import Any, NoReturn, get_args

import click

from dispatcher.emulator.options import KINDS, MEANINGS, Options

EPILOG = """\b
Beside AWS's calls it has some of its own, JSON over HTTP:
  POST   /_admin/jobs                 make jobs, and with them their action type
  GET    /_admin/jobs[?id=]           what became of them
  POST   /_admin/jobs/ID/abandon      or /time-out: end one
  POST   /_admin/action-types         declare one, with its queryable property
  GET    /_admin/log                  all job calls, secrets masked
  GET    /_admin/s3                   all calls to S3, and under which job's keys
  PUT, GET /_admin/objects/BUCKET/KEY an artifact, to give to a job or to look at
  POST   /_admin/faults               errors, outages, dropped connections, ...
  GET, DELETE /_admin/faults[?id=]    which there are, and to end them
  POST   /_admin/release              let calls that a fault holds go on
  POST   /_admin/clock                {"offset": seconds} of AWS's clock
  POST   /_admin/reset                forget all; {"ackWindow": 5} sets options

\b
Kinds of faults: error, unavailable, throttle, expired-credentials, drop-before,
  drop-after, truncate, delay, hold, duplicate-offer, stale-nonce,
  foreign-acknowledge, abandon, time-out

\b
Example:
  dispatcher emulator --port 8765 --ack-window 5 &
  curl --retry 9 --retry-connrefused -d '{"actionTypeId": {"category": "Test", "owner": "Custom",
    "provider": "X", "version": "1"}, "configuration": {"Key": "value"}}' \\
    http://127.0.0.1:8765/_admin/jobs
  curl -d '{"kind": "throttle", "operation": "PollForJobs", "count": 3}' \\
    http://127.0.0.1:8765/_admin/faults

dispatcher/docs/emulator.md says all of it at length. In Python tests use the pytest fixture
codepipeline_emulator.
"""


def seconds(text: str) -> timedelta:
    """A duration; decimals allowed. Whether it is long enough, its user says."""
    try:
        return timedelta(seconds=float(text))
    except (ValueError, OverflowError):
        raise click.BadParameter("give a number of seconds, such as 30 or 0.5") from None


def assumptions(command: Callable[..., None]) -> Callable[..., None]:
    """An option for each number, and each reading, that AWS leaves open."""
    types = {timedelta: seconds, int: click.IntRange(1), float: click.FloatRange(0), str: str}
    for part in reversed(fields(Options)):
        kind = KINDS[part.name]
        default = part.default
        if isinstance(default, timedelta):
            default = f"{default.total_seconds():g}"
        option = click.option(
            f"--{part.name.replace('_', '-')}",
            type=types.get(kind) or click.Choice(get_args(kind)),
            default=default,
            show_default=default is not None,
            help=MEANINGS[part.name],
        )
        command = option(command)
    return command


@click.command(epilog=EPILOG)
@click.option("--port", type=click.IntRange(0, 65535), required=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--until-eof", is_flag=True, help="End too when standard input closes.")
@assumptions
def emulator(*, port: int, host: str, until_eof: bool, **assumed: Any) -> None:
    """Serve CodePipeline's job calls on this machine, until it is stopped.

    S3, STS, KMS, Secrets Manager and more of AWS answer at the same address; they are moto's. All
    is kept in memory. Point clients at it by AWS_ENDPOINT_URL, with any access key.

    AWS publishes none of what the options from --ack-window on say: each is an assumption that you
    can change, to see what your worker does if AWS does otherwise. Durations are seconds, decimals
    allowed; errors are names such as ValidationException.
    """
    try:
        from dispatcher.emulator.server import serve
    except ModuleNotFoundError as error:
        _missing(error)
    try:
        options = Options(**assumed)
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None
    serve(port=port, host=host, options=options, until_eof=until_eof)


def _missing(error: ModuleNotFoundError) -> NoReturn:
    if (error.name or "").partition(".")[0] == "dispatcher":
        raise error
    extra = "pip install 'codepipeline-dispatcher[emulator]'"
    click.echo(f"{error.name} is not installed; {extra}.", err=True)
    sys.exit(1)
