"""The mark that makes a function the handler of an action type, and what it was told."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, overload

from pydantic import BaseModel

from dispatcher.sdk.actions import ActionType, Category, OnCrash, Owner
from dispatcher.sdk.checks import check_duration, check_one_of, whole
from dispatcher.sdk.failures import Failure, Retry
from dispatcher.sdk.jobs import ConfigT, Job
from dispatcher.sdk.outcomes import Outcome

_ConfigType = type[Any]
_ErrorTypes = tuple[type[Exception], ...]
_SPEC: Final = "__dispatcher_action__"


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
        check_one_of("on_crash", self.on_crash, tuple(OnCrash))
        object.__setattr__(self, "on_crash", OnCrash(self.on_crash))
        _check_retry_on(self.retry_on)
        if whole("max_attempts", self.max_attempts) < 1:
            raise ValueError(f"max_attempts is {self.max_attempts}; give 1 or more.")
        check_duration("time_limit", self.time_limit, zero=False)


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
    check_one_of("owner", owner, tuple(Owner))
    check_one_of("on_crash", on_crash, tuple(OnCrash))
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
