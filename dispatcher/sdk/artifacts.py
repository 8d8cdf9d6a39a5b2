"""A job's artifacts as its handler sees them: files in, files out, by the names the pipeline gives.

Knows what an archive is; must not know where artifacts are kept, which is the Storage's alone.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TypeVar

from dispatcher.archives import ArchiveError, Format, Limits, extract, pack
from dispatcher.sdk.failures import ConfigurationError, JobFailed

READ_MOST: Final = 64 * 2**20  # bytes that read_bytes puts into memory
_TYPES: Final = {
    Format.ZIP: "application/zip",
    Format.TAR: "application/x-tar",
    Format.TAR_GZ: "application/gzip",
    Format.PLAIN: "application/octet-stream",
}


class Storage(Protocol):
    """Where a job's artifacts are kept. Raises the SDK's failures alone."""

    def fetch(self, name: str, path: Path, most: int | None) -> None:
        """Bring an input artifact into this new file; JobFailed if it has more bytes than most."""

    def store(self, name: str, path: Path, content_type: str) -> None:
        """Make this file the output artifact; only when this returns it is there."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Bench:
    """What all artifacts of one job share: their storage, a folder of their own, and limits.

    `over`: whether the job's time is up, so that a long extraction ends. `written`: the output
    artifacts that are there.
    """

    storage: Storage = field(repr=False)
    folder: Path
    limits: Limits = field(default_factory=Limits)
    over: Callable[[], bool] = field(default=_never, repr=False)
    written: set[str] = field(default_factory=set)

    def new_file(self) -> Path:
        handle, path = tempfile.mkstemp(dir=self.folder)
        os.close(handle)
        return Path(path)


@dataclass(frozen=True, eq=False)
class InputArtifact:
    """One input artifact. Nothing is moved before it is asked for; each call moves it anew.

    All methods raise RevisionUnavailable (it is not there), PermissionDenied (its bucket or its KMS
    key refuses), SystemUnavailable (S3 does not answer), or JobFailed (it is too large).
    """

    name: str
    revision: str | None = None
    bench: Bench = field(repr=False, kw_only=True)

    def read_bytes(self) -> bytes:
        """The whole of it, in memory: 64 MiB at most."""
        path = self._fetch(READ_MOST)
        try:
            return path.read_bytes()
        finally:
            path.unlink()

    def open(self) -> BinaryIO:
        """A seekable file of it, open for reading, which is gone when it is closed."""
        path = self._fetch(None)
        file = path.open("rb")
        path.unlink()
        return file

    def download(self, path: Path | str) -> Path:
        """Write it to this file, or under its own name into this folder; answers the file."""
        path = Path(path)
        target = path / self.name if path.is_dir() else path
        if not target.parent.is_dir():  # before all of it is moved in vain
            raise NotADirectoryError(target.parent)
        shutil.move(self._fetch(None), target)
        return target

    def extract(self, folder: Path | str) -> Format:
        """Unpack it into this folder, made if need be. Its content says what it is, never a name.

        What is no archive is put into the folder as it is, under the artifact's name. Raises
        JobFailed for an archive that is empty, damaged, hostile or beyond the operator's limits.
        """
        folder = Path(folder)
        with self.open() as file:
            try:
                found = extract(file, folder, self.bench.limits, self.bench.over)
            except ArchiveError as error:
                fault = JobFailed(f"Input artifact {self.name}: {error}")
            else:
                return self._place(file, folder) if found is Format.PLAIN else found
        raise fault

    def _place(self, file: BinaryIO, folder: Path) -> Format:
        folder.mkdir(parents=True, exist_ok=True)
        file.seek(0)
        try:
            with (folder / self.name).open("xb") as target:
                shutil.copyfileobj(file, target)
        except FileExistsError:
            raise JobFailed(f"Input artifact {self.name}: its place is taken.") from None
        return Format.PLAIN

    def _fetch(self, most: int | None) -> Path:
        path = self.bench.new_file()
        try:
            self.bench.storage.fetch(self.name, path, most)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path


@dataclass(frozen=True, eq=False)
class OutputArtifact:
    """One output artifact, uploaded whole when a method returns; writing again replaces it.

    All methods raise PermissionDenied (its bucket or its KMS key refuses), or SystemUnavailable (S3
    does not answer).
    """

    name: str
    bench: Bench = field(repr=False, kw_only=True)

    @property
    def written(self) -> bool:
        """Whether this job's handler has uploaded it."""
        return self.name in self.bench.written

    def write_bytes(self, content: bytes) -> None:
        path = self.bench.new_file()
        try:
            path.write_bytes(content)
            self._store(path, Format.PLAIN)
        finally:
            path.unlink()

    def upload(self, path: Path | str) -> None:
        """This file as it is. Raises JobFailed where there is no file."""
        if not Path(path).is_file():
            raise JobFailed(f"Output artifact {self.name}: there is no such file to upload.")
        self._store(Path(path), Format.PLAIN)

    def archive(
        self,
        folder: Path | str,
        format: Format | str = Format.ZIP,  # noqa: A002 - shutil.make_archive's word
        include: list[str] | tuple[str, ...] | None = None,
    ) -> None:
        """A folder as "zip", "tar" or "tar.gz", with modes; `include`: only what these globs match.

        Links to files inside the folder are followed. Raises JobFailed for a folder that is empty,
        or holds what no archive should: a link out of it, a socket.
        """
        if isinstance(include, str):
            raise TypeError(f"include is {include!r}; give a list of patterns.")
        kind = Format(format)
        path = self.bench.new_file()
        try:
            with path.open("w+b") as file:
                self._pack(Path(folder), file, kind, include)
            self._store(path, kind)
        finally:
            path.unlink()

    def _pack(
        self,
        folder: Path,
        file: BinaryIO,
        kind: Format,
        include: list[str] | tuple[str, ...] | None,
    ) -> None:
        try:
            return pack(folder, file, kind, include)
        except ArchiveError as error:
            fault = JobFailed(f"Output artifact {self.name}: {error}")
        raise fault

    def _store(self, path: Path, kind: Format) -> None:
        self.bench.storage.store(self.name, path, _TYPES[kind])
        self.bench.written.add(self.name)


class MissingArtifact(ConfigurationError, KeyError):
    """The pipeline's action does not declare the artifact."""

    __str__ = Exception.__str__


A = TypeVar("A", InputArtifact, OutputArtifact)


class Artifacts(Mapping[str, A]):
    """By name, in the action's order. A name that it lacks raises a ConfigurationError."""

    def __init__(self, kind: str, artifacts: list[A]) -> None:
        self._kind = kind
        self._by_name: dict[str, A] = {artifact.name: artifact for artifact in artifacts}

    def __getitem__(self, name: str) -> A:
        found = self._by_name.get(name)
        if found is None:
            raise MissingArtifact(
                f"The action needs an {self._kind} artifact {name}; it has {self._names()}."
            )
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def only(self) -> A:
        """The one there is, whatever its name. ConfigurationError if there is none, or more."""
        if len(self) != 1:
            raise MissingArtifact(
                f"The action needs exactly one {self._kind} artifact; it has {self._names()}."
            )
        return next(iter(self._by_name.values()))

    def __repr__(self) -> str:
        return f"Artifacts({self._kind}: {self._names()})"

    def _names(self) -> str:
        return ", ".join(self._by_name) or "none"
