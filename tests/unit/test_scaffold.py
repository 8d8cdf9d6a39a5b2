"""What `dispatcher new-provider` writes, under which names, and that it works as it is."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest

from dispatcher.cli import CATEGORIES, OWNERS
from dispatcher.registry import load
from dispatcher.scaffold import Names, ScaffoldError, new_provider
from dispatcher.sdk import Owner
from dispatcher.sdk.actions import Category

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
MARKS = ["workers/__init__.py", "tests/__init__.py"]
ACME = ["workers/acme_deploy.py", "tests/test_acme_deploy.py"]

Write = Callable[..., list[str]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a new provider below an empty folder; answers the files that it wrote."""

    def _write(
        name: str = "acme-deploy", owner: str = "Custom", category: str = "Deploy"
    ) -> list[str]:
        return [str(path) for path in new_provider(name, owner, category, tmp_path).paths]

    return _write


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("name", "module", "provider"),
    [
        ("acme-deploy", "acme_deploy", "AcmeDeploy"),
        ("acme_deploy", "acme_deploy", "AcmeDeploy"),
        ("AcmeDeploy", "acme_deploy", "AcmeDeploy"),
        ("acmeDeploy", "acme_deploy", "AcmeDeploy"),
        ("Acme-Deploy", "acme_deploy", "AcmeDeploy"),
        ("acme", "acme", "Acme"),
        ("HTTPDeploy", "http_deploy", "HTTPDeploy"),
        ("S3Sync", "s3_sync", "S3Sync"),
        ("acme-v2", "acme_v2", "AcmeV2"),
        ("a" * 35, "a" * 35, "A" + "a" * 34),
    ],
)
def test_a_name_gives_the_module_and_the_provider(name: str, module: str, provider: str) -> None:
    assert Names.of(name) == Names(module, provider)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "give letters and digits"),
        ("acme.deploy", "give letters and digits"),
        ("acme deploy", "give letters and digits"),
        ("../acme", "give letters and digits"),
        ("acme\n", "give letters and digits"),
        ("2acme", "the first one a letter"),
        ("-acme", "the first one a letter"),
        ("acme-", "single - or _ between words"),
        ("acme__deploy", "single - or _ between words"),
        ("ácme", "give letters and digits"),
        ("class", "class is a word of Python's own"),
        ("Import", "import is a word of Python's own"),
        ("a" * 36, "has 36 characters, and AWS allows a provider 35"),
        ("test-acme", "does not begin or end with test"),
        ("SmokeTest", "does not begin or end with test"),
        ("conftest", "does not begin or end with test"),
    ],
)
def test_a_bad_name_is_refused_with_a_sentence_and_nothing_is_written(
    write: Write, tmp_path: Path, name: str, said: str
) -> None:
    with pytest.raises(ScaffoldError, match=said) as caught:
        write(name)

    assert str(caught.value).endswith(".")
    assert content(tmp_path) == {}


def test_the_command_offers_the_owners_and_categories_that_there_are() -> None:
    assert set(OWNERS) == {owner.value for owner in Owner}
    assert get_args(Category) == CATEGORIES


def test_an_empty_folder_gets_packages(write: Write, tmp_path: Path) -> None:
    assert write() == [*MARKS, *ACME]
    assert content(tmp_path).keys() == {*MARKS, *ACME}
    assert (tmp_path / MARKS[0]).read_text() == ""


def test_a_second_provider_leaves_the_first_alone(write: Write, tmp_path: Path) -> None:
    write()
    before = content(tmp_path)

    assert write("Echo") == ["workers/echo.py", "tests/test_echo.py"]
    assert before.items() <= content(tmp_path).items()


def test_a_folder_without_python_files_becomes_a_package(write: Write, tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "README.md").touch()

    assert write() == [*MARKS, *ACME]


@pytest.mark.parametrize("there", ["tests/conftest.py", "tests/unit/test_other.py"])
def test_a_folder_with_python_files_does_not_become_a_package(
    write: Write, tmp_path: Path, there: str
) -> None:
    (tmp_path / there).parent.mkdir(parents=True)
    (tmp_path / there).touch()

    assert write() == [MARKS[0], *ACME]


@pytest.mark.parametrize("there", [*ACME, "workers/acme_deploy/__init__.py"])
def test_what_is_there_is_never_replaced_and_nothing_else_is_written(
    write: Write, tmp_path: Path, there: str
) -> None:
    (tmp_path / there).parent.mkdir(parents=True)
    (tmp_path / there).write_text("mine")
    said = there.removesuffix("/__init__.py")

    with pytest.raises(ScaffoldError, match=f"^{said} exists already; "):
        write()

    assert content(tmp_path) == {there: "mine"}


def test_all_that_is_in_the_way_is_told_at_once(write: Write) -> None:
    write()

    with pytest.raises(ScaffoldError, match=f"^{ACME[0]} and {ACME[1]} exist already"):
        write()


def test_what_cannot_be_written_takes_back_what_was(write: Write, tmp_path: Path) -> None:
    (tmp_path / "tests").write_text("no folder")

    with pytest.raises(ScaffoldError, match=r"tests.* cannot be written: .+\."):
        write()

    assert content(tmp_path) == {"tests": "no folder"}


def test_what_comes_next_is_told(tmp_path: Path) -> None:
    partner = "\n".join(new_provider("acme-deploy", "ThirdParty", "Deploy", tmp_path).told())
    own = "\n".join(new_provider("own", "Custom", "Test", tmp_path).told())

    assert partner.startswith(f"Wrote {', '.join([*MARKS, *ACME])}.\n")
    assert "dispatcher action-type AcmeDeploy --account 123456789012 >" in partner
    assert "DISPATCHER_CLIENT_TOKENS" in partner
    assert "DISPATCHER_PROVIDERS=workers.acme_deploy" in partner
    assert "pytest tests/test_own.py" in own
    assert "dispatcher action-type Own >" in own
    assert "CLIENT_TOKENS" not in own


@pytest.fixture
def imports_of_my_own() -> Iterator[None]:
    """Of `workers` below the test's own folder."""
    path, modules = list(sys.path), dict(sys.modules)
    for name in [name for name in sys.modules if name.split(".")[0] == "workers"]:
        del sys.modules[name]
    yield
    sys.path[:] = path
    for name in sys.modules.keys() - modules.keys():
        del sys.modules[name]
    sys.modules.update(modules)


@pytest.mark.usefixtures("imports_of_my_own")
@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("category", CATEGORIES)
def test_it_is_loaded_as_the_action_type_that_was_asked_for(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: str, category: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write("acme-deploy", owner, category)

    (action,) = load(["workers"])

    assert action.spec.type.task_name == f"{owner}.{category}.AcmeDeploy.1"
    assert action.module == "workers.acme_deploy"
    config = action.parse({"AppURL": "https://a.example", "ApiKey": "k"})
    assert (config.app_url, config.dry_run) == ("https://a.example", False)


def run(folder: Path, *command: str, **env: str) -> None:
    ran = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_plain_pytest_mypy_and_ruff_pass_it_in_an_empty_folder(
    write: Write, tmp_path: Path
) -> None:
    """Echo is the name of a provider of ours too, which an editable install lets Python find."""
    for name, owner in (("acme-deploy", "ThirdParty"), ("Echo", "Custom"), ("a" * 35, "Custom")):
        write(name, owner)

    run(tmp_path, "pytest", "-W", "error")
    run(tmp_path, "mypy", "--strict", *ACME)
    run(tmp_path, "mypy", "--strict", ".")
    run(tmp_path, "ruff", "check", "--isolated")
    run(tmp_path, "ruff", "format", "--isolated", "--check")
    run(tmp_path, "ruff", "format", "--isolated", "--check", "--config", "line-length = 100")


def test_our_own_settings_of_pytest_and_mypy_pass_it(write: Write, tmp_path: Path) -> None:
    """As in a checkout, where neither folder is a package."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("workers/other.py", "tests/conftest.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()

    assert write() == ACME
    run(tmp_path, "pytest", ACME[1], PYTHONPATH=str(tmp_path))
    run(tmp_path, "mypy", "--strict", *ACME)
