"""What the tests of the providers share: one receiver of webhooks at a time, on loopback."""

from collections.abc import Iterator

import pytest

from tests.workers.webhook_receiver import Authority, Stage, staged


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, authority: Authority) -> Iterator[Stage]:
    with staged(monkeypatch, authority) as stage:
        yield stage
