"""What an operator does in a day: find a failed job, see why, pause its provider, resume it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from redis import Redis
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

import dispatcher as dispatcher_package
from dispatcher.redis_server import RedisServer
from tests.browser import lively, written
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


EVIL = "<img src=x onerror=alert(1)></script>{{1+1}}\"onmouseover='alert(1)"
FILTERS = ("job", "provider", "client", "state", "q")


def is_text(browser: Chrome, url: str) -> None:
    """An alert would raise at the next command."""
    browser.get(url)
    eventually(lambda: browser.find_elements(By.CSS_SELECTOR, "[data-live]"), "the page is there")
    assert not browser.find_elements(By.CSS_SELECTOR, "main img, main script, [onmouseover]")
    assert not browser.find_elements(By.CSS_SELECTOR, "main a[href^='javascript']")


def test_whatever_a_pipeline_or_a_viewer_can_set_is_shown_as_text(
    redis_server: RedisServer, redis: Redis, tmp_path: Path, browser: Chrome
) -> None:
    place = written.place(EVIL, EVIL, EVIL, arn="javascript:alert(1)", execution_id=EVIL)
    verdict = {
        "kind": "failure", "message": EVIL, "failure_type": EVIL, "external_id": EVIL,
        "revision": {"revision": EVIL}, "variables": {EVIL: EVIL},
    }  # fmt: skip
    written.announce(redis, "AcmeDeploy", {f"{EVIL}@host/1": 4})
    job = "evil-1"
    said = {"owner": f"{EVIL}/x/y", "percent": 5, "note": EVIL}
    written.write(redis, written.Written(
        job, client=EVIL, fields=said, pipeline=place, verdict=verdict, life=((EVIL, EVIL),),
    ))  # fmt: skip
    written.write_ended(redis, "evil-2", EVIL, EVIL, client=EVIL, pipeline=place, worker=EVIL)

    with fleet(redis_server.url, tmp_path) as made:
        flower = start(made).ready()
        browser.get_log("browser")  # type: ignore[no-untyped-call]
        is_text(browser, f"{flower.url}/jobs")
        assert text(browser).count("onerror") > 4
        for page in (job, "evil-2", EVIL):
            is_text(browser, f"{flower.url}/jobs/{quote(page, safe='')}")
            assert "onerror" in text(browser)
        for name in FILTERS:
            is_text(browser, f"{flower.url}/jobs?{urlencode({name: EVIL})}")
        for name in ("job", "client", "q"):
            is_text(browser, f"{flower.url}/jobs?{urlencode({name: EVIL})}")
            field = browser.find_element(By.NAME, name)
            assert field.get_property("value") == EVIL
        said_by = [str(one) for one in browser.get_log("browser")]  # type: ignore[no-untyped-call]

    assert not [one for one in said_by if "Content Security Policy" in one]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("job=aaaa", {"aaaa-1"}),
        ("provider=AcmeScan", {"bbbb-1"}),
        ("client=tenant-b", {"bbbb-1"}),
        ("state=running", {"aaaa-1"}),
        ("q=STOREFRONT", {"aaaa-1", "cccc-1"}),
        ("q=storefront&state=reported", {"cccc-1"}),
        ("client=nobody", set()),
    ],
)
def test_a_filter_shows_what_it_names(
    board: Flower, browser: Chrome, asked: str, found: set[str]
) -> None:
    browser.get(f"{board.url}/jobs?{asked}")

    rows = browser.find_elements(By.CSS_SELECTOR, "tr[data-job]")
    assert {row.get_attribute("data-job") for row in rows} == found
    assert bool(found) != ("No job matches" in text(browser))


def test_the_counts_are_links_that_filter(board: Flower, browser: Chrome) -> None:
    browser.get(f"{board.url}/jobs")
    browser.find_element(By.CSS_SELECTOR, "tr[data-provider='AcmeScan'] a").click()
    (row,) = browser.find_elements(By.CSS_SELECTOR, "tr[data-job]")
    assert row.get_attribute("data-job") == "bbbb-1"

    browser.get(f"{board.url}/jobs")
    browser.find_element(By.PARTIAL_LINK_TEXT, "Running").click()
    (row,) = browser.find_elements(By.CSS_SELECTOR, "tr[data-job]")
    assert row.get_attribute("data-job") == "aaaa-1"


@pytest.fixture
def board(redis: Redis, quiet: tuple[Fleet, Flower]) -> Flower:
    """Three jobs, in the Flower that all these tests share."""
    place = written.place("storefront")
    written.announce(redis, "AcmeDeploy", {"acme1@host/1": 4})
    written.announce(redis, "AcmeScan", {"scan1@host/1": 4})
    scan = "ThirdParty.Test.AcmeScan.1"
    waits = written.Written("bbbb-1", "queued", scan, "waiting", "tenant-b", fields={"ack": "no"})
    written.write(redis, written.Written("aaaa-1", pipeline=place), waits)
    written.write_ended(redis, "cccc-1", "success", "live", pipeline=place)
    _, flower = quiet
    eventually(lambda: "cccc-1" in flower.ask("/jobs")[1], "an earlier reading has served")
    return flower


@pytest.fixture(scope="module")
def quiet(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Fleet, Flower]]:
    """A Flower without a fleet."""
    with fleet(redis_server.url, tmp_path_factory.mktemp("quiet")) as made:
        yield made, start(made).ready()


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
