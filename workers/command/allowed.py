"""The operator's file, COMMAND_FILE: which commands there are, and what each may do.

The only way from a pipeline's name to a command line. No error shows a value of the file.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ByteSize, ConfigDict, Field, ValidationError

from dispatcher.sdk import ConfigurationError, FailureType

PRIVATE: Final = ("AWS_", "CELERY_", "DISPATCHER_")  # the worker's own variables


def _inner(path: str) -> str:
    if not path or path.startswith("/") or ".." in path.split("/"):
        raise ValueError("outside")
    return path


def _passable(name: str) -> str:
    if name.startswith(PRIVATE):
        raise ValueError("private")
    return name


Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
Inner = Annotated[Text, AfterValidator(_inner)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Size = Annotated[ByteSize, Field(ge=4096, le=2**50)]
Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]


class Allowed(BaseModel):
    """One table `[commands.NAME]`. Its descriptions are the errors' remedies, and the page's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Annotated[list[Text], Field(min_length=1)] = Field(
        description="the program and its arguments, a list of texts; no shell reads them"
    )
    directory: Inner = Field(".", description="the folder in the sources where it starts")
    outputs: list[Inner] = Field(
        [], description="files and folders below `directory`, one an output artifact, in order"
    )
    timeout: Seconds = Field(3600, gt=0, description="seconds that it may run, up to 86400")
    grace: Seconds = Field(
        10, description="seconds that it may run on when its worker is told to stop"
    )
    memory: Size | None = Field(
        None, description="address space of each of its processes, such as 2GiB"
    )
    file_size: Size = Field(
        ByteSize(5 * 2**30), description="the largest file it may write, such as 5GiB"
    )
    log_size: Size = Field(
        ByteSize(10 * 2**20), description="what is kept of its output, such as 10MiB"
    )
    show: int = Field(
        10, ge=0, le=50, description="last lines of the log in a failure's text, 0 to 50"
    )
    failures: dict[Annotated[int, Field(ge=1, le=255)], FailureType] = Field(
        {}, description=f"exit status, 1 to 255, to one of {', '.join(FailureType)}"
    )
    environment: dict[Name, Text] = Field(
        {}, repr=False, description="names to texts, fixed variables of its environment"
    )
    passed: list[Annotated[Name, AfterValidator(_passable)]] = Field(
        ["PATH", "LANG"],
        alias="pass",
        description="names of the worker's variables that it sees, none of "
        + ", ".join(f"{prefix}*" for prefix in PRIVATE),
    )


def allowed_command(name: str) -> Allowed:
    """The operator's table, read anew for each job; ConfigurationError says what to mend."""
    tables = _tables()
    if name not in tables:
        # Without the pipeline's text: nobody has checked it.
        raise ConfigurationError(
            "The action's key Command is none of the commands that this worker's operator allows: "
            f"{', '.join(sorted(tables)) or 'there are none'}."
        )
    try:
        return Allowed.model_validate(tables[name])
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False, include_context=False)
    # Raised out here, so that the first error, whose text may hold a value, is not its context.
    faults = dict.fromkeys(_fault(d["type"], d["loc"]) for d in details)
    raise ConfigurationError(f"COMMAND_FILE, table [commands.{name}]: {'; '.join(faults)}.")


def _tables() -> Mapping[str, Any]:
    path = os.environ.get("COMMAND_FILE")
    if not path:
        raise ConfigurationError(
            "This worker allows no command: its operator must name a TOML file with a table "
            "[commands.NAME] for each in COMMAND_FILE."
        )
    try:
        found = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        fault = f"cannot be read ({error.strerror}); the worker's operator must mend that"
    except ValueError as error:  # its text may quote the file
        place = re.search(r"at line \d+, column \d+", str(error))
        fault = f"is no TOML ({place[0] if place else 'not UTF-8'}); its operator must mend it"
    else:
        commands = found.get("commands")
        if found.keys() == {"commands"} and isinstance(commands, dict):
            return commands
        fault = "must hold tables [commands.NAME] and nothing else"
    raise ConfigurationError(f"COMMAND_FILE {fault}.")


def _fault(kind: str, place: tuple[int | str, ...]) -> str:
    remedies = {info.alias or name: info.description for name, info in Allowed.model_fields.items()}
    if not place:
        return "it is no table; give at least run"
    if kind == "extra_forbidden":
        return f"there is no field {place[0]}; the fields are {', '.join(remedies)}"
    named = ".".join(map(str, place[:2]))
    fault = "is missing" if kind == "missing" else "does not fit"
    return f"{named} {fault}, give {remedies[str(place[0])]}"
