"""What AWS is told of an action type is what its handler reads, within AWS's own limits."""

import dataclasses
import enum
import string
from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Any, Literal

import pytest
from botocore.validate import ParamValidator
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from dispatcher.configuration import ConfigClassError, config_fields, config_parser
from dispatcher.declaration import Count, Declaration, DeclarationError, Wishes, declare
from dispatcher.emulator.model import SERVICE, input_of
from dispatcher.emulator.shapes import complaint
from dispatcher.registry import survey
from dispatcher.sdk import ActionSpec, ActionType, ConfigurationError, Key, Owner, Secret

OPERATIONS = {
    "create-custom-action-type": "CreateCustomActionType",
    "update-action-type": "UpdateActionType",
}
ACCOUNT = "123456789012"
NOTHING = Wishes()


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Size(enum.IntEnum):
    SMALL = 1


@dataclasses.dataclass(frozen=True)
class Config:
    app: Annotated[str, Key("AppName", description="Which app", key=True)]
    api_key: Secret
    count: int
    ratio: float = 1.0
    dry_run: bool | None = None
    colour: Colour = Colour.RED
    mode: Literal["fast", "slow"] = "fast"
    size: Size = Size.SMALL
    zone: Annotated[str, Key(required=True)] = "a"


def spec(
    config: type[Any] | None = Config,
    owner: Owner = Owner.CUSTOM,
    category: str = "Deploy",
    provider: str = "Acme",
    limit: timedelta = timedelta(hours=1),
) -> ActionSpec:
    return ActionSpec(ActionType(category, owner, provider, "1"), config=config, time_limit=limit)


def faults(spec: ActionSpec, wishes: Wishes = NOTHING) -> tuple[str, ...]:
    with pytest.raises(DeclarationError) as caught:
        declare(spec, wishes)
    assert all(fault.endswith(".") for fault in caught.value.faults)
    assert str(caught.value).splitlines() == list(caught.value.faults)
    return caught.value.faults


def check_by_aws(declared: Declaration) -> None:
    """By botocore, which looks at types and minima, and by all that its model says beside."""
    operation = OPERATIONS[declared.command]
    shape: Any = SERVICE.operation_model(operation).input_shape
    report = ParamValidator().validate(dict(declared.body), shape)
    assert not report.has_errors(), report.generate_report()
    assert complaint(input_of(operation), declared.body) is None


def properties(declared: Declaration) -> list[dict[str, Any]]:
    body = declared.body
    found = body["actionType"]["properties"] if "actionType" in body else None
    return list(body["configurationProperties"] if found is None else found)


def test_a_custom_action_type_is_made_from_the_mark_and_the_configuration() -> None:
    declared = declare(spec(), Wishes(Count(1, 1), Count(0, 2)))

    assert declared.command == "create-custom-action-type"
    assert declared.notes == ()
    assert {name: declared.body[name] for name in ("category", "provider", "version")} == {
        "category": "Deploy",
        "provider": "Acme",
        "version": "1",
    }
    assert declared.body["inputArtifactDetails"] == {"minimumCount": 1, "maximumCount": 1}
    assert declared.body["outputArtifactDetails"] == {"minimumCount": 0, "maximumCount": 2}
    assert properties(declared)[0] == {
        "name": "AppName",
        "required": True,
        "key": True,
        "secret": False,
        "queryable": False,
        "description": "Which app",
        "type": "String",
    }
    rows = [(p["name"], p["type"], p["required"], p["secret"]) for p in properties(declared)]
    assert rows[1:] == [
        ("ApiKey", "String", True, True),
        ("Count", "Number", True, False),
        ("Ratio", "Number", False, False),
        ("DryRun", "Boolean", False, False),
        ("Colour", "String", False, False),
        ("Mode", "String", False, False),
        ("Size", "String", False, False),
        ("Zone", "String", True, False),
    ]
    check_by_aws(declared)


def test_a_third_party_action_type_is_made_from_the_same() -> None:
    wishes = Wishes(accounts=(ACCOUNT, "210987654321", ACCOUNT))

    declared = declare(spec(owner=Owner.THIRD_PARTY), wishes)

    body = declared.body["actionType"]
    assert declared.command == "update-action-type"
    assert body["id"] == {
        "category": "Deploy",
        "owner": "ThirdParty",
        "provider": "Acme",
        "version": "1",
    }
    assert body["executor"] == {
        "type": "JobWorker",
        "configuration": {
            "jobWorkerExecutorConfiguration": {"pollingAccounts": [ACCOUNT, "210987654321"]}
        },
        "jobTimeout": 3900,
    }
    assert body["properties"][0] == {
        "name": "AppName",
        "optional": False,
        "key": True,
        "noEcho": False,
        "queryable": False,
        "description": "Which app",
    }
    assert [p["name"] for p in body["properties"] if p["noEcho"]] == ["ApiKey"]
    assert [p["optional"] for p in body["properties"]] == [False] * 3 + [True] * 5 + [False]
    check_by_aws(declared)


@pytest.mark.parametrize("owner", Owner)
def test_an_action_without_configuration_has_no_properties(owner: Owner) -> None:
    declared = declare(spec(None, owner))

    assert properties(declared) == []
    check_by_aws(declared)


@pytest.mark.parametrize(
    ("category", "most"), [("Source", 0), *((name, 5) for name in ("Build", "Deploy", "Compute"))]
)
def test_a_source_has_no_input_artifacts_unless_it_is_told_otherwise(
    category: str, most: int
) -> None:
    declared = declare(spec(category=category))

    assert declared.body["inputArtifactDetails"] == {"minimumCount": 0, "maximumCount": most}
    assert declared.body["outputArtifactDetails"] == {"minimumCount": 0, "maximumCount": 5}
    asked = declare(spec(category=category), Wishes(inputs=Count(1, 2)))
    assert asked.body["inputArtifactDetails"] == {"minimumCount": 1, "maximumCount": 2}


@pytest.mark.parametrize(
    ("limit", "timeout"),
    [
        (timedelta(milliseconds=1), 301),
        (timedelta(minutes=10), 900),
        (timedelta(hours=12), 43200),
        (timedelta(days=3), 43200),
    ],
)
def test_aws_ends_a_job_later_than_the_worker_does(limit: timedelta, timeout: int) -> None:
    declared = declare(spec(owner=Owner.THIRD_PARTY, limit=limit), Wishes(accounts=(ACCOUNT,)))

    assert declared.body["actionType"]["executor"]["jobTimeout"] == timeout
    assert any("time_limit" in note for note in declared.notes) == (limit > timedelta(hours=12))
    check_by_aws(declared)


def test_what_a_partner_may_regret_is_noted() -> None:
    (no_account, replaced) = declare(spec(owner=Owner.THIRD_PARTY)).notes

    assert "--account" in no_account
    assert "get-action-type" in replaced
    assert len(declare(spec(owner=Owner.THIRD_PARTY), Wishes(accounts=(ACCOUNT,))).notes) == 1


@pytest.mark.parametrize(("length", "notes"), [(25, 0), (26, 1)])
def test_a_name_longer_than_the_user_guide_allows_is_noted(length: int, notes: int) -> None:
    declared = declare(spec(provider="a" * length))

    assert len(declared.notes) == notes
    assert all("26 characters" in note for note in declared.notes)


def test_a_description_of_pydantic_counts_where_the_key_has_none() -> None:
    class Model(BaseModel):
        app: str = Field(description="of the field")
        zone: Annotated[str, Field(description="of the field"), Key(description="of the key")]
        mode: Annotated[str, Field(description="inside")] | None = None
        note: str = Field(default="", description="")

    @dataclasses.dataclass(frozen=True)
    class Plain:
        app: Annotated[str, Field(description="of the field")]

    said = {p["name"]: p.get("description") for p in properties(declare(spec(Model)))}

    assert said == {"App": "of the field", "Zone": "of the key", "Mode": "inside", "Note": None}
    assert properties(declare(spec(Plain)))[0]["description"] == "of the field"


def made(*fields: tuple[str, Any] | tuple[str, Any, Any]) -> type[Any]:
    return dataclasses.make_dataclass("Made", fields, frozen=True)


def described(length: int) -> Any:
    return Annotated[str, Field(description="x" * length)]


@pytest.mark.parametrize(
    ("owner", "most"), [(Owner.CUSTOM, 160), (Owner.THIRD_PARTY, 250)], ids=str
)
def test_a_description_has_no_more_characters_than_aws_allows(owner: Owner, most: int) -> None:
    check_by_aws(declare(spec(made(("app_url", described(most))), owner)))

    (fault,) = faults(spec(made(("app_url", described(most + 1))), owner))

    assert fault.startswith(
        f"The description of AppUrl (field app_url) has {most + 1} characters; AWS allows {most}"
    )


@pytest.mark.parametrize("owner", Owner)
def test_there_are_ten_keys_at_most(owner: Owner) -> None:
    check_by_aws(declare(spec(made(*((f"f{n}", str) for n in range(10))), owner)))

    (fault,) = faults(spec(made(*((f"f{n}", str) for n in range(11))), owner))

    assert "has 11 keys, and AWS allows an action type 10" in fault


def test_a_queryable_key_of_a_custom_action_type_is_noted_for_polls_must_name_it() -> None:
    config = made(("app", Annotated[str, Key(queryable=True)]))
    own, partners = declare(spec(config)), declare(spec(config, Owner.THIRD_PARTY))

    assert [properties(declared)[0]["queryable"] for declared in (own, partners)] == [True, True]
    assert len(own.notes) == 1
    assert "DISPATCHER_QUERY_PARAMS=Acme.App=VALUE" in own.notes[0]
    assert "DISPATCHER_QUERY_PARAMS" not in str(partners.notes)


@pytest.mark.parametrize(
    ("owner", "wishes", "said"),
    [
        (
            Owner.CUSTOM,
            Wishes(Count(0, 6)),
            "inputArtifactDetails is 0 to 6; give two numbers of 0 to 5",
        ),
        (Owner.CUSTOM, Wishes(outputs=Count(2, 1)), "outputArtifactDetails is 2 to 1; "),
        (Owner.CUSTOM, Wishes(outputs=Count(-1, 1)), "outputArtifactDetails is -1 to 1; "),
        (
            Owner.THIRD_PARTY,
            Wishes(Count(0, 11)),
            "inputArtifactDetails is 0 to 11; give two numbers of 0 to 10",
        ),
        (Owner.THIRD_PARTY, Wishes(accounts=("12345",)), "--account 12345: give the 12 digits"),
        (
            Owner.THIRD_PARTY,
            Wishes(accounts=("\N{ARABIC-INDIC DIGIT ONE}" * 12,)),
            "give the 12 digits",
        ),
        (Owner.CUSTOM, Wishes(accounts=(ACCOUNT,)), "--account is for third-party action types"),
        (
            Owner.THIRD_PARTY,
            Wishes(accounts=tuple(f"{n:012}" for n in range(1001))),
            "pollingAccounts has 1001 accounts; AWS allows 1000",
        ),
    ],
)
def test_a_wish_that_aws_would_not_grant_is_refused(
    owner: Owner, wishes: Wishes, said: str
) -> None:
    (fault,) = faults(spec(owner=owner), wishes)

    assert said in fault


def test_all_faults_are_told_at_once() -> None:
    config = made(("a", described(161)), ("b", described(161)))

    assert len(faults(spec(config), Wishes(Count(6, 6), Count(6, 6), (ACCOUNT,)))) == 5


def test_each_provider_of_ours_can_be_declared() -> None:
    actions = survey(["workers"]).actions

    for action in actions:
        check_by_aws(declare(action.spec))

    assert {action.spec.type.provider for action in actions} >= {"Echo", "Countdown"}


# Whatever a configuration class says

LETTERS = string.ascii_letters + string.digits
CATEGORIES = ["Source", "Build", "Deploy", "Test", "Invoke", "Approval", "Compute"]
NAMES = ["app", "app_url", "_zone", "x" * 50, *(f"field_{number}" for number in range(10))]
leaves = st.sampled_from([str, int, float, bool, Secret, Colour, Size, Literal["a", "b"]])
descriptions = st.text(min_size=1, max_size=160)
told = st.text(min_size=1, max_size=160) | st.sampled_from([161, 250, 251]).map("x".__mul__)


@st.composite
def annotations(draw: st.DrawFn, *, optional: bool, queryable: bool) -> Any:
    leaf: Any = str if queryable else draw(leaves)
    mark = Key(
        name=draw(st.none() | st.text(min_size=1, max_size=50)),
        description=draw(st.none() | descriptions),
        required=True if queryable else draw(st.sampled_from([None, True])),
        key=draw(st.booleans()),
        queryable=queryable,
    )
    kind: Any = leaf | None if optional else leaf
    said = draw(st.none() | told)
    return Annotated[kind, mark] if said is None else Annotated[kind, mark, Field(description=said)]


@st.composite
def configs(draw: st.DrawFn) -> type[Any]:
    """Fields without a default, then those with one; one of them may be queryable."""
    names = draw(st.lists(st.sampled_from(NAMES), max_size=12, unique=True))
    bare = draw(st.integers(0, len(names)))
    queryable = draw(st.sampled_from(["none", "none", *names]))
    kinds = [
        draw(annotations(optional=number >= bare, queryable=name == queryable))
        for number, name in enumerate(names)
    ]
    pairs = list(zip(names, kinds, strict=True))
    parts: list[Any] = [*pairs[:bare], *((name, kind, None) for name, kind in pairs[bare:])]
    return dataclasses.make_dataclass("Made", parts, frozen=True)


good = st.builds(Count, st.integers(0, 3), st.integers(3, 5))
counts = st.none() | good | good | st.builds(Count, st.integers(-1, 11), st.integers(-1, 11))
accounts = st.just(()) | st.tuples(st.text("0123456789", min_size=11, max_size=12))
wishes = st.builds(Wishes, counts, counts, accounts)
specs = st.builds(
    spec,
    config=configs(),
    owner=st.sampled_from(Owner),
    category=st.sampled_from(CATEGORIES),
    provider=st.text(LETTERS + "_-", min_size=1, max_size=35),
    limit=st.timedeltas(timedelta(milliseconds=1), timedelta(days=2)),
)
often = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def usable(spec: ActionSpec) -> bool:
    try:
        config_parser(spec.config)
    except ConfigClassError:
        return False
    return True


@often
@given(specs, wishes)
def test_what_is_not_refused_is_within_all_limits_of_aws(spec: ActionSpec, wishes: Wishes) -> None:
    assume(usable(spec))

    with suppress(DeclarationError):
        check_by_aws(declare(spec, wishes))


def value(expected: str) -> str:
    """A text that a field reads, by the words in which it asks for one."""
    known = {"a text": "x", "a secret text": "x", "a whole number": "1", "a number": "1.5"}
    return (
        known.get(expected) or expected.removeprefix("one of ").partition(",")[0].partition(" ")[0]
    )


def asked(declared: Declaration) -> tuple[set[str], set[str]]:
    """The keys that AWS always asks for, and the others."""
    found = properties(declared)
    must = {p["name"] for p in found if p.get("required", not p.get("optional", True))}
    return must, {p["name"] for p in found} - must


@often
@given(specs, st.data())
def test_what_aws_asks_for_is_what_the_handler_reads(spec: ActionSpec, data: st.DataObject) -> None:
    assume(usable(spec))
    try:
        declared = declare(spec)
    except DeclarationError:
        assume(False)
    by_key = {field.key: field for field in config_fields(spec.config)}
    must, may = asked(declared)

    given_too = data.draw(st.sets(st.sampled_from(sorted(may)))) if may else set()
    config = config_parser(spec.config)(
        {key: value(by_key[key].expected) for key in must | given_too}
    )

    assert must | may == by_key.keys()
    for key in may - given_too:
        assert getattr(config, by_key[key].name) is None
    for key in must:
        if by_key[key].required:
            rest = {other: value(by_key[other].expected) for other in must - {key}}
            with pytest.raises(ConfigurationError, match="is missing"):
                config_parser(spec.config)(rest)
