"""Finds the provider modules, refuses two claims on one action type, parses configurations.

Owns the way from names to the engine's Actions; knows no Celery, no store and no AWS client.
What it says of a configuration never holds a value of it.
"""

import importlib
import logging
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import ErrorDetails, SchemaError

from dispatcher.engine.model import Action
from dispatcher.sdk import ActionSpec, ConfigurationError, Key, Secret, spec_of

GROUP: Final = "codepipeline_dispatcher.providers"
DEFAULT_NAME: Final = "workers"
ConfigT = TypeVar("ConfigT")

_log = logging.getLogger(__name__)


class ProviderError(Exception):
    """The provider modules cannot be used; one line a fault."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(dict.fromkeys(faults))
        super().__init__("\n".join(self.faults))


def load(names: Sequence[str]) -> tuple[Action, ...]:
    """The actions of these modules and packages, and of the entry points, by task name.

    Raises ProviderError with every fault that was found.
    """
    _see_working_directory()
    faults: list[str] = []
    modules: dict[str, ModuleType] = {}
    for name in dict.fromkeys([*filter(None, map(str.strip, names)), *_entry_point_modules()]):
        _import_tree(name, modules, faults)
    claims = _claims(modules.values())
    faults += _duplicates(claims)
    actions = [action for action in (_action(*claim, faults) for claim in claims) if action]
    if not claims and not faults:
        faults.append(_nothing_found(names))
    if faults:
        raise ProviderError(faults)
    return tuple(sorted(actions, key=lambda action: action.spec.type.task_name))


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
        if not found.name.endswith(".__main__"):
            _import_tree(found.name, modules, faults)


def _is_absent(name: str, error: BaseException) -> bool:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    return missing is not None and (name == missing or name.startswith(f"{missing}."))


def _import_fault(name: str, error: BaseException) -> str:
    if _is_absent(name, error):
        return f"There is no provider module {name}; looked in {Path.cwd()} and on Python's path."
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


def _duplicates(claims: Sequence[_Claim]) -> Iterator[str]:
    by_name: dict[str, list[str]] = {}
    for function, spec in claims:
        by_name.setdefault(spec.type.task_name, []).append(_where(function))
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


# Configuration: from AWS's map of texts to the author's class

_WORDS: Final[dict[Any, str]] = {
    str: "a text",
    Secret: "a secret text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}
_UNREADABLE: Final = ("_parsing", "_parsing_size", "_type", "enum", "literal_error", "_float")
_LIMITS: Final = {
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "too_short": "at least {min_length} characters",
    "too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "in the form {pattern}",
}


class ConfigClassError(Exception):
    """A configuration class that no map of texts can fill; a fault of the provider."""


@dataclass(frozen=True)
class _Field:
    name: str
    key: str
    expected: str
    mark: Key
    required: bool
    secret: bool


@dataclass(frozen=True)
class _Parser:
    adapter: TypeAdapter[Any]
    by_key: Mapping[str, _Field]
    config: str

    def __call__(self, mapping: Mapping[str, str]) -> Any:
        unknown = sorted(mapping.keys() - self.by_key.keys())
        if unknown:
            _log.warning(
                "configuration has keys that the provider does not know",
                extra={"unknown_keys": unknown, "config_class": self.config},
            )
        known = {self.by_key[key].name: text for key, text in mapping.items() if key not in unknown}
        try:
            return self.adapter.validate_strings(known, by_name=True, by_alias=False)
        except ValidationError as error:
            details = error.errors(include_input=False, include_url=False)
            fault: Exception = ConfigurationError(self._message(details))
        except Exception as error:  # noqa: BLE001 - an author's check that has a bug
            said = f"{type(error).__name__} ({_place(self.config, error)})"
            fault = RuntimeError(f"{self.config} cannot be read: a check of it raised {said}.")
        # Raised out here, so that the first error, whose text may hold a value, is not its context.
        raise fault

    def _message(self, details: Sequence[ErrorDetails]) -> str:
        by_name: dict[tuple[int | str, ...], _Field]
        by_name = {(field.name,): field for field in self.by_key.values()}
        faults = dict.fromkeys(_fault(by_name.get(d["loc"][:1]), d) for d in details)
        return f"The action's configuration does not fit: {'; '.join(faults)}."


def _fault(field: _Field | None, detail: ErrorDetails) -> str:
    if field is None:
        return "its values do not go together"
    kind = detail["type"]
    if kind == "missing":
        return f"{field.key} is missing, give {field.expected}"
    if kind in _LIMITS:
        limit = _LIMITS[kind].format_map(detail.get("ctx", {}))
        return f"{field.key} must be {field.expected}, {limit}"
    if kind.endswith(_UNREADABLE):
        return f"{field.key} must be {field.expected}"
    return f"{field.key} must be {field.expected} that the provider accepts"


@overload
def parse_config(config_type: None, mapping: Mapping[str, str]) -> None: ...
@overload
def parse_config(config_type: type[ConfigT], mapping: Mapping[str, str]) -> ConfigT: ...
def parse_config(config_type: type[Any] | None, mapping: Mapping[str, str]) -> Any:
    """An instance of the class, or ConfigurationError that names every missing or bad key."""
    return config_parser(config_type)(mapping)


def config_parser(config_type: type[Any] | None) -> Callable[[Mapping[str, str]], Any]:
    """The parser of a configuration class, built once; raises ConfigClassError."""
    if config_type is None:
        return _nothing
    name = f"{config_type.__module__}.{config_type.__qualname__}"
    try:
        found = list(_fields(config_type))
        _check_keys(found)
        return _Parser(TypeAdapter(config_type), {field.key: field for field in found}, name)
    except (ConfigClassError, PydanticUserError, SchemaError, NameError, TypeError) as error:
        text = " ".join(str(error).split())
        raise ConfigClassError(f"class {name}: {text}") from error


def _nothing(mapping: Mapping[str, str]) -> None:
    """An action without a configuration class reads none of its map."""
    del mapping


def _fields(config_type: type[Any]) -> Iterator[_Field]:
    for name, annotation, required in _declared(config_type):
        leaf, mark = _unwrap(annotation)
        key = mark.name or "".join(part[:1].upper() + part[1:] for part in name.split("_"))
        yield _Field(name, key, _expected(name, leaf), mark, required, secret=leaf is Secret)


def _declared(config_type: type[Any]) -> Iterator[tuple[str, Any, bool]]:
    if not is_dataclass(config_type):
        for name, info in config_type.model_fields.items():
            yield name, Annotated[info.annotation, None, *info.metadata], info.is_required()
        return
    hints = get_type_hints(config_type, include_extras=True)
    for field in fields(config_type):
        if field.init:
            bare = field.default is MISSING and field.default_factory is MISSING
            yield field.name, hints[field.name], bare


def _unwrap(annotation: Any) -> tuple[Any, Key]:
    """The one type that an annotation asks for beside None, and its Key."""
    mark = Key()
    while True:
        arguments = get_args(annotation)
        if get_origin(annotation) is Annotated:
            mark = next((extra for extra in arguments[1:] if isinstance(extra, Key)), mark)
            annotation = arguments[0]
        elif get_origin(annotation) in (Union, UnionType):
            rest = [argument for argument in arguments if argument is not NoneType]
            if len(rest) != 1:
                return annotation, mark
            annotation = rest[0]
        else:
            return annotation, mark


def _expected(name: str, leaf: Any) -> str:
    if leaf in _WORDS:
        return _WORDS[leaf]
    if choices := _choices(leaf):
        return f"one of {', '.join(choices)}"
    raise ConfigClassError(
        f"field {name} is {leaf!r}; use str, int, bool, float, Secret, an Enum or Literal of "
        "texts, or one of these with None."
    )


def _choices(leaf: Any) -> Sequence[str]:
    values: Sequence[Any] = ()
    if get_origin(leaf) is Literal:
        values = get_args(leaf)
    elif isinstance(leaf, type) and issubclass(leaf, Enum):
        # pydantic reads a text into an IntEnum, but not into an Enum that only holds numbers.
        values = [str(e.value) if isinstance(e, int) else e.value for e in leaf]
    return values if all(isinstance(value, str) for value in values) else ()


def _check_keys(found: Sequence[_Field]) -> None:
    by_key: dict[str, str] = {}
    for field in found:
        if other := by_key.get(field.key):
            raise ConfigClassError(f"fields {other} and {field.name} share the key {field.key}.")
        by_key[field.key] = field.name
        _check_mark(field)
    if sum(field.mark.queryable for field in found) > 1:
        raise ConfigClassError("AWS allows one queryable key; several are marked so.")


def _check_mark(field: _Field) -> None:
    if len(field.key) > 50:  # ActionConfigurationKey
        raise ConfigClassError(f"the key {field.key} is longer than 50 characters; name it by Key.")
    if field.mark.secret not in (None, field.secret):
        raise ConfigClassError(f"field {field.name}: a secret key is one of type Secret, no other.")
    if field.mark.required is False and field.required:
        raise ConfigClassError(f"field {field.name} is not required, so give it a default.")
    if field.mark.queryable and (field.secret or not (field.mark.required or field.required)):
        raise ConfigClassError(f"field {field.name} is queryable, so required and not secret.")
