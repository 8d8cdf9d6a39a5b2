"""When a worker counts as one that stands still."""

import threading

import pytest

from dispatcher.stall import StallWatch


class Scene:
    def __init__(self, after: float = 10) -> None:
        self.now = 0.0
        self.wanting: bool | Exception = True
        self.arrives = False  # a message, while the look asks the broker
        self.watch = StallWatch(after, self.wants, lambda: None, lambda: self.now)

    def wants(self) -> bool:
        if isinstance(self.wanting, Exception):
            raise self.wanting
        if self.arrives:
            self.now += 0.5
            self.watch.received()
        return self.wanting

    def look(self, at: float) -> bool:
        self.now = at
        return self.watch.look()


def test_it_stands_still_when_for_so_long_something_waited_and_nothing_came() -> None:
    scene = Scene()

    assert [scene.look(at) for at in [*range(1, 10), 9.9, 10, 11]] == [False] * 10 + [True] * 2


@pytest.mark.parametrize("wanting", [False, OSError("the broker is away")])
def test_a_look_that_finds_nothing_to_do_begins_anew(wanting: bool | Exception) -> None:
    scene = Scene()
    for at in range(1, 10):
        scene.look(at)
    scene.wanting = wanting
    assert not scene.look(10)
    scene.wanting = True

    assert [scene.look(at) for at in range(11, 21)] == [False] * 9 + [True]


def test_looks_that_a_frozen_process_left_out_say_nothing() -> None:
    scene = Scene()
    scene.look(1)

    assert [scene.look(at) for at in (50, 51, 52)] == [False] * 3


def test_a_message_begins_anew() -> None:
    scene = Scene()
    for at in range(1, 10):
        scene.look(at)
    scene.watch.received()

    assert [scene.look(at) for at in range(10, 20)] == [False] * 9 + [True]


def test_a_message_that_came_during_the_look_counts() -> None:
    scene = Scene()
    scene.arrives = True

    assert [scene.look(at) for at in range(1, 40)] == [False] * 39


def test_the_thread_tells_once_and_ends() -> None:
    told = threading.Event()
    watch = StallWatch(0.01, lambda: True, told.set)

    watch.start()

    assert told.wait(5)


def test_zero_watches_nothing() -> None:
    watch = StallWatch(0, lambda: True, lambda: None)
    before = threading.active_count()

    watch.start()

    assert threading.active_count() == before
