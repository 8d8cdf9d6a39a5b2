"""The stores of client tokens: a JSON file, an environment variable, Secrets Manager, or none.

Owns how a store is named, read and checked. Must not know jobs; never shows what a store holds.
"""

import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote

from dispatcher.aws.shapes import LONGEST_TOKEN
from dispatcher.engine.model import TokensDown
from dispatcher.sdk import Secret

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FORMS: Final = (
    "CLIENT_TOKENS must be file:///absolute/path.json or env:NAME, where the file or variable "
    'holds {"client id": "client token"} as JSON, or secretsmanager:NAME with {client_id} in the '
    "name of a secret that holds that client's token."
)
_FIX: Final = 'it must hold one JSON object, {"client id": "client token"}'

_CLIENT: Final = "{client_id}"  # in the template of secrets' names

Stamp = tuple[int, ...] | str


class TokenStore(Protocol):
    """The engine's Tokens, which can also be asked whether the store is well."""

    def get(self, client_id: str, *, fresh: bool = False) -> Secret | None: ...

    def load(self) -> int | None:
        """Read the store now: how many clients it knows, or None where that cannot be counted.

        Raises TokensDown, saying what to mend.
        """


class _Source(Protocol):
    """Where the JSON stands. An equal stamp means equal content."""

    name: str

    def stamp(self) -> Stamp: ...
    def read(self) -> str | bytes: ...


def tokens(uri: str | None, environ: Mapping[str, str], region: str | None = None) -> TokenStore:
    """The store that `uri` names; none given: a store that knows nobody. ValueError otherwise.

    `region`: of Secrets Manager; None is boto3's own.
    """
    scheme, _, rest = (uri or "").partition(":")
    if not uri:
        return NoTokens()
    # The URI is not shown: it may be the JSON itself, set in the wrong place.
    if scheme == "file" and rest.startswith("///") and rest.strip("/"):
        return JsonTokens(_File(Path(unquote(rest[2:]))))
    if scheme == "env" and _VARIABLE.fullmatch(rest):
        return JsonTokens(_Variable(rest, environ))
    if scheme == "secretsmanager" and _CLIENT in rest:
        # It loads boto3, which not every command needs.
        from dispatcher.aws.secrets_manager import SecretsManagerTokens  # noqa: PLC0415

        return SecretsManagerTokens(lambda client_id: rest.replace(_CLIENT, client_id), region)
    raise ValueError(_FORMS)


class NoTokens:
    """For a fleet of custom actions alone, which have no clients."""

    def get(self, client_id: str, *, fresh: bool = False) -> Secret | None:  # noqa: ARG002
        return None

    def load(self) -> int:
        return 0


class JsonTokens:
    """Client tokens out of one JSON object, read again when its source's stamp changes.

    While the newest content is broken there are no tokens at all: a stale one could be revoked.
    """

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._stamp: Stamp | None = None
        self._tokens: Mapping[str, Secret] = {}

    def get(self, client_id: str, *, fresh: bool = False) -> Secret | None:
        return self._known(fresh=fresh).get(client_id)

    def load(self) -> int:
        return len(self._known(fresh=True))

    def _known(self, *, fresh: bool) -> Mapping[str, Secret]:
        with self._lock:
            stamp = self._source.stamp()  # before the read: a change between is seen next time
            if fresh or stamp != self._stamp:
                self._stamp = None  # a failed read leaves nothing to fall back on
                self._tokens = _parse(self._source.name, self._source.read())
                self._stamp = stamp
            return self._tokens


class _File:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = f"DISPATCHER_CLIENT_TOKENS: the file {path}"

    def stamp(self) -> Stamp:
        try:
            stat = self._path.stat()
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise self._down(error) from None
        return (stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_dev)

    def read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise self._down(error) from None

    def _down(self, error: Exception) -> TokensDown:
        why = getattr(error, "strerror", None) or "not a path"
        return TokensDown(f"{self.name} cannot be read ({why}); {_FIX}")


class _Variable:
    def __init__(self, variable: str, environ: Mapping[str, str]) -> None:
        self._variable = variable
        self._environ = environ
        self.name = f"DISPATCHER_CLIENT_TOKENS: the environment variable {variable}"

    def stamp(self) -> Stamp:
        return self.read()

    def read(self) -> str:
        if self._variable not in self._environ:
            raise TokensDown(f"{self.name} is not set; {_FIX}")
        return self._environ[self._variable]


def _parse(name: str, content: str | bytes) -> Mapping[str, Secret]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):  # json's error would hold the content
        found = None
    if not isinstance(found, dict):
        raise TokensDown(f"{name} is not what it should be; {_FIX}")
    if not all(
        isinstance(token, str) and 1 <= len(token) <= LONGEST_TOKEN for token in found.values()
    ):
        raise TokensDown(
            f"{name} holds a token that is not a text of 1 to {LONGEST_TOKEN} characters"
        )
    return {client_id: Secret(token) for client_id, token in found.items()}
