"""Every limit that AWS's model sets on a request, a step beyond it and on it, by plain HTTP.

The requests are made from botocore's model, not by botocore: it checks no maxima itself.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from botocore.loaders import create_loader
from botocore.model import ServiceModel

from dispatcher.emulator.calls import CALLS
from dispatcher.emulator.shapes import complaint
from tests.contract.test_emulator import (
    BUILD,
    DEPLOY,
    SIGNED,
    TEN_CALLS,
    TOKEN,
    UNKNOWN_ID,
    Emulator,
    begin_custom,
    begin_third_party,
    emulator_with,
)

MODEL = ServiceModel(create_loader().load_service_model("codepipeline", "service-2"))
INPUTS = {name: MODEL.operation_model(name).input_shape for name in TEN_CALLS}
ERRORS = {name: {e.name for e in MODEL.operation_model(name).error_shapes} for name in TEN_CALLS}
SECRET = {"clientToken", "nonce", "continuationToken"}
MISFITS: dict[str, tuple[object, ...]] = {
    "string": (5, 1.5, True, [], {}),
    "integer": ("1", 1.5, True, [], {}),
    "timestamp": ("2026-01-01T00:00:00Z", True, [], {}),
    "map": (5, "x", True, ["x"]),
    "structure": (5, "x", True, ["x"]),
}
LEAST = "greater than or equal to"
MOST = "less than or equal to"


@dataclass(frozen=True)
class Case:
    """A request of an operation's smallest form but for one member."""

    operation: str
    path: tuple[str, ...]
    request: dict[str, Any]
    says: str = ""  # of a negative one: the constraint
    value: object = None

    @property
    def at(self) -> str:
        return ".".join(self.path)


@pytest.fixture(scope="module")
def shared() -> Iterator[Emulator]:
    with emulator_with() as emulator:
        yield emulator


def smallest(shape: Any, operation: str) -> Any:
    """What fits a shape, with the required members alone."""
    if shape.type_name == "structure":
        return {name: smallest(shape.members[name], operation) for name in shape.required_members}
    if shape.name == "ActionOwner":
        return "ThirdParty" if "ThirdParty" in operation else "Custom"
    if shape.type_name == "string":
        return sample(shape, max(1, shape.metadata.get("min", 0)))
    return {"map": {}, "integer": shape.metadata.get("min", 0), "timestamp": 0}[shape.type_name]


def sample(shape: Any, length: int) -> str:
    if "enum" in shape.metadata:
        return str(shape.metadata["enum"][0])
    return UNKNOWN_ID if shape.name == "JobId" else "a" * length


def members(shape: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, bool]]:
    """Each member at any depth: where it is, its shape, whether it is required."""
    for name, member in shape.members.items():
        yield (*path, name), member, name in shape.required_members
        if member.type_name == "structure":
            yield from members(member, (*path, name))


def with_member(operation: str, path: tuple[str, ...], value: object) -> dict[str, Any]:
    shape: Any = INPUTS[operation]
    request: dict[str, Any] = smallest(shape, operation)
    inner = request
    for name in path[:-1]:
        shape = shape.members[name]
        inner = inner.setdefault(name, smallest(shape, operation))
    inner[path[-1]] = value
    return request


def without_member(operation: str, path: tuple[str, ...]) -> dict[str, Any]:
    request = inner = with_member(operation, path, None)
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return request


def negatives(operation: str) -> Iterator[Case]:
    for path, shape, required in members(INPUTS[operation]):
        case = Case(operation, path, {})
        if required:
            null = replace(case, says="Member must not be null")
            yield replace(null, request=without_member(operation, path))
            yield replace(null, request=with_member(operation, path, None))
        for value, says in (*misfits(shape), *beyond(shape)):
            request = with_member(operation, path, value)
            yield replace(case, request=request, says=says, value=value)


def misfits(shape: Any) -> Iterator[tuple[object, str]]:
    for value in MISFITS[shape.type_name]:
        yield value, "Member must be a"


def beyond(shape: Any) -> Iterator[tuple[object, str]]:
    if shape.type_name == "string":
        yield from texts_beyond(shape)
    elif shape.type_name == "integer":
        yield from numbers_beyond(shape.metadata)
    elif shape.type_name == "map":
        yield from maps_beyond(shape)


def texts_beyond(shape: Any) -> Iterator[tuple[str, str]]:
    limits = shape.metadata
    if limits.get("min"):
        yield "", f"Member must have length {LEAST} {limits['min']}"
    if "max" in limits:
        yield sample(shape, limits["max"] + 1), f"Member must have length {MOST} {limits['max']}"
    if "pattern" in limits:
        good = sample(shape, 1)
        for bad in ("", f"{good}\n", f" {good}", f"{good}!", "\u0661", "\ud800"):
            yield bad, f"Member must satisfy regular expression pattern: {limits['pattern']}"
    if "enum" in limits:
        first = limits["enum"][0]
        for bad in ("", "Unheard", first.lower(), f"{first}\n"):
            yield bad, f"Member must satisfy enum value set: [{', '.join(limits['enum'])}]"


def numbers_beyond(limits: dict[str, int]) -> Iterator[tuple[int, str]]:
    if "min" in limits:
        for below in (limits["min"] - 1, -(10**30)):
            yield below, f"Member must have value {LEAST} {limits['min']}"
    if "max" in limits:
        for above in (limits["max"] + 1, 10**30):
            yield above, f"Member must have value {MOST} {limits['max']}"


def maps_beyond(shape: Any) -> Iterator[tuple[dict[str, object], str]]:
    key, value = sample(shape.key, 1), sample(shape.value, 1)
    if "max" in shape.metadata:
        most = shape.metadata["max"]
        many: dict[str, object] = {f"{key}{number}": value for number in range(most + 1)}
        yield many, f"Member must have length {MOST} {most}"
    for bad, _ in texts_beyond(shape.key):
        yield {bad: value}, "Map keys must satisfy constraint: [Member must"
    for bad, _ in texts_beyond(shape.value):
        yield {key: bad}, "Map value must satisfy constraint: [Member must"
    for wrong in (*MISFITS["string"], None):
        yield {key: wrong}, "Member must be a string"


def positives(operation: str) -> Iterator[Case]:
    for path, shape, required in members(INPUTS[operation]):
        case = Case(operation, path, {})
        for value in (*within(shape), *(() if required else (None,))):
            yield replace(case, request=with_member(operation, path, value))
    stray = with_member(operation, ("unheardOf",), {"deep": ["x" * 5000, None]})
    yield Case(operation, ("unheardOf",), stray)


def within(shape: Any) -> Iterator[object]:
    """Between its limits, at its least, at its most; each value of an enum."""
    limits = shape.metadata
    if shape.name == "ActionOwner":  # the owner must suit the call, which is a rule of its own
        return
    if shape.type_name == "string":
        yield from limits.get("enum", (sample(shape, 1),))
        yield from (sample(shape, limits[bound]) for bound in ("min", "max") if bound in limits)
    elif shape.type_name == "integer":
        yield from (limits[bound] for bound in ("min", "max") if bound in limits)
    elif shape.type_name == "timestamp":
        yield from (0, 1767225600, 1767225600.123, -1)
    elif shape.type_name == "map":
        yield from ({}, *({key: value} for key in ends(shape.key) for value in ends(shape.value)))


def ends(shape: Any) -> tuple[str, str]:
    limits = shape.metadata
    return sample(shape, limits.get("min", 1)), sample(shape, limits.get("max", 1000))


def send(emulator: Emulator, operation: str, request: object) -> httpx.Response:
    return emulator.raw(operation, json.dumps(request).encode())


def in_short(case: Case, answer: httpx.Response) -> str:
    return f"{case.operation} {case.at}: {case.says} ({answer.status_code} {answer.text[:300]})"


def refused_as_it_should(case: Case, answer: httpx.Response) -> bool:
    body = answer.json()
    told = re.compile(
        r"[12] validation errors? detected: (.+; )?"  # "" breaks a length and a pattern at once
        rf"Value.* at '{re.escape(case.at)}(\..+)?' failed to satisfy constraint: "
        + re.escape(case.says),
        re.DOTALL,
    )
    return (
        (answer.status_code, body["__type"]) == (400, "ValidationException")
        and body.keys() == {"__type", "message"}
        and told.match(body["message"]) is not None
    )


def taken_as_it_should(case: Case, answer: httpx.Response) -> bool:
    if answer.status_code == 200:
        return True
    modelled = ERRORS[case.operation] - {"ValidationException"}
    return answer.status_code == 400 and answer.json()["__type"] in modelled


@pytest.mark.parametrize("operation", TEN_CALLS)
def test_a_request_beyond_a_limit_is_refused_by_the_limits_name(
    shared: Emulator, operation: str
) -> None:
    answers = [(case, send(shared, operation, case.request)) for case in negatives(operation)]

    assert not [in_short(*pair) for pair in answers if not refused_as_it_should(*pair)]


@pytest.mark.parametrize("operation", TEN_CALLS)
def test_a_request_on_its_limits_gets_no_error_but_those_of_its_call(
    shared: Emulator, operation: str
) -> None:
    answers = [(case, send(shared, operation, case.request)) for case in positives(operation)]

    assert not [in_short(*pair) for pair in answers if not taken_as_it_should(*pair)]


def test_the_model_makes_enough_requests_and_of_every_kind() -> None:
    refused = [case for operation in TEN_CALLS for case in negatives(operation)]
    taken = [case for operation in TEN_CALLS for case in positives(operation)]
    kinds = Counter(" ".join(case.says.split()[:4]) for case in refused)

    assert len(refused) >= 300
    assert len(taken) >= 100
    assert {case.operation for case in refused} == set(TEN_CALLS)
    assert kinds.keys() == {
        "Map keys must satisfy",
        "Map value must satisfy",
        "Member must be a",
        "Member must have length",
        "Member must have value",
        "Member must not be",
        "Member must satisfy enum",
        "Member must satisfy regular",
    }


def test_no_member_of_any_call_is_of_a_type_that_goes_unchecked() -> None:
    types = {shape.type_name for name in TEN_CALLS for _, shape, _ in members(INPUTS[name])}

    assert types == MISFITS.keys()


def test_all_errors_of_a_request_are_told_at_once_in_awss_words(shared: Emulator) -> None:
    wrong = {"category": "Nap", "provider": "a b", "version": "1234567890"}

    answer = send(shared, "PollForJobs", {"actionTypeId": wrong, "maxBatchSize": 0})

    told = answer.json()["message"]
    assert told.startswith("5 validation errors detected: ")
    assert sorted(told.removeprefix("5 validation errors detected: ").split("; ")) == [
        "Value '0' at 'maxBatchSize' failed to satisfy constraint: "
        "Member must have value greater than or equal to 1",
        "Value '1234567890' at 'actionTypeId.version' failed to satisfy constraint: "
        "Member must have length less than or equal to 9",
        "Value 'Nap' at 'actionTypeId.category' failed to satisfy constraint: "
        "Member must satisfy enum value set: "
        "[Source, Build, Deploy, Test, Invoke, Approval, Compute]",
        "Value 'a b' at 'actionTypeId.provider' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: [0-9A-Za-z_-]+",
        "Value null at 'actionTypeId.owner' failed to satisfy constraint: Member must not be null",
    ]


def test_what_a_map_must_satisfy_is_told_whole_and_the_map_is_not_quoted(shared: Emulator) -> None:
    request = with_member("PollForJobs", ("queryParam",), {"Project": "not queryable"})

    answer = send(shared, "PollForJobs", request)

    assert answer.json()["message"] == (
        "1 validation error detected: Value at 'queryParam' failed to satisfy constraint: "
        "Map value must satisfy constraint: [Member must have length less than or equal to 50, "
        "Member must have length greater than or equal to 1, "
        "Member must satisfy regular expression pattern: [a-zA-Z0-9_-]+]"
    )


def test_a_secret_is_not_quoted_in_the_error(shared: Emulator) -> None:
    cases = [
        case
        for operation in TEN_CALLS
        for case in negatives(operation)
        if case.path[-1] in SECRET and isinstance(case.value, str) and case.value
    ]

    told = [send(shared, case.operation, case.request).json()["message"] for case in cases]

    assert {case.path[-1] for case in cases} == SECRET
    assert not [text for text in told if "aaa" in text]


@pytest.mark.parametrize("token", [False, True])
def test_a_result_with_every_member_at_its_most_is_taken(shared: Emulator, *, token: bool) -> None:
    version = {"version": f"full{token}"}
    shared.add_jobs(DEPLOY | version)
    shared.add_jobs(BUILD | version)
    third_party = begin_third_party(shared.aws, DEPLOY | version)
    custom = begin_custom(shared.aws, BUILD | version)
    full = {
        "currentRevision": {
            "revision": "r" * 1500,
            "changeIdentifier": "c" * 100,
            "created": 1767225600.5,
            "revisionSummary": "s" * 2048,
        },
        "executionDetails": {
            "summary": "s" * 2048,
            "externalExecutionId": "x" * 1500,
            "percentComplete": 100,
        },
        **({"continuationToken": "t" * 2048} if token else {}),
    }

    answers = [
        send(shared, "PutJobSuccessResult", {"jobId": custom} | full),
        send(
            shared,
            "PutThirdPartyJobSuccessResult",
            {"jobId": third_party, "clientToken": TOKEN} | full,
        ),
    ]

    assert [(answer.status_code, answer.content) for answer in answers] == [(200, b"")] * 2


MEBIBYTE = 1 << 20
DEEP = b'{"a":' * 900 + b"1" + b"}" * 900
TOO_DEEP = b'{"a":' * 200_000 + b"1" + b"}" * 200_000


@pytest.mark.parametrize("operation", TEN_CALLS)
@pytest.mark.parametrize(
    "body",
    [
        b'{"jobId": "' + b"x" * MEBIBYTE + b'"}',
        b'{"clientToken": "' + b"x" * 3 * MEBIBYTE + b'"}',
        b'{"outputVariables": {"' + b"!" * MEBIBYTE + b'": ""}}',
        b"x" * MEBIBYTE,
        b'{"currentRevision": ' + DEEP + b', "failureDetails": ' + DEEP + b"}",
        b'{"outputVariables": ' + DEEP + b', "actionTypeId": ' + DEEP + b"}",
        b'{"failureDetails": ' + TOO_DEEP + b"}",
        b'{"jobId": "cut',
        b'{"jobId": 1,}',
        b"\x00",
        b'\xef\xbb\xbf{"jobId": 1}',
    ],
    ids=lambda body: f"{body[:20]!r}...{len(body)}",
)
def test_a_monstrous_body_is_a_plain_error_of_the_caller(
    shared: Emulator, operation: str, body: bytes
) -> None:
    answer = shared.raw(operation, body)

    assert answer.status_code in {400, 413}
    if answer.status_code == 400:
        assert answer.json()["__type"] in {"ValidationException", "SerializationException"}


@pytest.mark.parametrize("target", ["CodePipeline_20150709.", "CodePipeline_20150709.pollforjobs"])
def test_a_target_must_name_a_call_exactly(shared: Emulator, target: str) -> None:
    answer = shared.http.post("/", content=b"{", headers=SIGNED | {"X-Amz-Target": target})

    assert answer.status_code == 400
    assert answer.json()["__type"] in {"UnknownOperationException", "SerializationException"}


def test_an_unsigned_request_is_told_so_before_it_is_read(shared: Emulator) -> None:
    target = {"X-Amz-Target": "CodePipeline_20150709.GetJobDetails"}

    answer = shared.http.post("/", content=b"[" * MEBIBYTE, headers=target)

    assert answer.status_code in {400, 413}
    if answer.status_code == 400:
        assert answer.json()["__type"] == "MissingAuthenticationTokenException"


def test_a_check_costs_far_less_than_a_call_may() -> None:
    shape = CALLS["PutJobSuccessResult"].shape
    request = with_member("PutJobSuccessResult", ("currentRevision", "created"), 1.5)
    request["outputVariables"] = {f"key{number}": "x" * 100 for number in range(20)}

    began = time.perf_counter()
    told = {complaint(shape, request) for _ in range(200)}

    assert told == {None}
    assert (time.perf_counter() - began) / 200 < 0.001
