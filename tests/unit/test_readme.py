"""What the README says of settings, commands and providers is what the code does."""

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from dispatcher.cli import main
from dispatcher.sdk import Continue
from dispatcher.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def table(heading: str) -> list[list[str]]:
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def code(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_it_is_not_too_long_to_be_read() -> None:
    assert len(README.splitlines()) <= 250


def test_every_setting_is_in_the_table_with_its_default() -> None:
    told = {name.strip("`"): default for name, default, _ in table("Settings")}

    assert told.keys() == {name.upper() for name in Settings.model_fields if name != "aws_region"}
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, int | float):
            assert told[name.upper()] == str(field.default)
    assert told["REDIS_URL"] == f"`{Settings().redis_url.get_secret_value()}`"
    assert told["PROVIDERS"] == f"`{','.join(Settings().providers)}`"


def test_every_command_is_in_the_table() -> None:
    told = " ".join(row[0] for row in table("Commands"))

    def names(group: click.Group, before: str = "") -> list[str]:
        found: list[str] = []
        for name, command in group.commands.items():
            whole = f"{before}{name}"
            found += names(command, f"{whole} ") if isinstance(command, click.Group) else [whole]
        return found

    assert [name for name in names(main) if f"`{name}" not in told] == []


def test_no_variable_is_named_that_does_not_exist() -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}

    assert set(re.findall(rf"{PREFIX}[A-Z_]+", README)) <= known


def test_the_example_provider_passes_its_example_test(monkeypatch: pytest.MonkeyPatch) -> None:
    acme: Any = ModuleType("acme")
    acme.Client = lambda _key: Acme()
    monkeypatch.setitem(sys.modules, "acme", acme)
    provider: Any = ModuleType("acme_providers")
    monkeypatch.setitem(sys.modules, "acme_providers", provider)
    namespace = provider.__dict__
    for block in code("python"):
        exec(compile(block, "README.md", "exec"), namespace)  # noqa: S102 - the README's own code

    namespace["test_a_deploy_starts"]()
    assert namespace["Continue"] is Continue


class Acme:
    def start(self, _app: str, idempotency_key: str) -> Any:
        assert idempotency_key
        run: Any = ModuleType("run")
        run.id = "run-1"
        return run
