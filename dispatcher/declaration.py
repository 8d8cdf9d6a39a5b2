"""What AWS is told of an action type, made from its handler's mark and its configuration class.

Knows the limits that AWS's API reference gives; must not know how a handler was found, nor AWS.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from dispatcher.configuration import ConfigField, config_fields, queryable_key
from dispatcher.sdk import ActionSpec, Owner

COMMANDS: Final = {
    Owner.CUSTOM: "create-custom-action-type",
    Owner.THIRD_PARTY: "update-action-type",
}
PROPERTIES: Final = 10  # ActionConfigurationPropertyList, ActionTypeProperties
DESCRIPTION: Final = {Owner.CUSTOM: 160, Owner.THIRD_PARTY: 250}
ARTIFACTS: Final = {Owner.CUSTOM: 5, Owner.THIRD_PARTY: 10}
ACCOUNTS: Final = 1_000  # PollingAccountList
JOB_TIMEOUT: Final = (60, 43_200)  # seconds
# Our own end of a job, which says why, comes before AWS's.
GRACE: Final = timedelta(minutes=5)
NAME: Final = 25  # the user guide's quotas; the API reference says 35
_ACCOUNT: Final = re.compile(r"[0-9]{12}")
_KINDS: Final[dict[Any, str]] = {int: "Number", float: "Number", bool: "Boolean"}


class DeclarationError(Exception):
    """AWS would refuse the action type; one line a fault."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


@dataclass(frozen=True)
class Count:
    """How many artifacts an action of the type may have."""

    least: int = 0
    most: int = 5

    @property
    def body(self) -> dict[str, int]:
        return {"minimumCount": self.least, "maximumCount": self.most}


@dataclass(frozen=True)
class Wishes:
    """What neither the mark nor the configuration class says. `accounts`: those that may poll."""

    inputs: Count | None = None
    outputs: Count | None = None
    accounts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Declaration:
    """The input of `aws codepipeline <command> --cli-input-json`, and what its user may regret."""

    command: str
    body: Mapping[str, Any] = field(repr=False)
    notes: tuple[str, ...] = ()


def declare(spec: ActionSpec, wishes: Wishes = Wishes()) -> Declaration:
    """Raises DeclarationError with all faults; the configuration class must be a usable one."""
    owner = spec.type.owner
    keys = config_fields(spec.config)
    counts = {
        "inputArtifactDetails": wishes.inputs or _inputs(spec),
        "outputArtifactDetails": wishes.outputs or Count(),
    }
    faults = [*_faults_of_keys(keys, owner), *_faults_of_wishes(wishes, counts, owner)]
    if faults:
        raise DeclarationError(faults)
    details = {name: count.body for name, count in counts.items()}
    if owner is Owner.CUSTOM:
        body = _custom(spec, keys) | details
    else:
        body = {"actionType": _third_party(spec, keys, wishes.accounts) | details}
    return Declaration(COMMANDS[owner], body, tuple(_notes(spec, wishes)))


def _inputs(spec: ActionSpec) -> Count:
    return Count(0, 0) if spec.type.category == "Source" else Count()


def _custom(spec: ActionSpec, keys: Sequence[ConfigField]) -> dict[str, Any]:
    return {
        "category": spec.type.category,
        "provider": spec.type.provider,
        "version": spec.type.version,
        "configurationProperties": [
            _property(key, required=_asked(key), secret=key.secret)
            | {"type": _KINDS.get(key.leaf, "String")}
            for key in keys
        ],
    }


def _third_party(
    spec: ActionSpec, keys: Sequence[ConfigField], accounts: tuple[str, ...]
) -> dict[str, Any]:
    polled_by = {"pollingAccounts": list(dict.fromkeys(accounts))} if accounts else {}
    return {
        "id": {
            "category": spec.type.category,
            "owner": spec.type.owner.value,
            "provider": spec.type.provider,
            "version": spec.type.version,
        },
        "executor": {
            "type": "JobWorker",
            "configuration": {"jobWorkerExecutorConfiguration": polled_by},
            "jobTimeout": _job_timeout(spec.time_limit),
        },
        "properties": [_property(key, optional=not _asked(key), noEcho=key.secret) for key in keys],
    }


def _property(key: ConfigField, **flags: bool) -> dict[str, Any]:
    said = {"description": key.description} if key.description else {}
    own = {"key": key.mark.key, "queryable": key.mark.queryable}
    return {"name": key.key, **flags, **own, **said}


def _asked(key: ConfigField) -> bool:
    """Whether AWS asks for it always; a default may stand behind that all the same."""
    return key.required if key.mark.required is None else key.mark.required


def _job_timeout(limit: timedelta) -> int:
    least, most = JOB_TIMEOUT
    return min(max(math.ceil((limit + GRACE).total_seconds()), least), most)


def _faults_of_keys(keys: Sequence[ConfigField], owner: Owner) -> Iterator[str]:
    if len(keys) > PROPERTIES:
        yield (
            f"The configuration has {len(keys)} keys, and AWS allows an action type {PROPERTIES}; "
            "put several of them into one."
        )
    most = DESCRIPTION[owner]
    for key in keys:
        if key.description and len(key.description) > most:
            yield (
                f"The description of {key.key} (field {key.name}) has {len(key.description)} "
                f"characters; AWS allows {most}."
            )


def _faults_of_wishes(wishes: Wishes, counts: Mapping[str, Count], owner: Owner) -> Iterator[str]:
    most = ARTIFACTS[owner]
    for name, count in counts.items():
        if not 0 <= count.least <= count.most <= most:
            yield (
                f"{name} is {count.least} to {count.most}; give two numbers of 0 to {most}, "
                "the smaller one first."
            )
    if wishes.accounts and owner is Owner.CUSTOM:
        yield "--account is for third-party action types: its own account polls a custom one."
    for account in wishes.accounts:
        if not _ACCOUNT.fullmatch(account):
            yield f"--account {account}: give the 12 digits of an AWS account."
    if len(set(wishes.accounts)) > ACCOUNTS:
        yield f"pollingAccounts has {len(set(wishes.accounts))} accounts; AWS allows {ACCOUNTS}."


def _notes(spec: ActionSpec, wishes: Wishes) -> Iterator[str]:
    if len(spec.type.provider) > NAME:
        yield (
            f"The provider's name has {len(spec.type.provider)} characters: AWS's API takes 35, "
            f"while its user guide allows {NAME}."
        )
    if spec.type.owner is Owner.CUSTOM:
        if (key := queryable_key(spec)) is not None:
            yield (
                f"{key} is queryable, so AWS wants a value of it in each poll: name those to take, "
                f"as in DISPATCHER_QUERY_PARAMS={spec.type.provider}.{key}=VALUE."
            )
        return
    if not wishes.accounts:
        yield "No --account is given, and AWS lets only the accounts named so poll for jobs."
    if spec.time_limit.total_seconds() > JOB_TIMEOUT[1]:
        yield (
            f"The handler's time_limit is {spec.time_limit}: AWS ends a job after 12 hours. "
            "Return Continue before."
        )
    yield (
        "update-action-type replaces the whole action type: add its description, permissions and "
        "urls, as aws codepipeline get-action-type shows them."
    )
