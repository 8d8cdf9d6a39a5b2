"""Bodies that lie in files, and how they come there."""

import asyncio
import copy
import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from dispatcher.emulator.content import CHUNK, INLINE, Content, Spool, joined
from dispatcher.emulator.logs import Log
from dispatcher.emulator.uploads import LONGEST_LINE, Unchunked, Upload, UploadError, receive_all


def spooled(*chunks: bytes) -> Content:
    spool = Spool()
    for chunk in chunks:
        spool.write(chunk)
    return spool.content


@given(chunks=st.lists(st.binary()), first=st.integers(-9, 9) | st.none(), last=st.integers(-9, 9))
def test_content_is_what_its_bytes_are(chunks: list[bytes], first: int | None, last: int) -> None:
    content, whole = spooled(*chunks), b"".join(chunks)

    assert bytes(content) == whole
    assert len(content) == len(whole)
    assert bytes(content[first:last]) == whole[first:last]
    assert len(content[first:last]) == len(whole[first:last])
    assert bytes(content[1:][first:last]) == whole[1:][first:last]
    assert bytes(copy.deepcopy(content)) == whole


def test_content_is_handed_on_in_chunks() -> None:
    whole = os.urandom(2 * CHUNK + 1)

    sizes = [len(chunk) for chunk in spooled(whole)]

    assert sizes == [CHUNK, CHUNK, 1]


def test_a_file_is_gone_with_the_last_who_holds_it() -> None:
    content = spooled(b"x" * 9)
    part = content[2:4]
    descriptor = part.file.descriptor

    del content
    still = bytes(part)
    del part

    assert still == b"xx"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize("size", [0, 9, INLINE, INLINE + 1])
def test_short_parts_are_joined_in_memory_and_long_ones_in_a_file(size: int) -> None:
    whole = os.urandom(size)

    made = joined([whole[:5], spooled(whole[5:])])

    assert isinstance(made, bytes) is (size <= INLINE)
    assert bytes(made) == whole


def pieces(body: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return [body[begin:end] for begin, end in pairwise(edges)]


def chunked(chunks: Sequence[bytes], suffix: str, trailer: str) -> bytes:
    """As SDKs send a body whose checksum, or whose chunks' signatures, come with it."""
    framed = b"".join(b"%x%s\r\n%s\r\n" % (len(c), suffix.encode(), c) for c in chunks if c)
    return framed + f"0{suffix}\r\n{trailer}\r\n".encode()


@given(
    chunks=st.lists(st.binary()),
    suffix=st.sampled_from(["", ";chunk-signature=" + "0" * 64]),
    trailer=st.sampled_from(["", "x-amz-checksum-crc32:AAAAAA==\r\n"]),
    cuts=st.lists(st.integers(0, 10**6), max_size=8),
)
def test_chunks_are_taken_off_wherever_the_network_cut_them(
    chunks: list[bytes], suffix: str, trailer: str, cuts: list[int]
) -> None:
    inner = Unchunked()

    found = [inner.feed(piece) for piece in pieces(chunked(chunks, suffix, trailer), cuts)]

    assert b"".join(found) == b"".join(chunks)
    assert inner.ended
    assert inner.trailers == ({"x-amz-checksum-crc32": "AAAAAA=="} if trailer else {})


def received(*bodies: bytes, chunked: bool = False, whole: bool = True) -> Upload:
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": body, "more_body": True} for body in bodies
    ]
    messages.append({"type": "http.request"} if whole else {"type": "http.disconnect"})

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    return asyncio.run(receive_all(receive, chunked=chunked))


@pytest.mark.parametrize("size", [0, 1, INLINE, INLINE + 1, 3 * INLINE + 5])
def test_a_body_is_taken_into_memory_or_into_a_file(size: int) -> None:
    whole = os.urandom(size)

    upload = received(*pieces(whole, range(0, size, 2**18)))

    assert isinstance(upload.content, bytes) is (size <= INLINE)
    assert bytes(upload.content) == whole


def test_a_long_chunked_body_comes_with_its_trailers() -> None:
    whole = os.urandom(2 * INLINE)
    framed = chunked([whole[:9], whole[9:]], "", "x-amz-checksum-crc32:AA==\r\n")

    upload = received(*pieces(framed, range(0, len(framed), 10**5)), chunked=True)

    assert bytes(upload.content) == whole
    assert upload.trailers == {"x-amz-checksum-crc32": "AA=="}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"5\r\nabc", "last chunk is missing"),
        (b"", "last chunk is missing"),
        (b"five\r\nabcde\r\n", "has no size"),
        (b"0" * (LONGEST_LINE + 1), "has no end"),
    ],
)
def test_a_body_that_is_not_what_it_says_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(UploadError, match=words):
        received(body, chunked=True)


def test_half_a_body_is_none() -> None:
    with pytest.raises(ClientDisconnect):
        received(b"half", whole=False)


def test_a_log_forgets_its_oldest_entries() -> None:
    log = Log(most=2)

    for number in range(3):
        log.add({"n": number})

    assert log.text() == '[{"n": 1},{"n": 2}]'
