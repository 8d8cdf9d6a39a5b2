"""How a provider author tests a provider: call the function with a job."""

import pytest

from dispatcher.sdk import JobFailed, Succeeded
from dispatcher.testing import make_job
from workers.echo import Config, echo


def test_the_message_comes_back() -> None:
    assert echo(make_job(Config(message="Hello"))) == Succeeded(summary="Hello")


def test_it_fails_on_purpose() -> None:
    with pytest.raises(JobFailed, match="No disk"):
        echo(make_job(Config(message="Hello", fail_with="No disk")))
