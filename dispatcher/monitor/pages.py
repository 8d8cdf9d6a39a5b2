"""The pages /jobs and /jobs/<id> of Flower. They read, and change nothing."""

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Final

from flower.views import BaseHandler
from tornado.ioloop import IOLoop
from tornado.web import StaticFileHandler, authenticated, url

from dispatcher.engine.model import LedgerDown
from dispatcher.monitor import shown
from dispatcher.monitor.console import console_url
from dispatcher.monitor.readings import Board, Readings, Story
from dispatcher.store.records import State, Wanted

STATIC: Final = Path(__file__).parent / "static"
THREADS: Final = 4
DOWN_FOR: Final = 5.0  # seconds
ASKED_MOST: Final = 200  # characters of a filter
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; "  # Bootstrap's own icons are data: URLs
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
NOT_FOR_OTHERS: Final = "Access-Control-Allow-Origin"  # Flower sets it if its API is open


class Desk:
    """Asks the ledger in threads of its own: a Redis that hangs holds up no page of Flower's.

    After a failure nobody asks for a moment: what waits behind it would only hang longer.
    """

    def __init__(self, readings: Callable[[], Readings]) -> None:
        self._readings = readings
        self._down = (0.0, "")  # until when, and why
        self._threads = ThreadPoolExecutor(THREADS, "jobs")
        self._asked: Any = None

    async def board(self) -> Board:
        """Whoever asks while another waits gets the same answer."""
        if self._asked is None or self._asked.done():
            self._asked = self._run(lambda: self._readings().board())
        board: Board = await self._asked
        return board

    async def job(self, job_id: str) -> Story | None:
        story: Story | None = await self._run(lambda: self._readings().job(job_id))
        return story

    def _run(self, ask: Callable[[], object]) -> Any:
        return IOLoop.current().run_in_executor(self._threads, lambda: self._unless_down(ask))

    def _unless_down(self, ask: Callable[[], object]) -> object:
        until, why = self._down
        if time.monotonic() < until:
            raise LedgerDown(why)
        try:
            return ask()
        except LedgerDown as error:
            self._down = time.monotonic() + DOWN_FOR, str(error)
            raise


class Page(BaseHandler):  # type: ignore[misc]  # Flower has no types
    def initialize(self, desk: Desk) -> None:
        self.desk = desk

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.clear_header(NOT_FOR_OTHERS)
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def show(self, template: str, **values: object) -> None:
        self.render(template, shown=shown, State=State, asset=self._asset, **values)

    def _asset(self, name: str) -> str:
        return f"{self.reverse_url('jobs-static', name)}?v={_version(name)}"

    def asked(self, name: str) -> str:
        return str(self.get_query_argument(name, ""))[:ASKED_MOST]


class JobsPage(Page):
    @authenticated
    async def get(self) -> None:
        wanted = Wanted(
            self.asked("job"),
            self.asked("provider"),
            self.asked("client"),
            self.asked("state"),
            self.asked("q"),
        )
        try:
            listing = shown.Listing(await self.desk.board(), wanted)
        except LedgerDown as error:
            self.set_status(503)
            self.show("jobs.html", listing=None, wanted=wanted, down=str(error))
            return
        self.show("jobs.html", listing=listing, wanted=wanted, down="")


class JobPage(Page):
    @authenticated
    async def get(self, job_id: str) -> None:
        try:
            story = await self.desk.job(job_id)
        except LedgerDown as error:
            self.set_status(503)
            self.show("job.html", job_id=job_id, story=None, console=None, down=str(error))
            return
        if story is None:
            self.set_status(404)
        console = console_url(story.record.pipeline) if story else None
        self.show("job.html", job_id=job_id, story=story, console=console, down="")


class Assets(StaticFileHandler):
    """They hold nothing of anybody's: no password is asked for."""

    def set_extra_headers(self, path: str) -> None:  # noqa: ARG002
        self.set_header("X-Content-Type-Options", "nosniff")


def handlers(desk: Desk) -> list[url]:
    return [
        url(r"/jobs", JobsPage, {"desk": desk}, name="jobs"),
        url(r"/jobs/(.+)", JobPage, {"desk": desk}, name="job"),
        url(r"/jobs-static/(.*)", Assets, {"path": str(STATIC)}, name="jobs-static"),
    ]


@cache
def _version(name: str) -> str:
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
