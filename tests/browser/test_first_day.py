"""A new user's first day: the demo, a failed job, a pause, more workers and fewer again.

What is typed is what the demo says; the pages are read in a real browser."""

import json
import os
import pty
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from dispatcher.emulator.client import Emulator
from tests.harness import BIN, NEEDS_CURL, eventually

ROOT = Path(__file__).parents[2]
USER = {"PATH": os.environ["PATH"], "AWS_PROFILE": "the user's own", "C_FORCE_ROOT": "1"}
LOAD = 250  # jobs, while workers come and go


@dataclass
class Demo:
    said: str

    def line(self, word: str) -> str:
        """What the demo says to type, without its comment."""
        [found] = [line for line in self.said.splitlines() if line.strip().startswith(word)]
        return found.partition("#")[0].strip()

    def shell(self, command: str) -> list[str]:
        """As typed into a second terminal, which knows nothing but what the demo says."""
        return ["sh", "-ec", f"{self.line('cd ')}\n{command}"]

    def type(self, command: str) -> str:
        done = subprocess.run(
            self.shell(command), env=USER, check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    @property
    def flower(self) -> str:
        found = re.search(r"Flower: +(http://127\.0\.0\.1:\d+)", self.said)
        assert found is not None
        return found[1]

    def aws(self) -> Emulator:
        return Emulator(self.type("echo $AWS_ENDPOINT_URL_CODEPIPELINE").strip())


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    ours, theirs = pty.openpty()
    env = {**os.environ, "TMPDIR": str(folder), "COLUMNS": "100", "LINES": "40"}
    with subprocess.Popen(
        [str(BIN / "dispatcher"), "demo"],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=env,
    ) as running:  # fmt: skip
        os.close(theirs)
        said = ""
        while "until Ctrl-C" not in said:
            said += os.read(ours, 4096).decode()
        yield Demo(said.replace("\r", ""))

        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0
    os.close(ours)
    assert list(folder.iterdir()) == []


def page(browser: Chrome) -> str:
    return browser.find_element(By.TAG_NAME, "main").text


def states(aws: Emulator, jobs: Sequence[str]) -> set[str]:
    return {one.status for one in aws.jobs() if one.id in jobs}


def test_the_failed_job_is_found_and_its_page_says_why(demo: Demo, browser: Chrome) -> None:
    browser.get(demo.flower)
    browser.find_element(By.LINK_TEXT, "Jobs").click()
    field = eventually(lambda: browser.find_elements(By.NAME, "q"), "the filter")[0]
    field.send_keys("told to fail", Keys.ENTER)
    rows = "tr[data-job]"
    eventually(lambda: len(browser.find_elements(By.CSS_SELECTOR, rows)) == 1, "one job is found")
    job = browser.find_element(By.CSS_SELECTOR, rows).get_attribute("data-job")
    browser.find_element(By.CSS_SELECTOR, f"{rows} a").click()

    eventually(lambda: "It was told to fail." in page(browser), "why it failed")

    for told in ("Echo", "JobFailed", "initech-pipeline"):
        assert told in page(browser)
    shown = demo.type(demo.line("dispatcher jobs"))
    assert job is not None
    assert job in shown
    assert "It was told to fail." in demo.type(f"dispatcher jobs show {job}")


@NEEDS_CURL
def test_a_paused_providers_jobs_stay_at_aws_until_it_is_resumed(
    demo: Demo, browser: Chrome
) -> None:
    badge = "tr[data-provider='Echo'] .badge"
    demo.type(demo.line("dispatcher pause"))

    jobs = json.loads(demo.type(demo.line("curl").replace("curl", "curl -s")))["jobIds"]
    browser.get(f"{demo.flower}/jobs")
    eventually(lambda: browser.find_elements(By.CSS_SELECTOR, badge), "the badge")
    aws = demo.aws()
    polls = len(aws.calls())

    assert browser.find_element(By.CSS_SELECTOR, badge).text == "paused"
    eventually(lambda: len(aws.calls()) > polls + 4, "the other provider is polled on")
    assert states(aws, jobs) == {"Queued"}

    demo.type("dispatcher resume Echo")

    eventually(lambda: states(aws, jobs) == {"Succeeded"}, "all are done")
    eventually(lambda: not browser.find_elements(By.CSS_SELECTOR, badge), "the badge is gone")
    assert "pause Echo" in demo.type("dispatcher audit")


def test_workers_come_and_go_under_load_and_no_job_is_lost_or_done_twice(
    demo: Demo, tmp_path: Path
) -> None:
    aws = demo.aws()
    logs = [tmp_path / f"more{number}" for number in range(3)]
    wanted = json.loads(Path(demo.line("curl").split("@")[1].split()[0]).read_text())
    with ExitStack() as stack:
        jobs = aws.ask("/_admin/jobs", {**wanted, "count": LOAD})["jobIds"]
        more = []
        for number in range(3):
            line = demo.line("celery").replace("more@", f"more{number}@")
            out = stack.enter_context(logs[number].open("w"))
            worker = stack.enter_context(
                subprocess.Popen(
                    demo.shell(f"exec {line}"),
                    stdout=out, stderr=out, env=USER,
                )
            )  # fmt: skip
            stack.callback(worker.kill)
            more.append(worker)
        eventually(lambda: demo.type("dispatcher workers").count("more") == 3, "they are there")

        jobs += aws.ask("/_admin/jobs", {**wanted, "count": LOAD})["jobIds"]
        eventually(lambda: all("reported" in log.read_text() for log in logs), "they work", 60)
        for worker in more:
            worker.terminate()

        assert [worker.wait(20) for worker in more] == [0, 0, 0]
        eventually(lambda: states(aws, jobs) == {"Succeeded"}, "all are done", within=60)
    puts = Counter(call.job_id for call in aws.calls("PutThirdPartyJobSuccessResult"))
    assert {job: puts[job] for job in jobs} == dict.fromkeys(jobs, 1)
    eventually(lambda: "more" not in demo.type("dispatcher workers"), "they are gone")
