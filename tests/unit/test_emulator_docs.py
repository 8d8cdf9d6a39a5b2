"""What the emulator's page and its --help say is what there is, and the page's example runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from dispatcher.cli import main
from dispatcher.emulator.client import Emulator
from dispatcher.emulator.faults import Kind
from dispatcher.emulator.front import Front
from dispatcher.emulator.options import KINDS, Options
from dispatcher.emulator.server import job_calls

PAGE = (Path(__file__).parents[2] / "dispatcher/docs/emulator.md").read_text()
HELP = CliRunner().invoke(main, ["emulator", "--help"], terminal_width=100).output


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def paths() -> set[str]:
    routes = job_calls(Front(Options())).routes
    return {getattr(route, "path", "").partition("{")[0].rstrip("/") for route in routes} - {""}


def test_the_examples_pass_for_whoever_copies_them(tmp_path: Path) -> None:
    names = ("my_worker.py", "test_my_worker.py", "test_my_artifacts.py")
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for name, example in zip(names, examples, strict=True):
        (tmp_path / name).write_text(example)

    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "5 passed" in run.stdout


@pytest.mark.parametrize("name", KINDS)
def test_every_assumption_is_in_the_table_and_in_the_help(name: str) -> None:
    table = PAGE.split("## What AWS documents")[1]

    assert flag(name) in table
    assert flag(name) in HELP


def test_no_option_is_told_that_does_not_exist() -> None:
    others = {"--port", "--help", "--until-eof", "--host", "--action-type-id"}

    assert set(re.findall(r"--[a-z][a-z-]+", PAGE)) <= {flag(name) for name in KINDS} | others


def test_every_assumption_of_ours_has_a_row() -> None:
    numbers = [int(number) for number in re.findall(r"^\| U(\d+) \|", PAGE, re.MULTILINE)]

    assert numbers == list(range(1, 23))


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_fault_is_told(kind: Kind) -> None:
    assert f"`{kind}`" in PAGE
    assert re.search(rf"\b{kind}\b", HELP)


def test_every_admin_call_is_told() -> None:
    assert len(paths()) == 9
    for path in paths():
        assert path in PAGE
        assert path in HELP


def test_every_method_of_the_client_is_told() -> None:
    table = PAGE.split("| of the fixture |")[1].split("\n\n")[0]
    public = {name for name in vars(Emulator) if not name.startswith("_")} - {"ask"}

    assert [name for name in sorted(public) if not re.search(rf"`{name}\b", table)] == []
