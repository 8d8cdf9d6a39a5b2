"""What a provider module imports: the action mark, its Job, outcomes, failures, configuration keys.

Knows the limits that CodePipeline's API reference gives for each value; knows no broker, store or
AWS client, and reads no environment.
"""

import inspect
import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, Literal, Protocol, TypeVar, get_args, overload

from pydantic import BaseModel, SecretStr

__all__ = [
    "ActionSpec",
    "ActionType",
    "ConfigurationError",
    "Continue",
    "Control",
    "Failure",
    "FailureType",
    "Job",
    "JobFailed",
    "Key",
    "OnCrash",
    "Outcome",
    "Owner",
    "PermissionDenied",
    "Pipeline",
    "Retry",
    "Revision",
    "RevisionOutOfSync",
    "RevisionUnavailable",
    "Secret",
    "Succeeded",
    "SystemUnavailable",
    "action",
    "spec_of",
]

Secret = SecretStr  # a text that repr, str and logs show as stars; read with get_secret_value()
Category = Literal["Source", "Build", "Deploy", "Test", "Invoke", "Approval", "Compute"]
ConfigT = TypeVar("ConfigT")

_ConfigType = type[Any]
_ErrorTypes = tuple[type[Exception], ...]
_NAME: Final = re.compile(r"[0-9A-Za-z_-]+")  # ActionProvider and Version
_VARIABLE: Final = re.compile(r"[A-Za-z0-9@\-_]+")  # OutputVariablesKey
_VARIABLES_BYTES: Final = 122_880  # CodePipeline quotas: all output variables of one action
_SUMMARY: Final = 2_048
_MESSAGE: Final = 5_000
_NO_MESSAGE: Final = "The action failed and gave no message."
_SPEC: Final = "__dispatcher_action__"


# Values from the author, checked where they are written


def _text(name: str, value: object, longest: int) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}.")
    if not 1 <= len(value) <= longest:
        raise ValueError(f"{name} has {len(value)} characters; give 1 to {longest}.")


def _cut(name: str, value: object, longest: int) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}.")
    return value if len(value) <= longest else value[: longest - 1] + "…"


def _external_id(value: object) -> None:
    if value is not None:
        _text("external_id", value, 1_500)


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}.")
    return value


def _percent(value: object) -> None:
    if value is not None and not 0 <= _whole("percent", value) <= 100:
        raise ValueError(f"percent is {value}; give 0 to 100, or None.")


def _duration(name: str, value: object, *, zero: bool) -> None:
    if not isinstance(value, timedelta):
        raise TypeError(f"{name} must be a timedelta, not {type(value).__name__}.")
    if value < timedelta(0) or (not zero and not value):
        raise ValueError(f"{name} is {value}; give a time {'of 0 or more' if zero else 'above 0'}.")


def _name(name: str, value: object, longest: int) -> None:
    _text(name, value, longest)
    if not _NAME.fullmatch(str(value)):
        raise ValueError(f"{name} is {value!r}; use letters, digits, '_' and '-' alone.")


def _one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; give one of {', '.join(choices)}.")


# What an action is


class Owner(StrEnum):
    """Whose action type it is: a partner's for every account, or one account's own."""

    THIRD_PARTY = "ThirdParty"
    CUSTOM = "Custom"


class OnCrash(StrEnum):
    """What becomes of a job whose process died inside the handler."""

    FAIL = "fail"
    RERUN = "rerun"


@dataclass(frozen=True, slots=True)
class ActionType:
    """AWS's ActionTypeId; limits as in the API reference.

    Raises ValueError or TypeError for what AWS would refuse.
    """

    category: str
    owner: Owner
    provider: str
    version: str

    def __post_init__(self) -> None:
        _one_of("category", self.category, get_args(Category))
        _one_of("owner", self.owner, tuple(Owner))
        _name("provider", self.provider, 35)
        _name("version", self.version, 9)
        object.__setattr__(self, "owner", Owner(self.owner))

    @property
    def task_name(self) -> str:
        """`<Owner>.<Category>.<Provider>.<version>`, the Celery task of this action."""
        return f"{self.owner}.{self.category}.{self.provider}.{self.version}"

    @property
    def queue(self) -> str:
        """`provider.<Provider>`, shared by all its categories, owners and versions."""
        return f"provider.{self.provider}"


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """What `action` was told; attached to the function, read with `spec_of`."""

    type: ActionType
    config: _ConfigType | None = None
    on_crash: OnCrash = OnCrash.FAIL
    retry_on: _ErrorTypes = ()
    max_attempts: int = 3
    time_limit: timedelta = timedelta(hours=1)

    def __post_init__(self) -> None:
        _check_config(self.config)
        _one_of("on_crash", self.on_crash, tuple(OnCrash))
        object.__setattr__(self, "on_crash", OnCrash(self.on_crash))
        _check_retry_on(self.retry_on)
        if _whole("max_attempts", self.max_attempts) < 1:
            raise ValueError(f"max_attempts is {self.max_attempts}; give 1 or more.")
        _duration("time_limit", self.time_limit, zero=False)


def _check_config(config: object) -> None:
    if config is None:
        return
    usable = isinstance(config, type) and (_is_frozen(config) or issubclass(config, BaseModel))
    if not usable:
        raise TypeError(f"config is {config!r}; give a frozen dataclass or a pydantic model class.")


def _is_frozen(config: Any) -> bool:
    parameters = getattr(config, "__dataclass_params__", None)
    return parameters is not None and bool(parameters.frozen)


def _check_retry_on(errors: Any) -> None:
    known = isinstance(errors, tuple) and all(
        isinstance(error, type) and issubclass(error, Exception) for error in errors
    )
    if not known:
        raise TypeError(f"retry_on is {errors!r}; give a tuple of Exception classes.")
    told = [error.__name__ for error in errors if issubclass(error, Failure | Retry)]
    if told:
        raise ValueError(
            f"retry_on names {', '.join(told)}, which end a run by themselves; raise Retry instead."
        )


@dataclass(frozen=True, slots=True)
class Key:
    """Names a field's configuration key and AWS's property of it: `Annotated[str, Key("AppURL")]`.

    Without a name the key follows from the field (`api_key`: `ApiKey`). `required` follows from
    the field's default and `secret` from its type `Secret`; say them only to be explicit.
    `key` and `queryable` are AWS's flags of the same names; a queryable property must be required
    and not secret (API reference, ActionConfigurationProperty). Name 1..50, description 1..160
    characters. Raises ValueError or TypeError.
    """

    name: str | None = None
    description: str | None = None
    required: bool | None = None
    secret: bool | None = None
    key: bool = False
    queryable: bool = False

    def __post_init__(self) -> None:
        if self.name is not None:
            _text("Key's name", self.name, 50)
        if self.description is not None:
            _text("Key's description", self.description, 160)
        if self.queryable and (self.secret or self.required is False):
            raise ValueError("A queryable key must be required and not secret; drop one flag.")


# What a handler is given


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Where the job comes from. The ARN and execution id are None for third-party actions."""

    name: str
    stage: str
    action: str
    arn: str | None = None
    execution_id: str | None = None
    action_execution_id: str | None = None


class Control(Protocol):
    """How a running job reaches whoever runs it: the engine, or `dispatcher.testing`."""

    def stopping(self) -> bool:
        """Whether the handler should return soon."""

    def wait(self, seconds: float) -> bool:
        """Sleep that long, or until stopping; answer whether it is stopping."""

    def progress(self, percent: int | None, note: str) -> None:
        """Make progress known."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job(Generic[ConfigT]):
    """One CodePipeline job, as its handler sees it; read-only.

    `id` is the idempotency key to hand to the outside system: delivery is at least once.
    `client_id` is None for custom actions. `attempt` is 1 at the first start and grows by one a
    start. `continuation` is the token that an earlier job of this action returned. `deadline` is
    an aware instant. `workdir` is removed after the handler returns.
    """

    id: str
    config: ConfigT = field(repr=False)
    client_id: str | None
    action: ActionType
    pipeline: Pipeline
    continuation: str | None = field(default=None, repr=False)
    attempt: int = 1
    deadline: datetime
    workdir: Path
    log: logging.LoggerAdapter[Any] | logging.Logger = field(repr=False)
    control: Control = field(repr=False)

    @property
    def stopping(self) -> bool:
        """True when the handler should return: shutdown, lost lease or deadline."""
        return self.control.stopping()

    def wait(self, seconds: float | timedelta) -> bool:
        """Sleep, but not past a stop; True when the job should stop. Below 0 counts as 0."""
        if isinstance(seconds, timedelta):
            seconds = seconds.total_seconds()
        if not math.isfinite(seconds):
            raise ValueError(f"seconds is {seconds}; give a finite time.")
        return self.control.wait(max(0.0, seconds))

    def progress(self, percent: int | None = None, note: str = "") -> None:
        """Tell operators how far it is: percent 0..100; the note is cut to 2048 characters."""
        _percent(percent)
        self.control.progress(percent, _cut("note", note, _SUMMARY))


# What a handler returns


@dataclass(frozen=True, slots=True)
class Revision:
    """AWS's CurrentRevision: revision 1..1500, change_identifier 1..100 characters.

    `created` is an aware instant; the summary, when given, is not empty and is cut to 2048.
    """

    revision: str
    change_identifier: str
    created: datetime | None = None
    summary: str | None = None

    def __post_init__(self) -> None:
        _text("revision", self.revision, 1_500)
        _text("change_identifier", self.change_identifier, 100)
        _check_created(self.created)
        if self.summary is not None:
            object.__setattr__(self, "summary", _cut("summary", self.summary, _SUMMARY))
            _text("summary", self.summary, _SUMMARY)


def _check_created(created: object) -> None:
    if created is None:
        return
    if not isinstance(created, datetime):
        raise TypeError(f"created must be a datetime, not {type(created).__name__}.")
    if created.utcoffset() is None:
        raise ValueError("created has no time zone; give an aware datetime, as datetime.now(UTC).")


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The action succeeded. The summary is cut to 2048 characters, external_id has 1..1500.

    `variables` are output variables of a custom action: keys of letters, digits, `@`, `-`, `_`,
    122,880 bytes in all. AWS has no place for those of a third-party action.
    """

    summary: str = ""
    external_id: str | None = None
    revision: Revision | None = None
    variables: Mapping[str, str] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "summary", _cut("summary", self.summary, _SUMMARY))
        _external_id(self.external_id)
        if self.revision is not None and not isinstance(self.revision, Revision):
            raise TypeError(f"revision must be a Revision, not {type(self.revision).__name__}.")
        if self.variables is not None:
            object.__setattr__(self, "variables", _variables(self.variables))


def _variables(given: object) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise TypeError(f"variables must be a mapping, not {type(given).__name__}.")
    for key, value in given.items():
        if not isinstance(key, str) or not _VARIABLE.fullmatch(key):
            raise ValueError(f"variables has the key {key!r}; use letters, digits, '@', '-', '_'.")
        if not isinstance(value, str):
            raise TypeError(f"variables[{key!r}] must be a str, not {type(value).__name__}.")
    size = sum(len(text.encode()) for pair in given.items() for text in pair)
    if size > _VARIABLES_BYTES:
        raise ValueError(f"variables has {size} bytes; give at most {_VARIABLES_BYTES}.")
    return dict(given)


@dataclass(frozen=True, slots=True)
class Continue:
    """Not done yet: AWS offers a new job with this token (1..2048 characters) later on.

    The token must carry, or point to, all that the next job needs; another worker may get it.
    """

    token: str = field(repr=False)
    percent: int | None = None
    summary: str = ""
    external_id: str | None = None

    def __post_init__(self) -> None:
        _text("token", self.token, 2_048)
        _percent(self.percent)
        object.__setattr__(self, "summary", _cut("summary", self.summary, _SUMMARY))
        _external_id(self.external_id)


Outcome = Succeeded | Continue


# What a handler raises:
#
#   Failure                  one of AWS's FailureTypes
#   ├── JobFailed
#   ├── ConfigurationError
#   ├── PermissionDenied
#   ├── RevisionOutOfSync
#   ├── RevisionUnavailable
#   └── SystemUnavailable
#   Retry                    this job again, later


class FailureType(StrEnum):
    """AWS's words for why a job failed (API reference, FailureDetails)."""

    JOB_FAILED = "JobFailed"
    CONFIGURATION_ERROR = "ConfigurationError"
    PERMISSION_ERROR = "PermissionError"
    REVISION_OUT_OF_SYNC = "RevisionOutOfSync"
    REVISION_UNAVAILABLE = "RevisionUnavailable"
    SYSTEM_UNAVAILABLE = "SystemUnavailable"


class Failure(Exception):
    """The job failed; the message is shown in the pipeline and cut to 5000 characters."""

    type: ClassVar[FailureType] = FailureType.JOB_FAILED

    def __init__(self, message: str, external_id: str | None = None) -> None:
        """An empty message gets a text; external_id has 1..1500 characters."""
        self.message = _cut("message", message, _MESSAGE)
        if not self.message.strip():
            self.message = _NO_MESSAGE
        _external_id(external_id)
        self.external_id = external_id
        super().__init__(self.message)


class JobFailed(Failure):
    """The work itself failed."""


class ConfigurationError(Failure):
    """The action's configuration is wrong; its owner must change the pipeline."""

    type = FailureType.CONFIGURATION_ERROR


class PermissionDenied(Failure):
    """The outside system refused access."""

    type = FailureType.PERMISSION_ERROR


class RevisionOutOfSync(Failure):
    """The revision is not the one that was expected."""

    type = FailureType.REVISION_OUT_OF_SYNC


class RevisionUnavailable(Failure):
    """The revision cannot be had."""

    type = FailureType.REVISION_UNAVAILABLE


class SystemUnavailable(Failure):
    """The outside system does not answer."""

    type = FailureType.SYSTEM_UNAVAILABLE


class Retry(Exception):
    """This job again, `after` that time, doubled with each retry; at most `max_attempts` runs."""

    AFTER: ClassVar[timedelta] = timedelta(seconds=10)

    def __init__(self, after: timedelta = AFTER) -> None:
        """Raises ValueError for a negative time."""
        _duration("after", after, zero=True)
        self.after = after
        super().__init__(after)


# The mark

_Handler = Callable[[Job[ConfigT]], Outcome]


@overload
def action(
    category: Category,
    provider: str,
    *,
    version: str,
    owner: Literal["ThirdParty", "Custom"] = ...,
    config: None = ...,
    on_crash: Literal["fail", "rerun"] = ...,
    retry_on: _ErrorTypes = ...,
    max_attempts: int = ...,
    time_limit: timedelta = ...,
) -> Callable[[_Handler[None]], _Handler[None]]: ...


@overload
def action(
    category: Category,
    provider: str,
    *,
    version: str,
    owner: Literal["ThirdParty", "Custom"] = ...,
    config: type[ConfigT],
    on_crash: Literal["fail", "rerun"] = ...,
    retry_on: _ErrorTypes = ...,
    max_attempts: int = ...,
    time_limit: timedelta = ...,
) -> Callable[[_Handler[ConfigT]], _Handler[ConfigT]]: ...


def action(
    category: str,
    provider: str,
    *,
    version: str,
    owner: str = "ThirdParty",
    config: _ConfigType | None = None,
    on_crash: str = "fail",
    retry_on: _ErrorTypes = (),
    max_attempts: int = 3,
    time_limit: timedelta = timedelta(hours=1),
) -> Callable[[_Handler[Any]], _Handler[Any]]:
    """Mark a function as the handler of one action type; it comes back unchanged.

    `config` is a frozen dataclass or a pydantic model. `on_crash` says what becomes of a job whose
    process died in the handler: "fail" it, or "rerun" it, at most three starts. `max_attempts`
    counts the runs that `Retry` and the exceptions in `retry_on` may use. After `time_limit` the
    job is reported as timed out. Raises ValueError or TypeError for wrong values.
    """
    _one_of("owner", owner, tuple(Owner))
    _one_of("on_crash", on_crash, tuple(OnCrash))
    spec = ActionSpec(
        type=ActionType(category, Owner(owner), provider, version),
        config=config,
        on_crash=OnCrash(on_crash),
        retry_on=retry_on,
        max_attempts=max_attempts,
        time_limit=time_limit,
    )

    def attach(function: _Handler[Any]) -> _Handler[Any]:
        _check_handler(function)
        setattr(function, _SPEC, spec)
        return function

    return attach


def spec_of(function: object) -> ActionSpec | None:
    """The spec that `action` attached, or None."""
    spec = getattr(function, _SPEC, None)
    return spec if isinstance(spec, ActionSpec) else None


def _check_handler(function: object) -> None:
    if not inspect.isfunction(function):
        raise TypeError(f"action marks a function; {function!r} is none.")
    name = function.__qualname__
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{name} is async; write it as a plain function (def).")
    if inspect.isgeneratorfunction(function):
        raise TypeError(f"{name} yields; write a function that returns its outcome.")
    if spec_of(function) is not None:
        raise ValueError(f"{name} is an action already; write one function per action type.")
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        raise TypeError(f"{name} must take one argument, the job.") from None
