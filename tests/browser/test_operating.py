"""What an operator does in a day: find a failed job, see why, pause its provider, resume it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

import dispatcher as dispatcher_package
from dispatcher.redis_server import RedisServer
from tests.browser import lively
from tests.browser.flowers import Flower, start
from tests.harness import BIN, Fleet, eventually, fleet


@pytest.fixture
def operated(
    redis_server: RedisServer, redis: Redis, tmp_path: Path
) -> Iterator[tuple[Fleet, Flower]]:
    with fleet(redis_server.url, tmp_path) as made:
        made.start_emulator("--ack-window", "3")
        made.start_beat()
        flower = start(made)
        made.start_worker("threads")
        yield made, flower.ready()


def dispatcher(made: Fleet, *arguments: str) -> None:
    subprocess.run(
        [str(BIN / "dispatcher"), *arguments],
        env=made.env,
        cwd=Path(__file__).parents[1] / "probes",
        check=True,
    )


def text(browser: Chrome) -> str:
    return browser.find_element(By.TAG_NAME, "main").text


def test_a_failed_job_is_found_its_provider_paused_and_resumed(
    operated: tuple[Fleet, Flower], browser: Chrome
) -> None:
    made, flower = operated
    (failed,) = made.submit(configuration={"Do": "fail"})
    (well,) = made.submit()
    made.ended(failed)
    made.ended(well)

    browser.get(f"{flower.url}/jobs?q=as+asked")
    row = f"tr[data-job='{failed}'] a"
    eventually(lambda: browser.find_elements(By.CSS_SELECTOR, row), "the failed job is found")
    assert not browser.find_elements(By.CSS_SELECTOR, f"tr[data-job='{well}']")
    browser.find_element(By.CSS_SELECTOR, row).click()
    eventually(lambda: "as asked" in text(browser), "why it failed")
    assert "JobFailed" in text(browser)
    assert "run-7" in text(browser)
    for step in ("offered", "begun", "started", "finished", "reported"):
        assert step in text(browser)

    dispatcher(made, "pause", "Probe")
    (kept,) = made.submit()
    browser.get(f"{flower.url}/jobs")
    badge = "tr[data-provider='Probe'] .badge"
    eventually(lambda: browser.find_elements(By.CSS_SELECTOR, badge), "the badge")
    assert browser.find_element(By.CSS_SELECTOR, badge).text == "paused"
    assert made.job(kept)["status"] == "Queued"

    dispatcher(made, "resume", "Probe")
    assert made.ended(kept)["status"] == "Succeeded"
    eventually(
        lambda: browser.find_elements(By.CSS_SELECTOR, f"tr[data-job='{kept}']"),
        "the page shows it without being asked again",
    )
    assert not browser.find_elements(By.CSS_SELECTOR, badge)


def test_the_metrics_are_on_flowers_own_page(operated: tuple[Fleet, Flower]) -> None:
    made, flower = operated
    (job,) = made.submit()
    made.ended(job)

    def told() -> bool:
        page = flower.ask("/metrics")[1]
        return 'codepipeline_results_total{outcome="success",provider="Probe"} 1.0' in page

    eventually(told, "the result is counted")
    page = flower.ask("/metrics")[1]
    assert "codepipeline_ledger_up 1.0" in page
    assert 'codepipeline_slots{provider="Probe"} 3.0' in page
    assert "flower_worker_online" in page


def test_a_pipelines_texts_are_shown_as_text(
    operated: tuple[Fleet, Flower], redis: Redis, browser: Chrome
) -> None:
    made, flower = operated
    evil = "<img src=x onerror=alert(1)></script>{{1+1}}\"onmouseover='alert(1)"
    (job,) = made.submit(configuration={"Do": "heed"})
    made.started(job)
    redis.hset(f"dispatcher:job:{job}", mapping={"note": evil, "client": evil, "percent": "5"})

    browser.get(f"{flower.url}/jobs?q=onerror&client=&job=%3Cscript%3E")
    browser.get(f"{flower.url}/jobs")
    eventually(lambda: "onerror" in text(browser), "the note is shown")
    assert not browser.find_elements(By.CSS_SELECTOR, "main img, main script")
    browser.get(f"{flower.url}/jobs/{job}")
    eventually(lambda: "onerror" in text(browser), "the note is shown")
    assert not browser.find_elements(By.CSS_SELECTOR, "main img, main script")
    violations = [str(one) for one in browser.get_log("browser")]  # type: ignore[no-untyped-call]
    assert not [one for one in violations if "Content Security Policy" in one]
    made.release(job)


SCREENSHOT = Path(dispatcher_package.__file__).parent / "docs" / "jobs.png"


def test_a_busy_board_is_readable_in_light_and_dark_and_on_a_phone(
    redis_server: RedisServer, redis: Redis, tmp_path: Path, browser: Chrome
) -> None:
    """With SCREENSHOT=1 the picture of the documentation is made anew."""
    lively.fill(redis)
    with fleet(redis_server.url, tmp_path) as made:
        flower = start(made).ready()
        colours = set()
        for theme in ("dark", "light"):
            browser.get(f"{flower.url}/jobs")
            browser.execute_script(
                "document.documentElement.setAttribute('data-bs-theme', arguments[0])", theme
            )
            body = browser.find_element(By.TAG_NAME, "body")
            colours.add(body.value_of_css_property("background-color"))
            browser.save_screenshot(str(tmp_path / f"{theme}.png"))
        if "SCREENSHOT" in os.environ:
            shutil.copy(tmp_path / "light.png", SCREENSHOT)
        browser.set_window_size(480, 900)
        wide = browser.execute_script(
            "return document.documentElement.scrollWidth - window.innerWidth"
        )
        browser.set_window_size(1280, 800)

    assert len(colours) == 2
    assert wide <= 0
    assert SCREENSHOT.stat().st_size > 10_000
