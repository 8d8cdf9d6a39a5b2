"""How far another clock is from this machine's, told from a question and its answer."""

from typing import Final

from dispatcher.checks.report import Report

SKEW_MOST: Final = 5.0  # seconds
REFUSED_BEYOND: Final = 300.0  # seconds: by then AWS takes no signature


def ahead(asked: float, answered: float, least: float, most: float) -> float:
    """Seconds that their clock surely is ahead of ours; below 0 it is behind.

    It showed something from `least` to `most` at some time between question and answer.
    """
    return max(least - answered, 0.0) + min(most - asked, 0.0)


def compared(whose: str, seconds: float) -> Report:
    """`whose`: the other clock, as in "Redis's"."""
    if abs(seconds) <= SKEW_MOST:
        return Report()
    where = "behind" if seconds > 0 else "ahead of"
    text = f"This machine's clock is at least {int(abs(seconds))} s {where} {whose}"
    return Report(warnings=(f"{text}; let NTP set both.",))
