"""How `celery -A dispatcher flower` starts: real processes, by what they listen on and answer."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from celery import Celery

from dispatcher.redis_server import RedisServer, free_port
from tests.browser.flowers import Flower, start
from tests.harness import PROBES, Fleet, eventually, fleet

ALL = "0.0.0.0"  # noqa: S104 - what is tested
EVERYWHERE = {ALL, "::"}
SEND = "/api/task/send-task/dispatcher.tick"
OPEN_API = {"FLOWER_UNAUTHENTICATED_API": "true"}
SETPRIV = shutil.which("setpriv")
UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
NEEDS_PRIVILEGED_PORTS = pytest.mark.skipif(
    SETPRIV is None or UNPRIVILEGED.read_text() == "0\n",
    reason="each user may listen on each port here",
)


@pytest.fixture(scope="module")
def made(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(redis_server.url, tmp_path_factory.mktemp("starts")) as one:
        yield one


@pytest.fixture(scope="module")
def started(made: Fleet) -> Mapping[str, Flower]:
    """All at once, since each takes two seconds to start."""
    conf = made.folder / "flowerconfig.py"
    conf.write_text("basic_auth = ['operator:secret']\nread_only = False\nmax_tasks = 77\n")
    flowers = {
        "plain": start(made, env=OPEN_API),
        "env": start(made, env={"FLOWER_BASIC_AUTH": "operator:secret"}),
        "conf": start(made, f"--conf={conf}"),
        "argv": start(
            made, "--basic-auth=operator:secret", "--address=127.0.0.1", "--read_only=false",
            "--url_prefix=ops/flower", prefix="/ops/flower",
        ),
        "exposed": start(made, "--address=0.0.0.0", env={"XDG_STATE_HOME": "/proc/nowhere"}),
        "writable": start(made, "--read-only=false", "--persistent=false", env=OPEN_API),
        "quiet": quiet(made),
    }  # fmt: skip
    for flower in flowers.values():
        flower.ready()
    return flowers


def quiet(made: Fleet) -> Flower:
    """Celery's own options stand before `flower`."""
    port = free_port()
    celery = ("celery", "-A", "dispatcher", "--quiet", "--no-color")
    flower = ("flower", "--", f"-port={port}", "--auto_refresh=false", "")
    return Flower(made.start("flower", *celery, *flower), port)


@pytest.fixture(scope="module")
def refused(made: Fleet) -> Iterator[Mapping[str, Flower]]:
    """All at once, and over."""
    conf = made.folder / "wrongconfig.py"
    conf.write_text("basic_auth = ['operator:secret', 'op:']\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flowers = {
            "env": start(made, env={"FLOWER_BASIC_AUTH": "secret:"}),
            "argv": start(made, "--basic_auth=operator:secret,secret"),
            "conf": start(made, f"--conf={conf}"),
            "address": start(made, "--address=999.1.1.1"),
            "taken": start(made, port=taken.getsockname()[1]),
            "kind": start(made, "--port=abc"),
            "spelling": start(made, "--basic_auht=operator:secret", "--address=0.0.0.0"),
        }
        for flower in flowers.values():
            flower.process.wait()
        yield flowers


def test_without_a_password_it_is_for_this_machine_alone(started: Mapping[str, Flower]) -> None:
    plain = started["plain"]

    assert plain.listens() == {"127.0.0.1"}
    assert "listens on 127.0.0.1" in plain.process.output
    assert "/metrics and /healthcheck ask nobody" in plain.process.output
    assert plain.ask("/jobs")[0] == 200


@pytest.mark.parametrize("given", ["env", "conf"])
def test_with_a_password_it_is_for_all_who_know_it(
    started: Mapping[str, Flower], given: str
) -> None:
    flower = started[given]

    assert flower.listens() <= EVERYWHERE
    assert "WARNING" not in flower.process.output
    assert "sees jobs" not in flower.process.output
    for path in ("/jobs", "/jobs/any"):
        assert flower.ask(path)[0] == 401
        assert flower.ask(path, "operator:wrong")[0] == 401
    assert flower.ask("/jobs", "operator:secret")[0] == 200
    assert flower.ask("/jobs/any", "operator:secret")[0] == 404


def test_celerys_own_options_stand_before_it(started: Mapping[str, Flower]) -> None:
    assert started["quiet"].ask("/jobs")[0] == 200
    assert "Visit me" not in started["quiet"].process.output
    assert "Visit me" in started["plain"].process.output


def test_an_address_that_is_asked_for_is_obeyed(started: Mapping[str, Flower]) -> None:
    exposed, argv = started["exposed"], started["argv"]

    assert exposed.listens() == {ALL}
    assert exposed.process.output.count("anybody who reaches it") == 1
    assert "FLOWER_BASIC_AUTH" in exposed.process.output
    assert argv.listens() == {"127.0.0.1"}
    assert "anybody who reaches it" not in argv.process.output


def test_it_changes_nothing_unless_that_is_asked_for(started: Mapping[str, Flower]) -> None:
    assert started["plain"].ask(SEND, method="POST")[0] == 403
    assert started["env"].ask(SEND, "operator:secret", "POST")[0] == 403
    for name in ("argv", "conf", "writable"):
        assert started[name].ask(SEND, "operator:secret", "POST")[0] == 200


def test_a_prefix_holds_for_the_pages_and_all_they_link_to(started: Mapping[str, Flower]) -> None:
    flower = started["argv"]

    code, page, _ = flower.ask("/jobs", "operator:secret")

    assert (code, flower.ask("/jobs")[0]) == (200, 401)
    assert 'href="/ops/flower/jobs"' in page
    assert '"/jobs' not in page
    for name in ("jobs.css", "jobs.js"):
        assert f"/ops/flower/jobs-static/{name}?v=" in page
        assert flower.ask(f"/jobs-static/{name}")[0] == 200


def test_pages_are_for_reading_alone(started: Mapping[str, Flower]) -> None:
    for path in ("/jobs", "/jobs/any"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert started["plain"].ask(path, method=method)[0] == 405


def test_pages_are_kept_by_no_cache_and_shown_in_no_frame(started: Mapping[str, Flower]) -> None:
    for path in ("/jobs", "/jobs/any"):
        headers = started["plain"].ask(path)[2]

        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers  # though its API is open
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_every_page_of_flowers_has_the_tab(started: Mapping[str, Flower]) -> None:
    for path in ("/", "/workers", "/tasks", "/broker", "/nowhere"):
        assert '"/jobs"' in started["plain"].ask(path)[1]


def test_a_place_that_cannot_be_written_costs_the_memory_alone(
    started: Mapping[str, Flower],
) -> None:
    said = started["exposed"].process.output

    assert said.count("--db=FILE") == 1
    assert "/proc/nowhere/codepipeline-dispatcher cannot be made" in said
    assert started["exposed"].ask("/jobs")[0] == 200


def test_what_it_remembers_outlives_it_and_is_its_users_alone(made: Fleet) -> None:
    first = start(made, env={"FLOWER_STATE_SAVE_INTERVAL": "2000"}).ready()
    folder = made.folder / "state" / "codepipeline-dispatcher"
    tell_of_task(made.redis_url, "task-that-was-seen", first)
    keeps(folder, first.port, b"task-that-was-seen")

    first.process.signal(signal.SIGKILL)
    first.process.wait()
    second = start(made, port=first.port).ready()

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert second.ask("/task/task-that-was-seen")[0] == 200
    assert "WARNING" not in second.process.output


def tell_of_task(url: str, task: str, flower: Flower) -> None:
    """As a worker does, until Flower has heard it: events that nobody listens to are lost."""
    with Celery("teller", broker=url, set_as_current=False) as app:

        def tell() -> bool:
            with app.events.default_dispatcher(hostname="w@test") as dispatcher:
                dispatcher.send("task-received", uuid=task, name="told", args="", kwargs="")
            return flower.ask(f"/task/{task}")[0] == 200

        eventually(tell, "Flower knows the task", every=0.1)


def keeps(folder: Path, port: int, what: bytes) -> None:
    def kept() -> bool:
        """And not just being written: Flower begins its file anew with each save."""
        files = [Path(one) for one in os.scandir(folder) if one.name.startswith(f"flower-{port}-")]
        at_rest = all(time.time() - file.stat().st_mtime > 0.3 for file in files)
        return at_rest and any(what in file.read_bytes() for file in files if file.is_file())

    eventually(kept, "the state is on disk")


@pytest.mark.parametrize(
    ("given", "named", "fix"),
    [
        ("env", "FLOWER_BASIC_AUTH: ", "must be user:password"),
        ("argv", "--basic_auth: ", "must be user:password"),
        ("conf", "basic_auth in ", "must be user:password"),
        ("address", "--address: 999.1.1.1 ", "as in --address=127.0.0.1."),
        ("taken", "--port: ", "on 127.0.0.1 is taken; choose another, as in --port=5555."),
        ("kind", "--port: ", "must be a whole number."),
        ("spelling", "--basic_auht: ", "did you mean --basic-auth?"),
    ],
)
def test_what_cannot_be_meant_so_is_one_sentence(
    refused: Mapping[str, Flower], given: str, named: str, fix: str
) -> None:
    (sentence,) = refused[given].process.output.splitlines()

    assert refused[given].process.wait() == 2
    assert sentence.startswith(named)
    assert fix in sentence
    assert "secret" not in sentence


@NEEDS_PRIVILEGED_PORTS
def test_a_port_that_its_user_may_not_have_is_one_sentence(made: Fleet) -> None:
    celery = str(Path(sys.executable).with_name("celery"))
    as_anybody = () if os.geteuid() else (str(SETPRIV), "--bounding-set=-net_bind_service")

    ended = subprocess.run(
        [*as_anybody, celery, "-A", "dispatcher", "flower", "--port=1023"],
        env=made.env, cwd=PROBES, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "--port: 1023 needs a right that this user lacks; choose another, as in --port=5555.\n"
    )
