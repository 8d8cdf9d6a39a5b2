"""Finds the provider modules and refuses two claims on one action type.

Owns the way from names to the engine's Actions; knows no Celery, no store and no AWS client.
"""

import importlib
import pkgutil
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from dispatcher.configuration import ConfigClassError, config_parser
from dispatcher.engine.model import Action
from dispatcher.sdk import ActionSpec, spec_of

GROUP: Final = "codepipeline_dispatcher.providers"
DEFAULT_NAME: Final = "workers"


class ProviderError(Exception):
    """The provider modules cannot be used; one line a fault."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(dict.fromkeys(faults))
        super().__init__("\n".join(self.faults))


@dataclass(frozen=True)
class Survey:
    """The actions that can be used, by task name, and the faults of all else."""

    actions: tuple[Action, ...]
    faults: tuple[str, ...]

    def named(self, name: str) -> Action:
        """The one of this provider or task name; else ProviderError says which there are."""
        types = {action.spec.type: action for action in self.actions}
        found = [kind for kind in types if name in (kind.provider, kind.task_name)]
        if len(found) == 1:
            return types[found[0]]
        if found:
            several = _listed(kind.task_name for kind in found)
            raise ProviderError([f"{name} is the provider of {several}; give one of these names."])
        there_are = _listed(kind.task_name for kind in types) or "none that can be used"
        missing = f"There is no provider or task {name}; there are {there_are}."
        raise ProviderError([missing, *self.faults])


def load(names: Sequence[str]) -> tuple[Action, ...]:
    """The actions of these modules and packages, and of the entry points, by task name.

    Raises ProviderError with every fault that was found.
    """
    found = survey(names)
    if found.faults:
        raise ProviderError(found.faults)
    return found.actions


def survey(names: Sequence[str]) -> Survey:
    """What can be used is found whatever is wrong beside it; two claims on one type are neither."""
    _see_working_directory()
    faults: list[str] = []
    modules: dict[str, ModuleType] = {}
    for name in dict.fromkeys([*filter(None, map(str.strip, names)), *_entry_point_modules()]):
        _import_tree(name, modules, faults)
    claims = _claims(modules.values())
    by_name = _by_task_name(claims)
    faults += _duplicates(by_name)
    actions = {claim[1].type.task_name: _action(*claim, faults) for claim in claims}
    if not claims and not faults:
        faults.append(_nothing_found(names))
    return Survey(
        tuple(one for name, one in sorted(actions.items()) if one and len(by_name[name]) == 1),
        tuple(dict.fromkeys(faults)),
    )


def _see_working_directory() -> None:
    # Celery has the current folder on sys.path only while it imports the app: too early for us.
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def _entry_point_modules() -> Iterator[str]:
    return (point.module for point in entry_points(group=GROUP))


# From names to modules


def _import_tree(name: str, modules: dict[str, ModuleType], faults: list[str]) -> None:
    if name in modules:
        return
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a module does while imported
        if not (name == DEFAULT_NAME and _is_absent(name, error)):
            faults.append(_import_fault(name, error))
        return
    modules[name] = module
    # iter_modules takes a namespace package's path too: a folder without __init__.py is enough.
    for found in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{name}."):
        if not _is_left_out(found.name):
            _import_tree(found.name, modules, faults)


def _is_left_out(name: str) -> bool:
    """A package's command, and tests by the names that pytest knows them by."""
    last = name.rpartition(".")[2]
    return last in {"__main__", "conftest"} or last.startswith("test_") or last.endswith("_test")


def _is_absent(name: str, error: BaseException) -> bool:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    return missing is not None and (name == missing or name.startswith(f"{missing}."))


def _import_fault(name: str, error: BaseException) -> str:
    if _is_absent(name, error):
        looked = f"looked in {Path.cwd()} and on Python's path"
        return f"There is no provider module {name}; {looked}. Correct DISPATCHER_PROVIDERS."
    text = " ".join(str(error).split()) or "no text"
    return f"{name} cannot be imported ({_place(name, error)}): {type(error).__name__}: {text}"


def _place(name: str, error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = [
        (frame.f_globals.get("__name__"), f"{frame.f_code.co_filename}, line {line}")
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not frame.f_code.co_filename.startswith(("<frozen importlib", str(importlib.__file__)))
    ]
    # The author's own line says more than the library's line below it.
    own = [place for module, place in frames if module == name]
    return (own or [place for _, place in frames[1:]] or ["before its first line"])[-1]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _nothing_found(names: Sequence[str]) -> str:
    return (
        f"No provider was found in {', '.join(names) or 'no module'} (working directory "
        f"{Path.cwd()}) or in the entry points {GROUP}; write a function marked with "
        f"dispatcher.sdk.action into {DEFAULT_NAME}/<name>.py, or name its module in "
        "DISPATCHER_PROVIDERS."
    )


# From modules to actions

_Claim = tuple[Any, ActionSpec]


def _claims(modules: Iterable[ModuleType]) -> list[_Claim]:
    # By identity: a function that a second module imports is one claim.
    found: dict[int, _Claim] = {}
    for module in modules:
        for value in list(vars(module).values()):
            with suppress(Exception):  # a lazy proxy may raise on any look at it
                if (spec := spec_of(value)) is not None:
                    found[id(value)] = (value, spec)
    return list(found.values())


def _where(function: Any) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _by_task_name(claims: Sequence[_Claim]) -> dict[str, list[str]]:
    by_name: dict[str, list[str]] = {}
    for function, spec in claims:
        by_name.setdefault(spec.type.task_name, []).append(_where(function))
    return by_name


def _duplicates(by_name: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for task_name, places in by_name.items():
        if len(places) > 1:
            yield f"{task_name} is claimed by {' and by '.join(places)}; keep one of them."


def _action(function: Any, spec: ActionSpec, faults: list[str]) -> Action | None:
    try:
        parse = config_parser(spec.config)
    except ConfigClassError as error:
        faults.append(f"{_where(function)} has a configuration that cannot be used: {error}")
        return None
    return Action(spec=spec, handler=function, parse=parse, module=function.__module__)
