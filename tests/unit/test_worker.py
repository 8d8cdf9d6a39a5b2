"""Which slots a worker announces."""

import pytest

from dispatcher.worker import slots


@pytest.mark.parametrize(
    ("concurrency", "queues", "announced"),
    [
        (8, {"provider.Acme"}, {"Acme": 8}),
        (8, {"provider.Acme", "provider.Echo"}, {"Acme": 8, "Echo": 8}),
        (8, {"dispatcher", "provider.Acme"}, {"Acme": 7}),
        (1, {"dispatcher", "provider.Acme"}, {"Acme": 1}),
        (8, {"dispatcher"}, {}),
    ],
)
def test_slots_are_all_but_one_where_polls_share_the_pool(
    concurrency: int, queues: set[str], announced: dict[str, int]
) -> None:
    assert slots(concurrency, queues) == announced
