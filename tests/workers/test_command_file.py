"""The operator's file: what it allows, and how it is told what is wrong, without a value of it."""

import os
import re
from pathlib import Path

import pytest
from pydantic import ByteSize

from dispatcher.configuration import config_parser
from dispatcher.sdk import ConfigurationError, FailureType, spec_of
from workers.command import Config, command
from workers.command.allowed import Allowed, allowed_command

PAGE = (Path(__file__).parents[2] / "dispatcher/docs/command.md").read_text()
WHOLE = """
[commands.build]
run = ["make", "release"]
directory = "app"
outputs = ["dist", "reports/unit.xml"]
timeout = 900
grace = 5.5
memory = "2GiB"
file_size = "5GB"
log_size = 65536
show = 0
failures = { 77 = "ConfigurationError", 78 = "PermissionError" }
environment = { NODE_ENV = "production" }
pass = ["PATH", "HTTPS_PROXY"]
[commands.test]
run = ["make", "test"]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "commands.toml"
    monkeypatch.setenv("COMMAND_FILE", str(path))
    return path


def fault(name: str = "build") -> str:
    with pytest.raises(ConfigurationError) as caught:
        allowed_command(name)
    error: BaseException | None = caught.value
    while error is not None:
        assert "hidden" not in str(error)
        error = error.__context__
    return caught.value.message


def test_every_field_is_read(file: Path) -> None:
    file.write_text(WHOLE)

    assert allowed_command("build") == Allowed.model_construct(
        run=["make", "release"],
        directory="app",
        outputs=["dist", "reports/unit.xml"],
        timeout=900,
        grace=5.5,
        memory=ByteSize(2 * 2**30),
        file_size=ByteSize(5 * 10**9),
        log_size=ByteSize(65536),
        show=0,
        failures={77: FailureType.CONFIGURATION_ERROR, 78: FailureType.PERMISSION_ERROR},
        environment={"NODE_ENV": "production"},
        passed=["PATH", "HTTPS_PROXY"],
    )


def test_it_is_read_again_for_each_job(file: Path) -> None:
    file.write_text('[commands.build]\nrun = ["make", "one"]')
    allowed_command("build")
    stamp = file.stat()
    file.write_text('[commands.build]\nrun = ["make", "two"]')
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

    assert allowed_command("build").run == ["make", "two"]


@pytest.mark.parametrize("setting", [None, ""])
def test_without_a_file_the_operator_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, setting: str | None
) -> None:
    if setting is None:
        monkeypatch.delenv("COMMAND_FILE", raising=False)
    else:
        monkeypatch.setenv("COMMAND_FILE", setting)

    assert fault() == (
        "This worker allows no command: its operator must name a TOML file with a table "
        "[commands.NAME] for each in COMMAND_FILE."
    )


def test_an_unknown_name_is_answered_with_those_that_are_allowed(file: Path) -> None:
    file.write_text(WHOLE)

    for name in ["deploy", "", "build; rm -rf /", "BUILD", "run"]:
        message = fault(name)

        assert message.endswith("that this worker's operator allows: build, test.")
        assert "rm" not in message


def test_an_empty_set_of_commands_allows_none(file: Path) -> None:
    file.write_text("[commands]")

    assert fault().endswith("allows: there are none.")


def test_a_wrong_table_does_not_stop_the_other_commands(file: Path) -> None:
    file.write_text(WHOLE + 'tmeout = 3\n[commands.odd]\nrun = "make"')

    assert allowed_command("build").run == ["make", "release"]
    fault("test")
    fault("odd")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'[commands.build]\nrun = ["make", hidden]', "is no TOML (at line 2, column 16)"),
        (b'[commands.build]\nrun = ["\xff"] # hidden', "is no TOML (not UTF-8)"),
        (b'[command.build]\nrun = ["hidden"]', "must hold tables [commands.NAME] and nothing"),
        (b'commands = "hidden"', "must hold tables [commands.NAME] and nothing else."),
        (b'other = "hidden"\n[commands.build]\nrun = ["m"]', "must hold tables [commands.NAME]"),
        (b"", "must hold tables [commands.NAME] and nothing else."),
    ],
)
def test_a_file_that_is_no_table_of_commands_says_so(file: Path, content: bytes, told: str) -> None:
    file.write_bytes(content)

    assert fault().startswith(f"COMMAND_FILE {told}")


def test_a_file_that_cannot_be_read_says_why(file: Path) -> None:
    assert fault().startswith("COMMAND_FILE cannot be read (No such file or directory);")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("show = 1", "run is missing, give the program and its arguments"),
        ('run = "hidden"', "run does not fit, give the program and its arguments"),
        ("run = []", "run does not fit, give"),
        ('run = ["make", 1]', "run.1 does not fit, give"),
        (r'run = ["hidden\u0000"]', "run.0 does not fit, give"),
        ('directory = "/hidden"', "directory does not fit, give the folder in the sources"),
        ('directory = "a/../../hidden"', "directory does not fit"),
        ('directory = ""', "directory does not fit"),
        ('outputs = "hidden"', "outputs does not fit, give files and folders"),
        ('outputs = ["a", "/hidden"]', "outputs.1 does not fit"),
        ('outputs = ["../hidden"]', "outputs.0 does not fit"),
        ("timeout = 0", "timeout does not fit, give seconds"),
        ("timeout = 86401", "timeout does not fit"),
        ("timeout = inf", "timeout does not fit"),
        ("timeout = nan", "timeout does not fit"),
        ("grace = -1", "grace does not fit, give seconds"),
        ('memory = "hidden"', "memory does not fit, give address space"),
        ("memory = 4095", "memory does not fit"),
        ('memory = "2000000TiB"', "memory does not fit"),
        ('file_size = "2 hidden"', "file_size does not fit"),
        ("log_size = 0", "log_size does not fit"),
        ("show = 51", "show does not fit"),
        ("show = -1", "show does not fit"),
        ('failures = { 0 = "JobFailed" }', "failures.0 does not fit, give exit status"),
        ('failures = { 256 = "JobFailed" }', "failures.256 does not fit"),
        ('failures = { 1 = "hidden" }', "failures.1 does not fit"),
        ('environment = { "A B" = "hidden" }', "environment.A B does not fit, give names"),
        ('environment = { "A=B" = "hidden" }', "environment.A=B does not fit"),
        ("environment = { A = 1234567 }", "environment.A does not fit"),
        (r'environment = { A = "hidden\u0000" }', "environment.A does not fit"),
        ('environment = "hidden"', "environment does not fit"),
        ('pass = ["AWS_SESSION_TOKEN"]', "pass.0 does not fit, give names of the worker's"),
        ('pass = ["PATH", "DISPATCHER_REDIS_URL"]', "pass.1 does not fit"),
        ('pass = ["CELERY_BROKER_URL"]', "pass.0 does not fit"),
        ('pass = ["A=B"]', "pass.0 does not fit"),
        ("passed = []", "there is no field passed; the fields are run, directory, outputs,"),
        ('tmeout = "hidden"', "there is no field tmeout; the fields are run,"),
    ],
)
def test_a_wrong_field_is_named_with_its_table_and_what_to_give(
    file: Path, lines: str, told: str
) -> None:
    needed = "" if lines.startswith(("run", "show = 1")) else 'run = ["make"]'
    file.write_text(f"[commands.build]\n{needed}\n{lines}")

    message = fault()

    assert message.startswith(f"COMMAND_FILE, table [commands.build]: {told}")
    assert "1234567" not in message
    assert message.endswith(".")


def test_all_faults_of_a_table_are_told_at_once(file: Path) -> None:
    file.write_text("[commands.build]\nshow = 51\ntimeout = 0")

    assert re.findall(r"(\w+) (?:is missing|does not fit)", fault()) == ["run", "timeout", "show"]


def test_what_is_no_table_says_so(file: Path) -> None:
    file.write_text('[commands]\nbuild = "hidden"')

    assert fault() == "COMMAND_FILE, table [commands.build]: it is no table; give at least run."


def test_no_value_of_the_environment_is_in_its_text() -> None:
    allowed = Allowed(run=["make"], environment={"TOKEN": "hidden"})

    assert "hidden" not in f"{allowed!r} {allowed}"


def test_the_pipeline_gives_a_name_and_nothing_else() -> None:
    spec = spec_of(command)

    assert spec is not None
    assert spec.type.task_name == "Custom.Build.Command.1"
    assert config_parser(spec.config)({"Command": "build", "run": "sh"}) == Config("build")


# The page


def test_the_pages_table_has_every_field_with_its_default() -> None:
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        for line in PAGE.split("| field |")[1].split("\n\n")[0].splitlines()[2:]
    ]
    told = {name.strip("`"): (default, text) for name, default, text in rows}

    assert told.keys() == {info.alias or name for name, info in Allowed.model_fields.items()}
    for name, info in Allowed.model_fields.items():
        default, text = told[info.alias or name]
        assert text.startswith(info.description or "?")
        assert default == shown(None if info.is_required() else info.default)


def shown(default: object) -> str:
    if default in (None, [], {}):
        return ""
    if isinstance(default, ByteSize):
        return f"`{default.human_readable(separator='').replace('.0', '')}`"
    if isinstance(default, list):
        return ", ".join(f"`{one}`" for one in default)
    return f"`{default}`"


def test_the_pages_example_is_a_file_that_works(file: Path) -> None:
    file.write_text(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0])

    allowed = allowed_command("build")

    assert allowed.run == ["make", "release"]
    assert {FailureType.CONFIGURATION_ERROR} == set(allowed.failures.values())


def test_the_page_names_every_variable_that_a_command_finds() -> None:
    place = (Path(command.__code__.co_filename).parent / "place.py").read_text()
    names = re.findall(r'^        "([A-Z_]+)":', place, re.MULTILINE)

    assert {"JOB_ID", "CLIENT_ID", "HOME"} <= set(names)
    assert [name for name in names if f"{name}`" not in PAGE] == []
