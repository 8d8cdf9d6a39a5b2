"""What a command wrote, for all that it may write: its log, its last lines, its variables."""

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.sdk import JobFailed, Succeeded
from workers.command.log import FILE, LAST, WIDEST, Log, readable
from workers.command.results import BYTES, parse_variables

KEYS = st.text("abcXYZ019@_-", min_size=1, max_size=20)
VALUES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=50)
SIZE = 4096


def kept(chunks: list[bytes]) -> bytes:
    with TemporaryDirectory() as folder:
        with Log(Path(folder), SIZE) as log:
            for chunk in chunks:
                log.write(chunk)
        assert [path.name for path in Path(folder).iterdir()] == [FILE]
        assert log.last == b"".join(chunks)[-LAST:]
        return Path(folder, FILE).read_bytes()


def numbered(length: int) -> bytes:
    return b"".join(b"%7d\n" % number for number in range(length // 8 + 1))[:length]


@given(
    length=st.integers(0, 4 * SIZE) | st.sampled_from([3895, 3896, 3897, 5844, 7792]),
    cuts=st.lists(st.integers(0, 4 * SIZE), max_size=20),
)
def test_a_log_is_whole_or_is_its_beginning_and_its_end_with_what_was_cut(
    length: int, cuts: list[int]
) -> None:
    written = numbered(length)
    places = [0, *sorted(min(cut, length) for cut in cuts), length]

    log = kept([written[a:b] for a, b in pairwise(places)])

    assert len(log) <= SIZE
    if log != written:
        head, note, tail = log.partition(b"\n[")
        count, _, tail = tail.partition(b" bytes are left out here: log_size is 4096]\n")
        assert note
        assert written.startswith(head)
        assert written.endswith(tail)
        assert len(head) == len(tail) == SIZE // 2 - 100
        assert int(count) == length - len(head) - len(tail) > 0


@given(st.binary(max_size=2000) | st.text().map(str.encode))
def test_lines_for_a_message_are_always_readable(raw: bytes) -> None:
    lines = readable(raw)

    assert all(line.isprintable() and 0 < len(line) <= WIDEST for line in lines)


@given(st.lists(st.text("ab c", min_size=1).filter(str.strip), max_size=5))
def test_plain_lines_are_shown_as_they_are(lines: list[str]) -> None:
    text = "\n".join(f"\x1b[1m{line}\x1b[0m\r" for line in lines)

    assert readable(text.encode()) == [line.rstrip() for line in lines]


@given(st.lists(st.tuples(KEYS, VALUES)), st.sampled_from(["\n", "\r\n", "\n\n", "\n  \n"]))
def test_variables_are_read_as_they_were_written(pairs: list[tuple[str, str]], end: str) -> None:
    content = "".join(f"{key}={value}{end}" for key, value in pairs)

    assert parse_variables(content.encode()) == dict(pairs)


def variables_or_sentence(content: bytes) -> tuple[dict[str, str], str | None]:
    try:
        return parse_variables(content), None
    except JobFailed as error:
        return {}, error.message


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: f"A={text}".encode()))
def test_any_content_is_variables_that_aws_takes_or_one_sentence(content: bytes) -> None:
    variables, told = variables_or_sentence(content)

    if told is None:
        assert Succeeded(variables=variables).variables == variables
    else:
        assert told.isprintable()
        assert told.startswith("CODEPIPELINE_VARIABLES_FILE")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"A=1\n\nB", "line 3, must be KEY=VALUE"),
        (b"=1", "line 1, must be KEY=VALUE"),
        (b"A B=1", "line 1, must be KEY=VALUE"),
        (b" A=1", "line 1, must be KEY=VALUE"),
        (b"export A=1", "line 1, must be KEY=VALUE"),
        ("Ä=1".encode(), "line 1, must be KEY=VALUE"),
        (b"A=\xff", "line 1, is not UTF-8."),
        (b"A=\x1b[31m", "line 1, holds a control character in the value of A."),
        (b"A=1\r2", "line 1, holds a control character in the value of A."),
    ],
)
def test_a_bad_line_is_named(content: bytes, told: str) -> None:
    with pytest.raises(JobFailed) as caught:
        parse_variables(content)

    assert caught.value.message.startswith(f"CODEPIPELINE_VARIABLES_FILE, {told}")


def test_the_last_of_two_lines_with_one_key_holds_and_empty_values_are_values() -> None:
    assert parse_variables(b"A=1\nB=\nA=2\tx") == {"A": "2\tx", "B": ""}


@pytest.mark.parametrize("excess", [0, 1])
def test_variables_may_have_as_many_bytes_as_aws_takes(excess: int) -> None:
    content = b"KEY=" + b"v" * (BYTES - 3 + excess)

    if not excess:
        assert len(parse_variables(content)["KEY"]) == BYTES - 3
        return
    with pytest.raises(JobFailed, match="holds more than AWS's 122880 bytes"):
        parse_variables(content)


def test_a_file_of_many_lines_that_come_to_little_is_too_large_as_well() -> None:
    with pytest.raises(JobFailed, match="holds more than"):
        parse_variables(b"A=1\n" * BYTES)
