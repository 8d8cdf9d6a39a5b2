"""What may be wrong with a tar alone, or with the gzip around it."""

from collections.abc import Iterator, Mapping

from tests.archives.raw import BLOCK, gz, long_name, pax, pax_record, tar, tar_entry, tar_header

A = b"a.txt"
TARS: Mapping[str, tuple[bytes, str]] = {
    "empty name": (tar(tar_entry(b"")), "is empty"),
    "NUL in a pax name": (tar(pax({b"path": b"a\0b"}), tar_entry(A)), "control character"),
    "empty pax name": (tar(pax({b"path": b""}), tar_entry(A)), "is empty"),
    "name in two long headers": (
        tar(long_name(b"b"), pax({b"path": b"c"}), tar_entry(A)),
        "two long names",
    ),
    "long name that leads out": (tar(long_name(b"../b"), tar_entry(A)), '".."'),
    "prefix that leads out": (tar(tar_entry(A, prefix=b"..")), '".."'),
    "absolute prefix": (tar(tar_entry(A, prefix=b"/etc")), 'begins with "/"'),
    "symbolic link": (tar(tar_entry(A, kind=b"2", link=b"b.txt")), "symbolic link"),
    "symbolic link out": (
        tar(tar_entry(b"d", kind=b"2", link=b"../../etc"), tar_entry(b"d/passwd", b"x")),
        "symbolic link",
    ),
    "symbolic link with a long name": (
        tar(long_name(b"/etc/" + b"x" * 100, b"K"), tar_entry(A, kind=b"2")),
        "symbolic link",
    ),
    "hard link": (tar(tar_entry(A, b"x"), tar_entry(b"b", kind=b"1", link=A)), "hard link"),
    "hard link out": (tar(tar_entry(A, kind=b"1", link=b"/etc/passwd")), "hard link"),
    "character device": (tar(tar_entry(A, kind=b"3")), "device"),
    "block device": (tar(tar_entry(A, kind=b"4")), "device"),
    "fifo": (tar(tar_entry(A, kind=b"6")), "fifo"),
    "contiguous file": (tar(tar_entry(A, kind=b"7")), "not known"),
    "volume label": (tar(tar_entry(A, kind=b"V")), "not known"),
    "second volume": (tar(tar_entry(A, kind=b"M")), "not known"),
    "dump of a folder": (tar(tar_entry(A, kind=b"D")), "not known"),
    "unknown kind": (tar(tar_entry(A, kind=b"\xff")), "not known"),
    "sparse file": (tar(tar_entry(A, b"x", kind=b"S")), "sparse"),
    "sparse file by pax": (tar(pax({b"GNU.sparse.size": b"9"}), tar_entry(A, b"x")), "sparse"),
    "sparse file of version 1": (
        tar(pax({b"GNU.sparse.major": b"1", b"GNU.sparse.name": b"../b"}), tar_entry(A, b"x")),
        "sparse",
    ),
    "folder with content": (tar(tar_entry(b"d/", b"x" * 600, kind=b"5")), "has content"),
    "file with a folder's name": (tar(tar_entry(b"d/", b"x")), "a folder's name"),
    "size below zero": (tar(tar_header(A, b"\xff" * 12)), "cannot be read"),
    "small size below zero": (tar(tar_header(A, b"\xff" * 10 + b"\xfe\x00")), "cannot be read"),
    "size of 95 bits": (tar(tar_header(A, b"\x80" + b"\x7f" * 11)), "bytes"),
    "size with a sign": (tar(tar_header(A, b"-0000000001\0")), "cannot be read"),
    "size in words": (tar(tar_header(A, b"0o777\0".ljust(12, b"\0"))), "cannot be read"),
    "mode in words": (tar(tar_header(A, mode=b"rwxr-x\0\0")), "cannot be read"),
    "pax size below zero": (tar(pax({b"size": b"-1"}), tar_entry(A, b"x")), "no number"),
    "pax size of a million digits": (
        tar(pax({b"size": b"9" * 1_000_000}), tar_entry(A, b"x")),
        "no number",
    ),
    "pax size beyond all": (tar(pax({b"size": b"9" * 20}), tar_entry(A, b"x")), "bytes"),
    "empty pax size": (tar(pax({b"size": b""}), tar_entry(A, b"x")), "no number"),
    "pax size smaller than the header's": (
        tar(pax({b"size": b"0"}), tar_entry(A, b"no header at all" * 32)),
        "checksum",
    ),
    "pax size larger than the file": (tar(pax({b"size": b"9999"}), tar_entry(A, b"x")), "early"),
    "global pax name": (tar(pax({b"path": b"b"}, b"g"), tar_entry(A)), "every entry"),
    "global pax size": (tar(pax({b"size": b"0"}, b"g"), tar_entry(A)), "every entry"),
    "global sparse": (tar(pax({b"GNU.sparse.size": b"0"}, b"g"), tar_entry(A)), "every entry"),
    "pax length of zero": (tar(pax(b"0 path=b\n"), tar_entry(A)), "pax header"),
    "pax length too large": (tar(pax(b"99 path=b\n"), tar_entry(A)), "pax header"),
    "pax length too small": (tar(pax(b"3 path=b\n"), tar_entry(A)), "pax header"),
    "pax length of a million digits": (tar(pax(b"9" * 1_000_000), tar_entry(A)), "pax header"),
    "pax length below zero": (tar(pax(b"-9 path=b\n"), tar_entry(A)), "pax header"),
    "pax record without a key": (tar(pax(b"5 =b\n"), tar_entry(A)), "pax header"),
    "pax record without a value": (tar(pax(b"7 path\n"), tar_entry(A)), "pax header"),
    "pax record without a newline": (tar(pax(b"9 path=bc"), tar_entry(A)), "pax header"),
    "pax record for nobody": (tar(tar_entry(b"b"), pax({b"path": A})), "another entry"),
    "a thousand pax records": (
        tar(pax(pax_record(b"k", b"v") * 1001), tar_entry(A)),
        "1000 records",
    ),
    "two pax headers": (
        tar(pax({b"path": b"b"}), pax({b"path": b"c"}), tar_entry(A)),
        "two extra headers",
    ),
    "chain of pax headers": (tar(pax({b"path": b"b"}) * 3000, tar_entry(A)), "two extra headers"),
    "chain of long names": (tar(long_name(b"b") * 3000, tar_entry(A)), "two extra headers"),
    "large pax header": (tar(pax({b"comment": bytes(2**20)}), tar_entry(A)), "too large"),
    "large long name": (tar(long_name(b"x" * 2**13), tar_entry(A)), "too large"),
    "pax header of eight exabytes": (
        tar(tar_header(A, b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7, kind=b"x")),
        "too large",
    ),
    "long name below zero": (tar(tar_header(A, b"\xff" * 12, kind=b"L")), "cannot be read"),
    "wrong checksum": (tar(tar_entry(A)[:-1] + b"\x01"), "checksum"),
    "wrong checksum later": (tar(tar_entry(b"b"), tar_entry(A)[:-1] + b"\x01"), "checksum"),
    "checksum of no digits": (
        tar(tar_entry(A)[:148] + bytes(8) + tar_entry(A)[156:]),
        "checksum",
    ),
    "cut in a header": (tar_entry(A, b"x") + tar_entry(b"b")[:300], "early"),
    "cut in content": (tar_header(A, 2000) + bytes(1000), "early"),
    "cut in padding": (tar_header(A, 700) + b"x" * 700, "early"),
    "cut between entries": (tar_entry(A, b"x"), "early"),
    "cut after a pax header": (pax({b"path": b"b"}), "early"),
    "something behind": (tar(tar_entry(A, b"x")) + b"PK", "does not end"),
    "another tar behind": (tar(tar_entry(A, b"x")) + tar(tar_entry(b"b", b"x")), "does not end"),
    "one zero block between": (
        tar_entry(A, b"x") + bytes(BLOCK) + tar(tar_entry(b"b")),
        "does not end",
    ),
    "zeros without end": (tar(tar_entry(A, b"x")) + bytes(2**20), "does not end"),
    "nothing": (bytes(20 * BLOCK), "is empty"),
    "folders alone": (tar(tar_entry(b"d/", kind=b"5")), "is empty"),
    "its own folder alone": (tar(tar_entry(b"./", kind=b"5")), "is empty"),
    "global pax header alone": (tar(pax({b"comment": b"c"}, b"g")), "is empty"),
}


def damaged_gzip() -> Iterator[tuple[str, bytes, str]]:
    whole = gz(tar(tar_entry(A, bytes(range(256)) * 300)))
    yield "cut in a gzip header", whole[:8], "early"
    yield "cut in the first block", whole[:60], "early"
    yield "cut in compressed content", whole[: len(whole) // 2], "early"
    yield "cut in a gzip trailer", whole[:-4], "early"
    yield "wrong gzip checksum", whole[:-8] + b"\0\0\0\0" + whole[-4:], "damaged"
    yield "wrong gzip length", whole[:-4] + b"\0\0\0\0", "damaged"
    yield "something behind the gzip", whole + b"garbage", "damaged"
    yield "another tar.gz behind", whole + whole, "does not end"
    yield "half a gzip behind", whole + whole[:20], "early"
    yield "unknown gzip flags", b"\x1f\x8b\x08\xe0" + whole[4:], "damaged"
    yield "gzip of no deflate", whole[:10] + b"\xff" * 100, "damaged"
