"""From AWS's map of texts to the author's configuration class, by pydantic.

Knows no module of providers. What it says of a configuration never holds a value of it.
"""

import logging
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
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
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, SchemaError

from dispatcher.sdk import ActionSpec, ConfigurationError, Key, Owner, Secret

ConfigT = TypeVar("ConfigT")

_log = logging.getLogger(__name__)

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
class ConfigField:
    """A field of a configuration class, and the key of AWS's map that fills it.

    `leaf`: the one type that it asks for beside None. `required`: it has no default.
    """

    name: str
    key: str
    leaf: Any
    expected: str
    mark: Key
    description: str | None
    required: bool

    @property
    def secret(self) -> bool:
        return self.leaf is Secret


@dataclass(frozen=True)
class _Parser:
    adapter: TypeAdapter[Any]
    by_key: Mapping[str, ConfigField]
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
            said = f"{type(error).__name__} ({_place(error)})"
            fault = RuntimeError(f"{self.config} cannot be read: a check of it raised {said}.")
        # Raised out here, so that the first error, whose text may hold a value, is not its context.
        raise fault

    def _message(self, details: Sequence[ErrorDetails]) -> str:
        by_name: dict[tuple[int | str, ...], ConfigField]
        by_name = {(field.name,): field for field in self.by_key.values()}
        faults = dict.fromkeys(_fault(by_name.get(d["loc"][:1]), d) for d in details)
        return f"The action's configuration does not fit: {'; '.join(faults)}."


def _place(error: BaseException) -> str:
    frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
    return f"{frame.f_code.co_filename}, line {line}"


def _fault(field: ConfigField | None, detail: ErrorDetails) -> str:
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
        found = config_fields(config_type)
        return _Parser(TypeAdapter(config_type), {field.key: field for field in found}, name)
    except (ConfigClassError, PydanticUserError, SchemaError, NameError, TypeError) as error:
        text = " ".join(str(error).split())
        raise ConfigClassError(f"class {name}: {text}") from error


def _nothing(mapping: Mapping[str, str]) -> None:
    """An action without a configuration class reads none of its map."""
    del mapping


def config_fields(config_type: type[Any] | None) -> Sequence[ConfigField]:
    """What the class reads, in its order; raises what `config_parser` makes a ConfigClassError."""
    if config_type is None:
        return ()
    found = [_field(*declared) for declared in _declared(config_type)]
    _check_keys(found)
    return found


def _field(name: str, annotation: Any, required: bool) -> ConfigField:  # noqa: FBT001
    leaf, extras = _unwrap(annotation)
    mark = next((extra for extra in extras if isinstance(extra, Key)), Key())
    key = mark.name or "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    said = [mark.description, *(e.description for e in extras if isinstance(e, FieldInfo))]
    description = next(filter(None, said), None)
    return ConfigField(name, key, leaf, _expected(name, leaf), mark, description, required)


def _declared(config_type: type[Any]) -> Iterator[tuple[str, Any, bool]]:
    if not is_dataclass(config_type):
        for name, info in config_type.model_fields.items():
            yield name, Annotated[info.annotation, info, *info.metadata], info.is_required()
        return
    hints = get_type_hints(config_type, include_extras=True)
    for field in fields(config_type):
        if field.init:
            bare = field.default is MISSING and field.default_factory is MISSING
            yield field.name, hints[field.name], bare


def _unwrap(annotation: Any) -> tuple[Any, Sequence[Any]]:
    """The one type that an annotation asks for beside None, and what else it says, inmost first."""
    extras: list[Any] = []
    while True:
        arguments = get_args(annotation)
        if get_origin(annotation) is Annotated:
            extras = [*arguments[1:], *extras]
            annotation = arguments[0]
        elif get_origin(annotation) in (Union, UnionType):
            rest = [argument for argument in arguments if argument is not NoneType]
            if len(rest) != 1:
                return annotation, extras
            annotation = rest[0]
        else:
            return annotation, extras


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


def _check_keys(found: Sequence[ConfigField]) -> None:
    by_key: dict[str, str] = {}
    for field in found:
        if other := by_key.get(field.key):
            raise ConfigClassError(f"fields {other} and {field.name} share the key {field.key}.")
        by_key[field.key] = field.name
        _check_mark(field)
    if sum(field.mark.queryable for field in found) > 1:
        raise ConfigClassError("AWS allows one queryable key; several are marked so.")


def _check_mark(field: ConfigField) -> None:
    if not field.key:
        raise ConfigClassError(f"field {field.name} gives an empty key; name it by Key.")
    if len(field.key) > 50:  # ActionConfigurationKey
        raise ConfigClassError(f"the key {field.key} is longer than 50 characters; name it by Key.")
    if field.mark.secret not in (None, field.secret):
        raise ConfigClassError(f"field {field.name}: a secret key is one of type Secret, no other.")
    if field.mark.required is False and field.required:
        raise ConfigClassError(f"field {field.name} is not required, so give it a default.")
    if field.mark.queryable and (field.secret or not (field.mark.required or field.required)):
        raise ConfigClassError(f"field {field.name} is queryable, so required and not secret.")


def queryable_key(spec: ActionSpec) -> str | None:
    """The key by which AWS polls a custom action's jobs; there is none for a third-party one."""
    if spec.type.owner is not Owner.CUSTOM:
        return None
    return next((field.key for field in config_fields(spec.config) if field.mark.queryable), None)
