"""Writes a new provider module and its test, to start from.

Owns their names and places; knows nothing of settings, and runs none of what it writes.
"""

import keyword
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

from dispatcher.sdk import ActionType, Owner

FOLDER: Final = "workers"  # where DISPATCHER_PROVIDERS looks unless told otherwise
TESTS: Final = "tests"
LONGEST: Final = 35  # ActionProvider
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*([-_][A-Za-z0-9]+)*")
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class ScaffoldError(Exception):
    """Nothing was written; the text says why."""


@dataclass(frozen=True)
class Names:
    """`acme-deploy`, `acme_deploy` and `AcmeDeploy` are the module acme_deploy of AcmeDeploy."""

    module: str
    provider: str

    @classmethod
    def of(cls, name: str) -> "Names":
        """Raises ScaffoldError for what cannot name a module, or a provider at AWS."""
        if not _NAME.fullmatch(name):
            raise ScaffoldError(
                f"{name!r} names no provider: give letters and digits, the first one a letter, "
                "with single - or _ between words, such as acme-deploy or AcmeDeploy."
            )
        words = re.split("[-_]", name)
        provider = "".join(word[0].upper() + word[1:] for word in words)
        module = "_".join(_HUMP.sub("_", word) for word in words).lower()
        _check(module, provider)
        return cls(module, provider)


def _check(module: str, provider: str) -> None:
    if len(provider) > LONGEST:
        raise ScaffoldError(
            f"{provider} has {len(provider)} characters, and AWS allows a provider {LONGEST}; "
            "give a shorter name."
        )
    if keyword.iskeyword(module):
        raise ScaffoldError(f"{module} is a word of Python's own; give another name.")
    if module == "conftest" or module.startswith("test_") or module.endswith("_test"):
        raise ScaffoldError(
            f"pytest takes a module {module} for tests, and the dispatcher loads none of them; "
            "give a name that does not begin or end with test."
        )


@dataclass(frozen=True)
class Made:
    """What was written, and what its author does next."""

    names: Names
    owner: Owner
    paths: Sequence[Path]

    def told(self) -> list[str]:
        module, provider = f"{FOLDER}.{self.names.module}", self.names.provider
        account = " --account 123456789012" if self.owner is Owner.THIRD_PARTY else ""
        tokens = ["DISPATCHER_CLIENT_TOKENS, the store of your clients' tokens"]
        settings = [f"DISPATCHER_PROVIDERS={module}, unless it is unset, which loads {FOLDER}/"]
        settings += tokens if self.owner is Owner.THIRD_PARTY else []
        return [
            f"Wrote {', '.join(map(str, self.paths))}.",
            "Next:",
            f"  pytest {self.paths[-1]}",
            f"  put your own system in the place of Client in {self.paths[-2]}",
            f"  dispatcher action-type {provider}{account} > action-type.json    # for AWS",
            *(f"  set {setting}" for setting in settings),
            "  celery -A dispatcher beat & celery -A dispatcher worker -P threads -c 8",
        ]


def new_provider(name: str, owner: str, category: str, folder: Path) -> Made:
    """Writes both below this folder.

    Raises ScaffoldError, and ValueError for an owner or a category that AWS does not know.
    """
    names = Names.of(name)
    ActionType(category, Owner(owner), names.provider, "1")
    values = {**asdict(names), "owner": owner, "category": category}
    module = Path(FOLDER, f"{names.module}.py")
    test = Path(TESTS, f"test_{names.module}.py")
    _refuse_to_replace(folder, module, test, module.with_suffix(""))
    texts = _marks_of_packages(folder)
    texts[module] = _rendered("provider.py.template", values)
    texts[test] = _rendered("test.py.template", values)
    _write(folder, texts)
    return Made(names, Owner(owner), tuple(texts))


def _refuse_to_replace(folder: Path, *paths: Path) -> None:
    there = [str(path) for path in paths if (folder / path).exists()]
    if there:
        raise ScaffoldError(
            f"{' and '.join(there)} exist{'s' if len(there) == 1 else ''} already; "
            "give another name, or move what is there."
        )


def _marks_of_packages(folder: Path) -> dict[Path, str]:
    """The `__init__.py` of folders without Python files, our own to be.

    With them plain pytest and mypy find `workers` below the current folder. Where somebody has
    files already, how they are found is settled, and one more `__init__.py` would change it.
    """
    mine = [name for name in (FOLDER, TESTS) if not any((folder / name).rglob("*.py"))]
    return {Path(name, "__init__.py"): "" for name in mine}


def _rendered(template: str, values: dict[str, str]) -> str:
    text = files(__package__).joinpath(template).read_text(encoding="utf-8")
    return Template(text).substitute(values)


def _write(folder: Path, texts: dict[Path, str]) -> None:
    """All of them or none."""
    written: list[Path] = []
    try:
        for path, text in texts.items():
            target = folder / path
            target.parent.mkdir(exist_ok=True)
            with target.open("x", encoding="utf-8") as file:
                written.append(target)
                file.write(text)
    except OSError as error:
        for target in written:
            with suppress(OSError):
                target.unlink()
        raise ScaffoldError(f"{error.filename} cannot be written: {error.strerror}.") from error
