"""The type checker stands at the author's desk: right providers pass, wrong ones do not."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAD = """\
from dataclasses import dataclass
from datetime import timedelta
from dispatcher.sdk import Continue, Job, JobFailed, Outcome, Retry, Secret, Succeeded, action
from dispatcher.testing import make_job

@dataclass(frozen=True)
class Config:
    app: str
    api_key: Secret

@dataclass(frozen=True)
class Other:
    app: str

"""
MARK = '@action("Deploy", "Acme", version="1", config=Config)\n'

RIGHT = {
    "succeeds": MARK
    + """\
def deploy(job: Job[Config]) -> Outcome:
    if job.wait(timedelta(seconds=1)) or job.stopping:
        raise Retry(after=timedelta(minutes=1))
    job.progress(50, job.config.api_key.get_secret_value())
    job.log.info("deployed", extra={"app": job.config.app})
    return Continue("token") if job.continuation is None else Succeeded()

outcome: Outcome = deploy(make_job(Config("shop", Secret("s"))))
waits: list[float] = make_job(Config("shop", Secret("s"))).control.waits
""",
    "returns_one_outcome_only": MARK
    + """\
def deploy(job: Job[Config]) -> Succeeded:
    return Succeeded()
""",
    "has_no_configuration": """\
@action("Invoke", "Acme", version="1", owner="Custom", on_crash="rerun", retry_on=(OSError,))
def deploy(job: Job[None]) -> Outcome:
    raise JobFailed("no")

outcome: Outcome = deploy(make_job())
""",
}

WRONG = {
    "returns_text": (
        MARK + 'def deploy(job: Job[Config]) -> str:\n    return "done"\n',
        "arg-type",
    ),
    "returns_nothing": (MARK + "def deploy(job: Job[Config]) -> None: ...\n", "arg-type"),
    "takes_another_configuration": (
        MARK + "def deploy(job: Job[Other]) -> Outcome:\n    return Succeeded()\n",
        "arg-type",
    ),
    "takes_a_configuration_that_it_does_not_declare": (
        '@action("Deploy", "Acme", version="1")\n'
        "def deploy(job: Job[Config]) -> Outcome:\n    return Succeeded()\n",
        "arg-type",
    ),
    "is_async": (
        MARK + "async def deploy(job: Job[Config]) -> Outcome:\n    return Succeeded()\n",
        "arg-type",
    ),
    "misspells_a_field_of_its_configuration": (
        MARK + "def deploy(job: Job[Config]) -> Outcome:\n    return Succeeded(job.config.ap)\n",
        "attr-defined",
    ),
    "misspells_a_field_of_the_job": (
        MARK + "def deploy(job: Job[Config]) -> Outcome:\n    return Succeeded(job.ident)\n",
        "attr-defined",
    ),
    "changes_the_job": (
        MARK
        + "def deploy(job: Job[Config]) -> Outcome:\n    job.attempt = 2\n    return Succeeded()\n",
        "misc",
    ),
    "uses_a_secret_as_text": (
        MARK
        + "def deploy(job: Job[Config]) -> Outcome:\n    return Succeeded(job.config.api_key)\n",
        "arg-type",
    ),
    "names_an_unknown_category": (
        '@action("Ship", "Acme", version="1")\n'
        "def deploy(job: Job[None]) -> Outcome:\n    return Succeeded()\n",
        "call-overload",
    ),
    "is_tested_with_another_configuration": (
        MARK
        + "def deploy(job: Job[Config]) -> Outcome:\n    return Succeeded()\n"
        + 'deploy(make_job(Other("shop")))\n',
        "arg-type",
    ),
}

Codes = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Codes:
    """mypy's error codes for a snippet; one run over all, as a start of mypy takes seconds."""
    folder = tmp_path_factory.mktemp("snippets")
    snippets = RIGHT | {name: text for name, (text, _) in WRONG.items()}
    for name, text in snippets.items():
        (folder / f"{name}.py").write_text(HEAD + text)
    config = str(ROOT / "pyproject.toml")
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-incremental", "--config-file", config, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    found = re.findall(r"(\w+)\.py:\d+: error: .*\[([a-z-]+)\]", run.stdout)
    return lambda snippet: [code for name, code in found if name == snippet]


@pytest.mark.parametrize("snippet", RIGHT)
def test_a_right_provider_passes(codes: Codes, snippet: str) -> None:
    assert codes(snippet) == []


@pytest.mark.parametrize("snippet", WRONG)
def test_a_wrong_provider_is_shown_its_fault(codes: Codes, snippet: str) -> None:
    assert WRONG[snippet][1] in codes(snippet)
