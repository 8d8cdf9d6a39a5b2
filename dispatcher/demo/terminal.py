"""What a second terminal needs to join the demo: its environment, jobs to submit, lines to type.

Both files are their owner's alone: they hold the Redis's password and a client's token."""

import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from dispatcher.demo.parts import ENVIRONMENT, FOREIGN, JOBS, write_for_owner
from dispatcher.demo.scenario import ECHO, TENANTS

AT_ONCE = 20  # jobs
FORGET = f"for name in $(env | grep -oE '^({'|'.join(FOREIGN)})[A-Z0-9_]*'); do unset $name; done"


def invite(
    folder: Path,
    place: Path,
    env: Mapping[str, str],
    given: Mapping[str, str],
    tokens: Mapping[str, str],
) -> str:
    """Writes the files, and answers the lines. `env` is the fleet's, `given` the user's own."""
    environment, jobs = folder / ENVIRONMENT, folder / JOBS
    write_for_owner(environment, _exports(env, given))
    write_for_owner(jobs, _jobs(tokens))
    return f"""
In another terminal:
    cd {shlex.quote(str(place))} && . {shlex.quote(str(environment))}
    dispatcher jobs --state failed  # why: dispatcher jobs show ID
    dispatcher pause Echo           # AWS keeps its jobs, until: dispatcher resume Echo
    curl -d @{shlex.quote(str(jobs))} $AWS_ENDPOINT_URL_CODEPIPELINE/_admin/jobs
    celery -A dispatcher worker -P threads -c 16 -Q provider.Echo -n more@%h  # another -n for each
"""


def _exports(env: Mapping[str, str], given: Mapping[str, str]) -> str:
    """In place of the user's own of those names; and this Python's commands first."""
    ours = {
        name: value
        for name, value in env.items()
        if name.startswith(FOREIGN) or given.get(name) != value
    }
    ours["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), env.get("PATH", os.defpath)))
    exports = [f"export {name}={shlex.quote(value)}" for name, value in sorted(ours.items())]
    return "\n".join((FORGET, *exports, ""))


def _jobs(tokens: Mapping[str, str]) -> str:
    tenant = TENANTS[0]
    return json.dumps({
        "actionTypeId": asdict(ECHO),
        "clientId": tenant,
        "clientToken": tokens[tenant],
        "configuration": {"Message": "submitted by hand"},
        "count": AT_ONCE,
    })  # fmt: skip
