"""Client tokens in AWS Secrets Manager: one secret a client, cached by AWS's own library.

Must not know jobs; never shows what a secret holds."""

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import boto3
from aws_secretsmanager_caching import SecretCache, SecretCacheConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from dispatcher.aws.errors import UNREADABLE
from dispatcher.aws.shapes import LONGEST_TOKEN
from dispatcher.engine.model import TokensDown
from dispatcher.sdk import Secret

KEY: Final = "clientToken"  # in a secret that holds JSON, as the console makes them
KEPT: Final = timedelta(minutes=5)  # how late a rotated token is seen that AWS still takes
MISSING_FOR: Final = timedelta(minutes=1)  # the longest a new client may wait for its first job
MOST: Final = 10_000  # clients
ASKED: Final = "dispatcher-check"  # a client of nobody's, to see whether it may be asked
# ResourceNotFound; InvalidRequest: to be deleted; Validation: no secret can have that name.
NO_SUCH: Final = frozenset({
    "InvalidRequestException", "ResourceNotFoundException", "ValidationException",
})  # fmt: skip


class SecretsManagerTokens:
    """A secret's text is the token, or JSON with the key clientToken.

    While Secrets Manager does not answer, a token that was read before goes on being used.
    """

    def __init__(self, secret_of: Callable[[str], str], region: str | None) -> None:
        """`secret_of`: the name or ARN of a client's secret. `region`: None is boto3's."""
        self._secret_of = secret_of
        self._region = region
        self._lock = threading.Lock()
        self._client: Any = None
        self._caches: dict[str, SecretCache] = {}

    def get(self, client_id: str, *, fresh: bool = False) -> Secret | None:
        name = self._secret_of(client_id)
        try:
            text = self._cache(client_id, fresh=fresh).get_secret_string(name)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "no code"))
            why = None if code in NO_SUCH else code
        except (BotoCoreError, *UNREADABLE) as error:
            why = type(error).__name__
        else:
            return self._token(name, text)
        if why is None:
            return None
        raise TokensDown(f"{_named(name)} cannot be read ({why})")

    def load(self) -> None:
        """It cannot be counted. Raises TokensDown where it may not be asked."""
        self.get(ASKED, fresh=True)

    def _cache(self, client_id: str, *, fresh: bool) -> SecretCache:
        """One for each client: what the library offers for a fresh look sleeps for seconds."""
        with self._lock:
            if self._client is None:
                self._client = _client(self._region)
            if fresh or client_id not in self._caches:
                if len(self._caches) >= MOST:
                    self._caches.clear()
                self._caches[client_id] = SecretCache(CACHING, self._client)
            return self._caches[client_id]

    def _token(self, name: str, text: str | None) -> Secret:
        token = _read(text or "")
        if not 1 <= len(token) <= LONGEST_TOKEN:
            raise TokensDown(
                f"{_named(name)} must hold a text of 1 to {LONGEST_TOKEN} characters, or JSON with "
                f"such a text as {KEY}"
            )
        return Secret(token)


CACHING: Final = SecretCacheConfig(
    max_cache_size=1,
    secret_refresh_interval=int(KEPT.total_seconds()),
    exception_retry_delay_max=int(MISSING_FOR.total_seconds()),
)


def _client(region: str | None) -> Any:
    config = Config(
        connect_timeout=3,
        read_timeout=5,
        retries={"mode": "standard", "total_max_attempts": 2},
        tcp_keepalive=True,
    )
    return boto3.Session().client("secretsmanager", region_name=region, config=config)


def _named(name: str) -> str:
    return f"DISPATCHER_CLIENT_TOKENS: the secret {name}"


def _read(text: str) -> str:
    """Empty: not as it should be."""
    if not text.lstrip().startswith("{"):
        return text.strip()
    try:
        token = json.loads(text).get(KEY)
    except ValueError:  # json's error would hold the content
        return ""
    return token if isinstance(token, str) else ""
