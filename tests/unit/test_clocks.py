"""How far a clock is off is never overstated, however long its answer takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.checks.clocks import ahead, compared
from dispatcher.checks.redis import unwritten

SECONDS = st.floats(0, 1000, allow_nan=False)


@given(asked=SECONDS, there=SECONDS, back=SECONDS, off=st.integers(-1000, 1000), fine=SECONDS)
def test_a_clock_is_not_said_to_be_further_off_than_it_is(
    asked: float, there: float, back: float, off: int, fine: float
) -> None:
    shown = asked + there + off
    least, most = shown - fine, shown + fine

    found = ahead(asked, asked + there + back, least, most)

    assert abs(found) <= abs(off) + 1e-6
    assert found * off >= -1e-6


@given(asked=SECONDS, took=SECONDS, off=st.integers(-1000, 1000))
def test_what_it_is_off_beyond_the_round_trip_is_said(asked: float, took: float, off: int) -> None:
    found = ahead(asked, asked + took, asked + off, asked + off)

    assert abs(found) >= abs(off) - took - 1e-6


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (5.0, ()),
        (-5.0, ()),
        (5.5, ("This machine's clock is at least 5 s behind Redis's; let NTP set both.",)),
        (-61.9, ("This machine's clock is at least 61 s ahead of Redis's; let NTP set both.",)),
    ],
)
def test_five_seconds_are_let_pass(seconds: float, said: tuple[str, ...]) -> None:
    assert compared("Redis's", seconds).warnings == said


@pytest.mark.parametrize(
    ("told", "file"),
    [
        ({"aof_last_write_status": "err"}, "append-only file"),
        ({"rdb_last_bgsave_status": "err", "aof_last_write_status": "ok"}, "snapshot"),
    ],
)
def test_what_redis_could_not_write_is_named(told: dict[str, str], file: str) -> None:
    (text,) = unwritten(told)

    assert file in text
    assert unwritten(dict.fromkeys(told, "ok")) == ()
