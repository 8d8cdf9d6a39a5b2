"""JobApi's calls with the client's token, looked up before each, and anew when AWS refuses it.

Nothing above here touches a token."""

from collections.abc import Callable
from typing import TypeVar

from dispatcher.engine.model import InvalidClientToken, JobDetails, JobRef, UnknownClient, Verdict
from dispatcher.engine.ports import JobApi, Tokens
from dispatcher.sdk import Secret

T = TypeVar("T")


class Jobs:
    """One job's calls. Each raises what JobApi does, and UnknownClient or TokensDown."""

    def __init__(self, api: JobApi, tokens: Tokens) -> None:
        self._api = api
        self._tokens = tokens

    def details(self, ref: JobRef) -> JobDetails:
        return self._with_token(ref, lambda token: self._api.details(ref, token))

    def acknowledge(self, ref: JobRef, nonce: str) -> str:
        return self._with_token(ref, lambda token: self._api.acknowledge(ref, nonce, token))

    def put(self, ref: JobRef, verdict: Verdict) -> None:
        self._with_token(ref, lambda token: self._api.put(ref, verdict, token))

    def _with_token(self, ref: JobRef, call: Callable[[Secret | None], T]) -> T:
        try:
            return call(self._token(ref, fresh=False))
        except InvalidClientToken:
            # Answered, so not applied: the token may have been rotated a moment ago.
            return call(self._token(ref, fresh=True))

    def _token(self, ref: JobRef, *, fresh: bool) -> Secret | None:
        if ref.client_id is None:  # a custom action's
            return None
        token = self._tokens.get(ref.client_id, fresh=fresh)
        if token is None:
            raise UnknownClient
        return token
