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


def test_an_artifact_comes_back_as_it_was() -> None:
    job = make_job(Config(message="Hello"), inputs={"In": b"\x00\xff"}, outputs=["A", "B"])

    echo(job)

    assert job.written == {"A": b"\x00\xff", "B": b"\x00\xff"}


def test_without_an_input_artifact_the_message_is_the_output() -> None:
    job = make_job(Config(message="Hello"), outputs=["Out"])

    echo(job)

    assert job.written == {"Out": b"Hello"}
