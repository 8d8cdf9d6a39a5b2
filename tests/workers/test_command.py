"""What becomes of a command that ran: artifacts, variables, its environment, and each way to end.

Real processes; the artifacts are in memory.
"""

import io
import json
import os
import resource
import shlex
import socket
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from dispatcher.sdk import (
    Artifacts,
    ConfigurationError,
    Failure,
    FailureType,
    JobFailed,
    OutputArtifact,
    PermissionDenied,
    Pipeline,
    Retry,
    Succeeded,
    SystemUnavailable,
)
from dispatcher.sdk.artifacts import Bench
from dispatcher.testing import MadeJob, MemoryStorage, make_job
from tests.harness import eventually
from workers.command import Config, command

Allow = Callable[..., None]
SHELLS_OWN = {"PWD", "OLDPWD", "SHLVL", "_"}


@pytest.fixture
def allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Allow:
    """The operator allows `build`: a shell script, and further lines of its table."""
    file = tmp_path / "commands.toml"
    monkeypatch.setenv("COMMAND_FILE", str(file))

    def write(script: str, *lines: str) -> None:
        run = json.dumps(["/bin/sh", "-c", script])
        file.write_text("\n".join(["[commands.build]", f"run = {run}", *lines]))

    return write


def build(job: MadeJob[Config]) -> Succeeded:
    outcome = command(job)
    assert isinstance(outcome, Succeeded)
    return outcome


def failure(kind: type[Failure], job: MadeJob[Config]) -> str:
    with pytest.raises(Failure) as caught:
        command(job)
    assert type(caught.value) is kind
    return caught.value.message


def log_of(
    allow: Allow,
    script: str,
    *lines: str,
    inputs: Mapping[str, bytes | dict[str, bytes | str]] | None = None,
    job_id: str | None = None,
) -> str:
    allow(script, *lines)
    job = make_job(Config("build"), outputs=["Log"], inputs=inputs, id=job_id)
    build(job)
    return job.written["Log"].decode()


# Artifacts


def test_outputs_come_in_the_actions_order_a_folder_as_a_zip_and_a_file_as_it_is(
    allow: Allow,
) -> None:
    allow("mkdir -p out/a; cp in.txt out/a/b; echo r > r.xml", 'outputs = ["out", "r.xml"]')
    job = make_job(Config("build"), inputs={"App": {"in.txt": "hello"}}, outputs=["Site", "Report"])

    outcome = build(job)

    with zipfile.ZipFile(io.BytesIO(job.written["Site"])) as site:
        assert site.read("a/b") == b"hello"
    assert job.written["Report"] == b"r\n"
    assert "build succeeded after 0 s" in outcome.summary
    assert "Output artifacts: 2" in outcome.summary
    assert outcome.external_id == f"{socket.gethostname()}/{job.id}"
    assert outcome.variables is None


def test_one_output_more_than_paths_is_the_log_of_both_streams(allow: Allow) -> None:
    allow("echo one; echo two >&2; echo x > x", 'outputs = ["x"]')
    job = make_job(Config("build"), outputs=["X", "Log"])

    build(job)

    assert job.written == {"X": b"x\n", "Log": b"one\ntwo\n"}


@pytest.mark.parametrize("declared", [0, 1, 4])
def test_any_other_number_of_outputs_is_refused_before_anything_runs(
    allow: Allow, tmp_path: Path, declared: int
) -> None:
    allow(f"touch {tmp_path}/ran", 'outputs = ["x", "y"]')
    job = make_job(Config("build"), outputs=[f"Out{n}" for n in range(declared)])

    message = failure(ConfigurationError, job)

    assert f"declares {declared} output artifacts, but the command build makes 2" in message
    assert "declare 2, or 3" in message
    assert not (tmp_path / "ran").exists()


def test_further_inputs_lie_beside_the_first_and_one_that_is_no_archive_is_a_file(
    allow: Allow,
) -> None:
    log = log_of(
        allow,
        'cat a ../My-Lib/sub/b ../Raw/Raw; echo; cat "$CODEPIPELINE_INPUT_App/a" '
        '"$CODEPIPELINE_INPUT_My_Lib/sub/b" "$CODEPIPELINE_INPUT_Raw/Raw"',
        inputs={"App": {"a": "1"}, "My-Lib": {"sub/b": "2"}, "Raw": b"3"},
    )

    assert log == "123\n123"


def test_without_inputs_it_starts_in_an_empty_folder(allow: Allow) -> None:
    assert log_of(allow, "ls -A; echo end") == "end\n"


def test_it_starts_in_its_directory_which_its_outputs_are_below(allow: Allow) -> None:
    allow("cp f g", 'directory = "deep/er"', 'outputs = ["g"]')
    job = make_job(Config("build"), inputs={"App": {"deep/er/f": "here"}}, outputs=["G"])

    build(job)

    assert job.written["G"] == b"here"


@pytest.mark.parametrize("files", [{"other": ""}, {"src": "a file"}])
def test_a_directory_that_the_sources_lack_is_named(allow: Allow, files: dict[str, str]) -> None:
    allow("true", 'directory = "src"')

    message = failure(ConfigurationError, make_job(Config("build"), inputs={"App": files}))

    assert message == "The sources hold no folder src, in which the command is to start."


@pytest.mark.parametrize("script", ["true", "mkfifo dist", "ln -s dist dist", "ln -s gone dist"])
def test_an_output_that_is_no_file_or_folder_after_success_is_named(
    allow: Allow, script: str
) -> None:
    allow(script, 'outputs = ["dist"]')

    message = failure(JobFailed, make_job(Config("build"), outputs=["Site"]))

    assert "ended well, but left no file or folder dist for the output artifact Site" in message


@pytest.mark.parametrize(
    ("script", "path"),
    [
        ("ln -s /etc/passwd out", "out"),
        ("ln -s /etc out", "out"),
        ("ln -s /etc out", "out/passwd"),
        ("ln -s ../../home out", "out"),
        ("ln -s .. out", "out"),
        ('here=$PWD; cd /; rm -r "$here"; ln -s /etc "$here"', "passwd"),
    ],
)
def test_an_output_cannot_lead_out_of_the_sources(allow: Allow, script: str, path: str) -> None:
    allow(script, f'outputs = ["{path}"]')
    job = make_job(Config("build"), outputs=["Out", "Log"])

    message = failure(JobFailed, job)

    assert f"made {path}, of the output artifact Out, a link out of its sources" in message
    assert job.written.keys() == {"Log"}


def test_a_folder_that_holds_a_link_out_of_it_is_not_packed(allow: Allow) -> None:
    allow("mkdir out; echo x > out/x; ln -s /etc/passwd out/y", 'outputs = ["out"]')
    job = make_job(Config("build"), outputs=["Out"])

    failure(JobFailed, job)

    assert job.written == {}


def test_a_link_inside_the_sources_may_be_an_output(allow: Allow) -> None:
    allow("echo 7 > v7; ln -s v7 latest", 'outputs = ["latest"]')
    job = make_job(Config("build"), outputs=["Out"])

    build(job)

    assert job.written["Out"] == b"7\n"


# Environment


def test_its_environment_is_exactly_what_the_operator_says(
    allow: Allow, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ["AWS_SECRET_ACCESS_KEY", "DISPATCHER_REDIS_URL", "CELERY_BROKER", "TOKENS"]:
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("PROXY", "http://proxy")
    pipeline = Pipeline("shop", "Build", "Compile", "arn:shop", "execution", "one of it")
    lines = ['pass = ["LANG", "PROXY", "ABSENT"]', 'environment = { NODE_ENV = "prod" }']
    inputs = {"App": {"a": ""}}
    allow("env", *lines)
    job = make_job(
        Config("build"), outputs=["Log"], pipeline=pipeline, client_id=None, inputs=inputs
    )

    build(job)

    shown = dict(line.split("=", 1) for line in job.written["Log"].decode().splitlines())
    work = job.workdir.resolve()
    assert {name: shown[name] for name in shown.keys() - SHELLS_OWN} == {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "PROXY": "http://proxy",
        "NODE_ENV": "prod",
        "HOME": f"{work}/home",
        "TMPDIR": f"{work}/tmp",  # noqa: S108 - of this job alone
        "CODEPIPELINE_JOB_ID": job.id,
        "CODEPIPELINE_ATTEMPT": "1",
        "CODEPIPELINE_PIPELINE_NAME": "shop",
        "CODEPIPELINE_PIPELINE_ARN": "arn:shop",
        "CODEPIPELINE_STAGE": "Build",
        "CODEPIPELINE_ACTION": "Compile",
        "CODEPIPELINE_EXECUTION_ID": "execution",
        "CODEPIPELINE_ACTION_EXECUTION_ID": "one of it",
        "CODEPIPELINE_VARIABLES_FILE": f"{work}/variables",
        "CODEPIPELINE_INPUT_App": f"{work}/artifacts/App",
    }


def test_path_and_the_client_are_known_to_it_unless_told_otherwise(
    allow: Allow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"/nowhere:{os.environ['PATH']}")

    log = log_of(allow, 'echo "$PATH $CODEPIPELINE_CLIENT_ID"')

    assert log == f"{os.environ['PATH']} client\n"


def test_the_operator_may_give_it_another_home_but_not_another_job(allow: Allow) -> None:
    fixed = 'environment = { HOME = "/cache", CODEPIPELINE_JOB_ID = "forged" }'
    job_id = "c0ffee00-0000-4000-8000-000000000000"

    log = log_of(allow, 'echo "$HOME $CODEPIPELINE_JOB_ID"', fixed, job_id=job_id)

    assert log == f"/cache {job_id}\n"


def test_it_has_no_input_no_terminal_no_other_file_and_a_session_of_its_own(allow: Allow) -> None:
    code = """if True:
        import os
        print(os.readlink("/proc/self/fd/0"), sorted(os.listdir("/proc/self/fd"))[:3])
        print(len(os.listdir("/proc/self/fd")), os.getsid(0) == os.getpid())
        os.open("/dev/tty", os.O_RDWR)
    """

    allow(f"exec {shlex.quote(sys.executable)} -u -c {shlex.quote(code)}")
    message = failure(JobFailed, make_job(Config("build")))

    assert "/dev/null ['0', '1', '2']\n4 True\n" in message  # the fourth is listdir's own
    assert "No such device or address: '/dev/tty'" in message


# How it may end


def test_a_failure_shows_the_status_and_the_logs_last_lines(allow: Allow) -> None:
    allow("for n in 1 2 3 4 5; do echo line $n; done; exit 3", "show = 2")
    job = make_job(Config("build"), outputs=["Log"])

    message = failure(JobFailed, job)

    assert message == (
        "The command build ended with exit status 3 after 0 s.\nThe log ends:\nline 4\nline 5"
    )
    assert job.written["Log"].endswith(b"line 5\n")


def test_a_failure_names_the_run_for_the_operator(allow: Allow) -> None:
    allow("exit 1")
    job = make_job(Config("build"))

    with pytest.raises(JobFailed) as caught:
        command(job)

    assert caught.value.external_id == f"{socket.gethostname()}/{job.id}"


def test_the_log_is_shown_to_nobody_if_the_operator_wants_that(allow: Allow) -> None:
    allow("echo secret; exit 1", "show = 0")

    assert "secret" not in failure(JobFailed, make_job(Config("build")))


@pytest.mark.parametrize("told", list(FailureType))
def test_an_exit_status_may_mean_any_of_awss_failures(allow: Allow, told: FailureType) -> None:
    allow("exit 77", f'failures = {{ 77 = "{told}" }}')

    with pytest.raises(Failure, match="exit status 77") as caught:
        command(make_job(Config("build")))

    assert caught.value.type is told


def test_other_statuses_than_the_mapped_ones_fail_the_job(allow: Allow) -> None:
    allow("exit 76", 'failures = { 77 = "PermissionError" }')

    with pytest.raises(JobFailed):
        command(make_job(Config("build")))


class Refusing(MemoryStorage):
    def store(self, name: str, path: Path, content_type: str) -> None:
        raise PermissionDenied("The bucket refuses.")


def refused(tmp_path: Path) -> MadeJob[Config]:
    bench = Bench(Refusing(), tmp_path)
    outputs = Artifacts("output", [OutputArtifact("Log", bench=bench)])
    return replace(make_job(Config("build")), outputs=outputs)


def test_a_log_that_cannot_be_kept_does_not_hide_why_the_command_failed(
    allow: Allow, tmp_path: Path
) -> None:
    allow("exit 9")

    assert "exit status 9" in failure(JobFailed, refused(tmp_path))


def test_a_log_that_cannot_be_kept_fails_a_command_that_succeeded(
    allow: Allow, tmp_path: Path
) -> None:
    allow("exit 0")

    assert failure(PermissionDenied, refused(tmp_path)) == "The bucket refuses."


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("kill -USR1 $$", "was killed by SIGUSR1 after"),
        ("kill -40 $$", "was killed by signal 40 after"),
        ("kill -9 $$", "was killed by SIGKILL (perhaps it needed more than the machine has) after"),
        ("sh -c 'kill -9 $$'; exit $?", "exit status 137, as of one killed by SIGKILL (perhaps"),
        ("exit 255", "ended with exit status 255 after"),
        ("exit 128", "ended with exit status 128 after"),
    ],
)
def test_a_signal_is_named(allow: Allow, script: str, told: str) -> None:
    allow(script)

    assert told in failure(JobFailed, make_job(Config("build")))


def test_a_file_beyond_the_limit_ends_it_and_the_limit_is_named(allow: Allow) -> None:
    allow("exec dd if=/dev/zero of=big bs=4096 count=100", 'file_size = "64KiB"')

    message = failure(JobFailed, make_job(Config("build")))

    assert (
        "was killed by SIGXFSZ (it may write no file larger than its file_size, 64.0KiB" in message
    )


def test_memory_beyond_the_limit_is_not_given(allow: Allow) -> None:
    allow(f'exec {sys.executable} -c "bytearray(600 * 2**20)"', 'memory = "300MiB"')

    assert "MemoryError" in failure(JobFailed, make_job(Config("build")))


def test_memory_within_the_limit_is_given_and_there_is_none_by_default(allow: Allow) -> None:
    within = f'exec {sys.executable} -c "bytearray(100 * 2**20)"'

    log_of(allow, within, 'memory = "300MiB"')

    assert log_of(allow, "ulimit -v") == "unlimited\n"


def test_it_leaves_no_core_behind_even_where_the_worker_may(allow: Allow) -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        assert log_of(allow, "ulimit -c; ulimit -H -c") == "0\n0\n"
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


def test_a_signal_that_lack_of_memory_may_cause_names_the_limit(allow: Allow) -> None:
    allow("kill -ABRT $$", 'memory = "64MiB"')

    message = failure(JobFailed, make_job(Config("build")))

    assert "was killed by SIGABRT (perhaps it needed more than its memory, 64.0MiB)" in message


def test_a_program_that_the_worker_lacks_is_the_operators_affair(
    allow: Allow, tmp_path: Path
) -> None:
    for name in ["no-such-program", "/no/such/program"]:
        (tmp_path / "commands.toml").write_text(f'[commands.build]\nrun = ["{name}"]')

        message = failure(SystemUnavailable, make_job(Config("build")))

        assert f"no program {name}; its operator must install it" in message


def test_its_program_is_looked_up_in_the_path_that_it_sees(allow: Allow, tmp_path: Path) -> None:
    tool = tmp_path / "our-compiler"
    tool.write_text("#!/bin/sh\necho compiled")
    tool.chmod(0o755)
    lines = ['run = ["our-compiler"]', f'environment = {{ PATH = "{tmp_path}:/bin" }}']
    (tmp_path / "commands.toml").write_text("\n".join(["[commands.build]", *lines]))
    job = make_job(Config("build"), outputs=["Log"])

    build(job)

    assert job.written["Log"] == b"compiled\n"


@pytest.mark.parametrize("files", [{"other": ""}, {"build.sh": "not executable"}])
def test_a_program_that_the_sources_lack_is_the_pipelines_affair(
    allow: Allow, tmp_path: Path, files: dict[str, str]
) -> None:
    (tmp_path / "commands.toml").write_text('[commands.build]\nrun = ["./build.sh"]')

    message = failure(ConfigurationError, make_job(Config("build"), inputs={"App": files}))

    assert message == "The sources hold no ./build.sh that may be executed."


def script_in_zip(text: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        entry = zipfile.ZipInfo("build.sh")
        entry.external_attr = 0o100755 << 16
        archive.writestr(entry, text)
    return held.getvalue()


def test_a_program_of_the_sources_runs(allow: Allow, tmp_path: Path) -> None:
    table = '[commands.build]\nrun = ["./build.sh", "$HOME;"]'
    (tmp_path / "commands.toml").write_text(table)
    inputs = {"App": script_in_zip('#!/bin/sh\necho "got $1"')}
    job = make_job(Config("build"), inputs=inputs, outputs=["Log"])

    build(job)

    assert job.written["Log"] == b"got $HOME;\n"


def test_a_program_whose_interpreter_is_absent_says_so(allow: Allow, tmp_path: Path) -> None:
    (tmp_path / "commands.toml").write_text('[commands.build]\nrun = ["./build.sh"]')
    inputs = {"App": script_in_zip("#!/no/such/shell")}

    message = failure(JobFailed, make_job(Config("build"), inputs=inputs))

    assert "exit status 127" in message
    assert "not found" in message


def test_a_worker_that_cannot_start_it_says_why(allow: Allow) -> None:
    allow("true", f"environment = {{ HUGE = '{'x' * 200_000}' }}")

    message = failure(SystemUnavailable, make_job(Config("build")))

    assert "worker itself failed at the command build (Argument list too long)" in message


# Its time


def test_a_command_beyond_its_timeout_is_asked_to_leave_and_its_limit_is_named(
    allow: Allow,
) -> None:
    allow("trap 'echo cleaned up; exit 0' TERM; echo go; sleep 60 & wait", "timeout = 0.3")
    job = make_job(Config("build"), outputs=["Log"])

    message = failure(JobFailed, job)

    assert message.startswith(
        "The command build did not end within 0.3 seconds, its timeout.\nThe log ends:\ngo\n"
    )
    assert job.written["Log"] == b"go\ncleaned up\n"


def test_a_command_that_does_not_leave_is_killed(allow: Allow) -> None:
    allow("trap '' TERM; sleep 60; sleep 60", "timeout = 0.1")
    began = datetime.now(UTC)

    failure(JobFailed, make_job(Config("build")))

    assert timedelta(seconds=3) < datetime.now(UTC) - began < timedelta(seconds=20)


def test_the_jobs_own_time_counts_too_and_some_is_kept_to_tell_of_it(allow: Allow) -> None:
    allow("exec sleep 60")
    deadline = datetime.now(UTC) + timedelta(seconds=2)

    message = failure(JobFailed, make_job(Config("build"), deadline=deadline))

    assert datetime.now(UTC) < deadline
    assert "seconds, what its job had left" in message


def test_a_job_that_has_no_time_left_says_so(allow: Allow) -> None:
    allow("exec sleep 60")
    deadline = datetime.now(UTC) - timedelta(seconds=2)

    message = failure(JobFailed, make_job(Config("build"), deadline=deadline))

    assert "did not end within 0 seconds" in message


class Stopping(MadeJob[Config]):
    """Its worker is told to stop when the command has made this file."""

    @property
    def stopping(self) -> bool:
        return (self.workdir / "home/started").exists()


def stopped_when_started() -> Stopping:
    return Stopping(**vars(make_job(Config("build"), outputs=["Log"])))


def test_a_short_command_ends_well_while_its_worker_stops(allow: Allow) -> None:
    allow("touch ~/started; sleep 0.5; echo done", "grace = 30")
    job = stopped_when_started()

    build(job)

    assert job.written["Log"] == b"done\n"


def test_a_long_command_is_ended_after_its_grace_and_says_that_the_worker_was_stopped(
    allow: Allow,
) -> None:
    allow("echo up; touch ~/started; exec sleep 60", "grace = 0.1")
    job = stopped_when_started()

    message = failure(SystemUnavailable, job)

    assert "The worker was stopped while the command build ran" in message
    assert "run the action again" in message
    assert job.written["Log"] == b"up\n"


def test_a_command_that_was_ended_beside_its_worker_did_not_fail_by_itself(allow: Allow) -> None:
    allow("touch ~/started; sleep 0.5; kill -TERM $$", "grace = 30")

    message = failure(SystemUnavailable, stopped_when_started())

    assert "The worker was stopped" in message


def test_a_command_that_ends_itself_by_term_did_fail(allow: Allow) -> None:
    allow("kill -TERM $$")

    assert "was killed by SIGTERM" in failure(JobFailed, make_job(Config("build")))


def test_nothing_starts_on_a_worker_that_stops_so_another_may_run_it(
    allow: Allow, tmp_path: Path
) -> None:
    allow(f"touch {tmp_path}/ran")

    with pytest.raises(Retry):
        command(make_job(Config("build"), stopping=True))

    assert not (tmp_path / "ran").exists()


class Told(MadeJob[Config]):
    """Lets the command end when a note has shown its line."""

    def progress(self, percent: int | None = None, note: str = "") -> None:
        super().progress(percent, note)
        if note.endswith("way"):
            (self.workdir / "home/told").touch()


def test_progress_tells_the_last_line_and_of_a_silent_command_the_time(allow: Allow) -> None:
    allow("sleep 0.5; printf 'half\\nway '; until [ -e ~/told ]; do sleep 0.05; done")
    job = Told(**vars(make_job(Config("build"))))

    build(job)

    first, second = job.control.progress_calls
    assert (first.percent, first.note) == (None, "build has run for 0 s")
    assert (second.percent, second.note) == (None, "build has run for 2 s: way")


class Slow(MadeJob[Config]):
    """Its handler is busy with a note until the command has ended."""

    def progress(self, percent: int | None = None, note: str = "") -> None:
        pid = self.workdir / "home/pid"
        eventually(lambda: pid.exists() and pid.read_text().endswith("\n"), "it has started")
        command = psutil.Process(int(pid.read_text()))
        eventually(lambda: command.status() == psutil.STATUS_ZOMBIE, "it has ended")


def test_what_a_command_wrote_last_is_in_the_log(allow: Allow) -> None:
    allow("echo $$ > ~/pid; sleep 0.3; yes | head -c 65000; echo last; exit 1")
    job = Slow(**vars(make_job(Config("build"), outputs=["Log"])))

    message = failure(JobFailed, job)

    assert message.endswith("\nlast")
    assert len(job.written["Log"]) == 65_005


def test_a_command_that_closes_its_output_is_waited_for_at_rest(
    allow: Allow, tmp_path: Path
) -> None:
    allow(f"exec >&- 2>&-; sleep 0.8; touch {tmp_path}/done")
    busy = time.thread_time()

    build(make_job(Config("build")))

    assert (tmp_path / "done").exists()
    assert time.thread_time() - busy < 0.1


# Bad text, and much of it


def test_no_text_of_a_command_breaks_a_message(allow: Allow) -> None:
    allow(
        r"printf 'bad \377\376 \033[31mred\033[0m \033]0;title\007tab\there\000\016\n';"
        r"printf 'at 1%%\rat 100%%\r\n'; printf 'turned \342\200\256 around\n';"
        r"head -c 100000 /dev/zero | tr '\0' w; exit 1"
    )

    message = failure(JobFailed, make_job(Config("build")))

    _, _, huge = message.split("\n")
    assert huge == "w" * 300


def test_lines_before_the_end_are_shown_without_what_a_terminal_obeys(allow: Allow) -> None:
    allow(
        r"printf 'bad \377\376 \033[31mred\033[0m \033]0;title\007tab\there\000\016\n';"
        r"printf 'at 1%%\rat 100%%\r\n'; printf 'turned \342\200\256 around\n\n'; exit 1"
    )

    message = failure(JobFailed, make_job(Config("build")))

    assert message.split("\n")[2:] == [
        "bad \ufffd\ufffd red tab here",
        "at 100%",
        "turned  around",
    ]


def test_a_message_keeps_the_last_of_many_long_lines(allow: Allow) -> None:
    allow("for n in $(seq 50); do printf '%0290d line %s\\n' 0 $n; done; exit 1", "show = 50")

    message = failure(JobFailed, make_job(Config("build")))

    assert message.endswith("line 50")
    assert len(message) < 4_200


def test_gigabytes_of_output_cost_no_disk_beyond_the_logs_size(allow: Allow) -> None:
    # Half a gigabyte, so that the test is quick; nothing depends on how much it is.
    allow(
        "echo first; head -c 500000000 /dev/zero; du -sk ../.. | cut -f1 > du; echo; echo last",
        'log_size = "64KiB"',
        'outputs = ["du"]',
    )
    job = make_job(Config("build"), outputs=["Du", "Log"])

    build(job)

    log = job.written["Log"]
    assert log.startswith(b"first\n")
    assert log.endswith(b"\nlast\n")
    assert b" bytes are left out here: log_size is 65536]" in log
    assert 60_000 < len(log) <= 65_536
    assert int(job.written["Du"]) < 200


# Output variables


def test_lines_of_the_variables_file_become_output_variables(allow: Allow) -> None:
    allow('echo "Version=1.2=3" >> "$CODEPIPELINE_VARIABLES_FILE"')

    outcome = build(make_job(Config("build")))

    assert outcome.variables == {"Version": "1.2=3"}
    assert "variables: 1" in outcome.summary


def test_a_bad_variable_fails_the_job_and_names_the_line(allow: Allow) -> None:
    allow('printf "A=1\\nnothing\\n" > "$CODEPIPELINE_VARIABLES_FILE"')
    job = make_job(Config("build"), outputs=["Log"])

    message = failure(JobFailed, job)

    assert message.startswith("CODEPIPELINE_VARIABLES_FILE, line 2, must be KEY=VALUE")
    assert "Log" in job.written


@pytest.mark.parametrize("script", ["mkfifo {}", "mkdir {}", "ln -s /etc/passwd {}"])
def test_a_variables_file_that_is_no_file_is_not_read(allow: Allow, script: str) -> None:
    allow(script.format("$CODEPIPELINE_VARIABLES_FILE"))

    assert "is no plain file any more" in failure(JobFailed, make_job(Config("build")))


def test_variables_of_a_failed_command_do_not_matter(allow: Allow) -> None:
    allow('echo nothing > "$CODEPIPELINE_VARIABLES_FILE"; exit 4')

    assert "exit status 4" in failure(JobFailed, make_job(Config("build")))
