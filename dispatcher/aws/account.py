"""What AWS says of us: who we are, which action types we may poll, and what time it has.

Each call is one attempt of a few seconds. Must not know settings, nor in what words it is told.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from dispatcher.aws import shapes
from dispatcher.aws.errors import UNREADABLE, failure
from dispatcher.engine.model import ActionTypeNotFound, Denied, Throttled, Unanswered
from dispatcher.sdk import ActionType, Owner

IDENTITY: Final = "GetCallerIdentity"
CONNECT_WITHIN: Final = 3  # seconds
ANSWER_WITHIN: Final = 5
AT_ONCE: Final = 8
POLLS: Final = {Owner.THIRD_PARTY: "PollForThirdPartyJobs", Owner.CUSTOM: "PollForJobs"}
_BY_POLICY: Final = frozenset(
    {"AccessDenied", "AccessDeniedException", "NotAuthorized", "UnauthorizedOperation"}
)


class Said(Enum):
    YES = auto()
    FORBIDDEN = auto()  # by a policy, to us
    BAD_CREDENTIALS = auto()
    UNASKABLE = auto()  # our side failed before anything was sent
    UNKNOWN_TYPE = auto()
    THROTTLED = auto()
    NOTHING = auto()
    REFUSED = auto()


@dataclass(frozen=True)
class Call:
    """Without a type it asks who we are. `query`: a queryable key and a value of it."""

    region: str
    type: ActionType | None = None
    query: tuple[str, str] | None = None

    @property
    def place(self) -> tuple[str, str]:
        """Service and region: what answers one call there answers all, or none."""
        return "codepipeline" if self.type else "sts", self.region

    @property
    def operation(self) -> str:
        return POLLS[self.type.owner] if self.type else IDENTITY


@dataclass(frozen=True)
class Answer:
    """`code`: of an error. `date`: what AWS's clock showed, in whole seconds, as epoch seconds; it
    did between `asked` and `answered`, which are of this machine's clock."""

    call: Call
    said: Said
    code: str = ""
    account: str = ""
    arn: str = ""
    date: float | None = None
    asked: float = 0
    answered: float = 0


class Account:
    """Asks AWS with whatever boto3 finds. Raises BotoCoreError when that cannot be used."""

    def __init__(self) -> None:
        self._session = boto3.Session()
        self._lock = threading.Lock()
        self._silent: set[tuple[str, str]] = set()
        self._clients: dict[tuple[str, str, bool], Any] = {}

    def has_credentials(self) -> bool:
        return self._session.get_credentials() is not None

    def knows_us(self, region: str) -> bool:
        """Whether STS is where CodePipeline is. Keys for an emulator are none for AWS to see."""
        return not self._elsewhere("codepipeline", region) or self._elsewhere("sts", region)

    def ask(self, calls: Sequence[Call]) -> list[Answer]:
        """One of each place, then the rest at once where that one was answered."""
        first: dict[tuple[str, str], Call] = {}
        rest = [call for call in calls if first.setdefault(call.place, call) is not call]
        with ThreadPoolExecutor(max(len(first), AT_ONCE)) as pool:
            answers = [*pool.map(self._ask, first.values()), *pool.map(self._ask, rest)]
        return [answer for answer in answers if answer is not None]

    def close(self) -> None:
        while self._clients:
            self._clients.popitem()[1].close()

    def _ask(self, call: Call) -> Answer | None:
        if call.place in self._silent:
            return None
        try:
            client = self._client(*call.place)
        except (BotoCoreError, ValueError) as error:
            return Answer(call, Said.UNASKABLE, type(error).__name__)
        answer = _answer(call, client)
        if answer.said is Said.NOTHING:
            self._silent.add(call.place)
        return answer

    def _elsewhere(self, service: str, region: str) -> bool:
        found, own = (self._client(service, region, at_aws=at_aws) for at_aws in (False, True))
        return bool(found.meta.endpoint_url != own.meta.endpoint_url)

    def _client(self, service: str, region: str, *, at_aws: bool = False) -> Any:
        with self._lock:  # clients may be used by many threads, but not made by many
            key = service, region, at_aws
            if key not in self._clients:
                self._clients[key] = self._make(*key)
            return self._clients[key]

    def _make(self, service: str, region: str, at_aws: bool) -> Any:  # noqa: FBT001
        config = Config(
            connect_timeout=CONNECT_WITHIN,
            read_timeout=ANSWER_WITHIN,
            retries={"mode": "standard", "total_max_attempts": 1},
            ignore_configured_endpoint_urls=at_aws or None,  # type: ignore[call-arg]
        )
        return self._session.client(service, region_name=region, config=config)  # type: ignore[call-overload]


def _answer(call: Call, client: Any) -> Answer:
    asked = time.time()
    try:
        told = _send(call, client)
    except (ClientError, BotoCoreError, *UNREADABLE) as error:
        said, code = _meaning(call.operation, error)
        told = error.response if isinstance(error, ClientError) else {}
    else:
        said, code = Said.YES, ""
    account, arn = (str(told.get(name, "")) for name in ("Account", "Arn"))
    return Answer(call, said, code, account, arn, _date(told), asked, time.time())


def _send(call: Call, client: Any) -> Mapping[str, Any]:
    """Of a poll nothing goes further but the answer's head: a job has session keys in it."""
    if call.type is None:
        return dict(client.get_caller_identity())
    asked: dict[str, Any] = {"actionTypeId": shapes.type_id(call.type), "maxBatchSize": 1}
    if call.query is not None:
        asked["queryParam"] = dict([call.query])
    poll: Callable[..., Mapping[str, Any]] = (
        client.poll_for_jobs
        if call.type.owner is Owner.CUSTOM
        else client.poll_for_third_party_jobs
    )
    return {"ResponseMetadata": poll(**asked)["ResponseMetadata"]}


def _meaning(operation: str, error: Exception) -> tuple[Said, str]:
    kind = failure(operation, error)
    code = str(kind).rpartition(": ")[2]
    if isinstance(kind, Denied):
        return _denial(operation, error, code), code
    meant: Iterable[tuple[type, Said]] = (
        (ActionTypeNotFound, Said.UNKNOWN_TYPE),
        (Throttled, Said.THROTTLED),
        (Unanswered, Said.NOTHING),
    )
    return next((said for one, said in meant if isinstance(kind, one)), Said.REFUSED), code


def _denial(operation: str, error: Exception, code: str) -> Said:
    if not isinstance(error, ClientError):
        return Said.UNASKABLE
    # Else it is the call that fetches our credentials which is forbidden.
    ours = error.operation_name == operation and code in _BY_POLICY
    return Said.FORBIDDEN if ours else Said.BAD_CREDENTIALS


def _date(told: Mapping[str, Any]) -> float | None:
    headers = told.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        return parsedate_to_datetime(headers.get("date")).timestamp()
    except (TypeError, ValueError):  # none, or none that can be read
        return None
