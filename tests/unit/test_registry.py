"""How provider modules are found, what is refused, and how a configuration is read."""

import dataclasses
import enum
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import BaseModel, Field, field_validator

from dispatcher.configuration import ConfigClassError, config_parser, parse_config
from dispatcher.registry import ProviderError, load, survey
from dispatcher.sdk import ConfigurationError, Key, Secret
from dispatcher.testing import make_job

Write = Callable[[str, str], Path]

ECHO = """
    from dispatcher.sdk import Job, Outcome, Succeeded, action

    @action("Test", "{provider}", version="1")
    def {name}(job: Job[None]) -> Outcome:
        return Succeeded("{name}")
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """An empty working directory that Python does not know, and a way to write modules there."""
    monkeypatch.chdir(tmp_path)
    path = [entry for entry in sys.path if entry and not (Path(entry) / "workers").exists()]
    monkeypatch.setattr(sys, "path", path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = dict(sys.modules)
    for name in [name for name in sys.modules if name.split(".")[0] == "workers"]:
        del sys.modules[name]

    def _write(name: str, text: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
        return file

    yield _write
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]
    sys.modules.update(before)


def echo(provider: str, name: str = "echo") -> str:
    return ECHO.format(provider=provider, name=name)


def faults(*names: str) -> tuple[str, ...]:
    with pytest.raises(ProviderError) as caught:
        load(names)
    assert str(caught.value).splitlines() == list(caught.value.faults)
    return caught.value.faults


def test_a_folder_of_modules_in_the_working_directory_is_loaded(write: Write) -> None:
    write("workers/b.py", echo("B"))
    write("workers/a.py", echo("A"))

    actions = load(["workers"])

    assert [action.spec.type.task_name for action in actions] == [
        "ThirdParty.Test.A.1",
        "ThirdParty.Test.B.1",
    ]
    assert [action.module for action in actions] == ["workers.a", "workers.b"]
    assert actions[0].handler(make_job()).summary == "echo"
    assert actions[0].parse({"Anything": "x"}) is None


def test_a_package_is_loaded_with_the_packages_in_it(write: Write) -> None:
    write("acme/__init__.py", echo("Top", "top"))
    write("acme/deep/__init__.py", "")
    write("acme/deep/leaf.py", echo("Leaf", "leaf"))
    write("acme/__main__.py", "raise SystemExit('ran')")

    assert [action.module for action in load(["acme"])] == ["acme.deep.leaf", "acme"]


def test_a_named_module_is_loaded_alone(write: Write) -> None:
    write("workers/a.py", echo("A"))
    write("workers/broken.py", "raise RuntimeError")

    assert len(load([" workers.a ", "", "workers.a"])) == 1


def test_a_module_named_twice_is_loaded_once(write: Write) -> None:
    write("workers/a.py", echo("A"))

    assert len(load(["workers.a", "workers", "workers.a"])) == 1


def test_an_entry_point_is_loaded_even_without_the_default_folder(write: Write) -> None:
    write("partner.py", echo("Partner"))
    write(
        "partner-1.0.dist-info/entry_points.txt",
        "[codepipeline_dispatcher.providers]\npartner = partner\n",
    )
    write("partner-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: partner\nVersion: 1.0\n")
    sys.path.append(str(Path.cwd()))

    assert [action.module for action in load(["workers"])] == ["partner"]


def test_the_working_directory_is_appended_to_the_path_once(write: Write) -> None:
    write("workers/a.py", echo("A"))

    load(["workers"])
    load(["workers"])

    assert sys.path[-1] == str(Path.cwd())
    assert sys.path.count(str(Path.cwd())) == 1


def test_nothing_found_says_where_it_looked_and_how_to_write_one(write: Write) -> None:
    (sentence,) = faults("workers")

    assert f"No provider was found in workers (working directory {Path.cwd()})" in sentence
    assert "codepipeline_dispatcher.providers" in sentence
    assert "workers/<name>.py" in sentence


def test_modules_without_a_marked_function_are_nothing(write: Write) -> None:
    write("workers/a.py", "def deploy(job): ...")

    assert "No provider was found" in faults("workers")[0]


def test_a_missing_module_is_named(write: Write) -> None:
    assert faults("nosuch", "json.nosuch") == (
        f"There is no provider module nosuch; looked in {Path.cwd()} and on Python's path. "
        "Correct DISPATCHER_PROVIDERS.",
        f"There is no provider module json.nosuch; looked in {Path.cwd()} and on Python's path. "
        "Correct DISPATCHER_PROVIDERS.",
    )


@pytest.mark.parametrize(
    ("text", "line", "cause"),
    [
        ("import nosuch_client\n", 1, "ModuleNotFoundError: No module named 'nosuch_client'"),
        ("import os\n\nos.nosuch\n", 3, "AttributeError: module 'os' has no attribute 'nosuch'"),
        ("x = 1\ndef deploy(:\n", 2, "SyntaxError: invalid syntax"),
        ("import json\njson.loads('')\n", 2, "JSONDecodeError: Expecting value"),
        ("raise SystemExit('no\\nlicence')\n", 1, "SystemExit: no licence"),
        ("raise RuntimeError\n", 1, "RuntimeError: no text"),
        (
            "from dispatcher.sdk import action\n\naction('Ship', 'A', version='1')\n",
            3,
            "ValueError: category is 'Ship'; give one of Source",
        ),
    ],
)
def test_a_module_that_fails_at_import_is_named_with_its_cause_and_line(
    write: Write, text: str, line: int, cause: str
) -> None:
    file = write("workers/bad.py", text)

    (sentence,) = faults("workers")

    assert f"workers.bad cannot be imported ({file}, line {line}): {cause}" in sentence


def test_a_module_that_fails_in_what_it_imports_is_named_by_its_own_line(write: Write) -> None:
    write("lib/__init__.py", "raise RuntimeError('deep')")
    file = write("workers/bad.py", "x = 1\nimport lib\n")

    (sentence,) = faults("workers")

    assert f"workers.bad cannot be imported ({file}, line 2): RuntimeError: deep" in sentence


def test_a_module_that_cannot_be_decoded_is_named(write: Write) -> None:
    write("workers/bad.py", "").write_bytes(b"x = '\xff'\n")

    assert "workers.bad cannot be imported" in faults("workers")[0]


def test_two_claims_on_one_action_type_name_both(write: Write) -> None:
    write("workers/a.py", echo("Same", "first"))
    write("workers/b.py", echo("Same", "second"))

    assert faults("workers") == (
        "ThirdParty.Test.Same.1 is claimed by workers.a.first and by workers.b.second; "
        "keep one of them.",
    )


def test_other_owners_versions_and_letters_are_other_action_types(write: Write) -> None:
    write("workers/a.py", echo("Same"))
    write("workers/b.py", echo("same"))
    write("workers/c.py", echo("Same").replace('"1"', '"2"'))
    write("workers/d.py", echo("Same").replace('"1"', '"1", owner="Custom"'))

    assert len(load(["workers"])) == 4


def test_a_function_that_a_second_module_imports_is_one_claim(write: Write) -> None:
    write("workers/a.py", echo("A"))
    write("workers/b.py", "from workers.a import echo\nagain = echo\n")

    (action,) = load(["workers"])

    assert action.module == "workers.a"


def test_a_value_that_raises_when_looked_at_is_passed_by(write: Write) -> None:
    write(
        "workers/a.py",
        echo("A")
        + """
    class Proxy:
        def __getattr__(self, name):
            raise RuntimeError("not bound")

    proxy = Proxy()
""",
    )

    assert len(load(["workers"])) == 1


def test_all_faults_are_told_at_once(write: Write) -> None:
    write("workers/a.py", "import nosuch_client")
    write("workers/b.py", echo("Same"))
    write("workers/c.py", echo("Same"))
    write(
        "workers/d.py",
        """
        from dataclasses import dataclass
        from dispatcher.sdk import Job, Outcome, Succeeded, action

        @dataclass(frozen=True)
        class Config:
            tags: list[str]

        @action("Test", "D", version="1", config=Config)
        def d(job: Job[Config]) -> Outcome:
            return Succeeded()
        """,
    )

    found = faults("workers", "nosuch")

    assert len(found) == 4
    assert any("class workers.d.Config: field tags is list[str]; use str" in line for line in found)


def test_what_can_be_used_is_found_beside_what_cannot(write: Write) -> None:
    write("workers/a.py", "import nosuch_client")
    write("workers/b.py", echo("B"))
    write("workers/c.py", echo("Same", "first"))
    write("workers/d.py", echo("Same", "second"))
    write("workers/e.py", echo("E"))

    found = survey(["workers", "nosuch", "nosuch"])

    assert [action.module for action in found.actions] == ["workers.b", "workers.e"]
    assert [fault.partition(" ")[0] for fault in found.faults] == [
        "workers.a",
        "There",
        "ThirdParty.Test.Same.1",
    ]
    assert faults("workers", "nosuch") == found.faults


def test_a_broken_module_that_is_named_twice_is_one_fault(write: Write) -> None:
    write("workers/a.py", "import nosuch_client")

    assert len(survey(["workers.a", "workers"]).faults) == 1


def test_a_survey_without_faults_is_what_is_loaded(write: Write) -> None:
    write("workers/a.py", echo("A"))

    found = survey(["workers"])

    assert found.faults == ()
    assert [action.module for action in found.actions] == ["workers.a"]


def test_tests_beside_providers_are_no_providers(write: Write) -> None:
    write("workers/a.py", echo("A"))
    for name in ("test_a", "a_test", "conftest", "deep/conftest", "deep/test_b"):
        write(f"workers/{name}.py", "raise RuntimeError('imported')")
    for name in ("latest", "contest", "tests", "attest_a"):
        write(f"workers/{name}.py", echo(name))

    assert [action.module for action in load(["workers"])] == [
        "workers.a",
        "workers.attest_a",
        "workers.contest",
        "workers.latest",
        "workers.tests",
    ]


def test_a_module_is_loaded_whatever_its_name_when_it_is_named(write: Write) -> None:
    write("workers/smoke_test.py", echo("Smoke"))

    assert [action.module for action in load(["workers.smoke_test"])] == ["workers.smoke_test"]


@pytest.mark.parametrize("name", ["A", "ThirdParty.Test.A.1"])
def test_an_action_is_named_by_its_provider_or_its_task(write: Write, name: str) -> None:
    write("workers/a.py", echo("A"))
    write("workers/b.py", echo("B"))

    assert survey(["workers"]).named(name).module == "workers.a"


def test_a_provider_of_several_action_types_is_named_by_a_task(write: Write) -> None:
    write("workers/a.py", echo("A"))
    write("workers/b.py", echo("A").replace('"1"', '"2"'))
    found = survey(["workers"])

    with pytest.raises(ProviderError) as caught:
        found.named("A")

    assert caught.value.faults == (
        "A is the provider of ThirdParty.Test.A.1, ThirdParty.Test.A.2; give one of these names.",
    )
    assert found.named("ThirdParty.Test.A.2").module == "workers.b"


def test_an_unknown_name_is_told_those_there_are_and_what_could_not_be_used(write: Write) -> None:
    write("workers/a.py", echo("A"))
    write("workers/b.py", echo("B"))
    write("workers/c.py", "import nosuch_client")

    with pytest.raises(ProviderError) as caught:
        survey(["workers"]).named("a")

    assert caught.value.faults[0] == (
        "There is no provider or task a; there are ThirdParty.Test.A.1, ThirdParty.Test.B.1."
    )
    assert "workers.c cannot be imported" in caught.value.faults[1]


def test_a_name_among_none_is_told_so(write: Write) -> None:
    with pytest.raises(ProviderError, match="there are none that can be used"):
        survey(["workers"]).named("A")


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


@dataclasses.dataclass(frozen=True)
class Everything:
    app: str
    count: int
    ratio: float
    dry_run: bool
    api_key: Secret
    colour: Colour
    size: Size
    mode: Literal["fast", "slow"]
    app_url: Annotated[str, Key("AppURL", description="Where it runs", queryable=True)]
    note: str | None = None
    limit: Optional[int] = None  # noqa: UP045 - the older spelling is read too
    region: str = "eu-west-1"


FULL = {
    "App": "shop",
    "Count": "7",
    "Ratio": "1.5",
    "DryRun": "true",
    "ApiKey": "hunter2",
    "Colour": "green",
    "Size": "2",
    "Mode": "fast",
    "AppURL": "https://shop.example",
    "Limit": "3",
}


def test_a_configuration_is_read_from_aws_texts() -> None:
    assert parse_config(Everything, FULL) == Everything(
        app="shop",
        count=7,
        ratio=1.5,
        dry_run=True,
        api_key=Secret("hunter2"),
        colour=Colour.GREEN,
        size=Size.LARGE,
        mode="fast",
        app_url="https://shop.example",
        note=None,
        limit=3,
        region="eu-west-1",
    )


def test_every_missing_and_bad_key_is_named_with_what_was_expected() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_config(
            Everything,
            {
                "Count": "hunter2",
                "Ratio": "hunter2",
                "DryRun": "hunter2",
                "Colour": "hunter2",
                "Size": "hunter2",
                "Mode": "hunter2",
                "Limit": "1.5",
            },
        )

    assert caught.value.message == (
        "The action's configuration does not fit: App is missing, give a text; "
        "Count must be a whole number; Ratio must be a number; DryRun must be true or false; "
        "ApiKey is missing, give a secret text; Colour must be one of red, green; "
        "Size must be one of 1, 2; Mode must be one of fast, slow; "
        "AppURL is missing, give a text; Limit must be a whole number."
    )
    assert caught.value.__context__ is None


def test_unknown_keys_are_a_warning_without_their_values(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        parse_config(Everything, FULL | {"Apikey": "hunter2", "Zone": "z"})

    (record,) = caplog.records
    assert record.__dict__["unknown_keys"] == ["Apikey", "Zone"]
    assert "hunter2" not in str(record.__dict__)


def test_known_keys_alone_are_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    parse_config(Everything, FULL)

    assert caplog.records == []


def test_without_a_configuration_class_the_map_is_ignored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    read: object = config_parser(None)({"ApiKey": "hunter2"})

    assert read is None
    assert caplog.records == []


class Model(BaseModel):
    app: str = Field(min_length=2, max_length=3, alias="application")
    count: Annotated[int, Key("HowMany"), Field(ge=1, le=5)] = 1
    code: Annotated[str, Field(pattern="^[a-z]+$")] = "a"
    key: Annotated[Secret, Field(min_length=8)] = Secret("0123456789")
    even: int = 2

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"{value} is odd")
        return value


def test_a_pydantic_model_is_read_by_our_keys_whatever_its_aliases() -> None:
    read = parse_config(Model, {"App": "abc", "HowMany": "5", "Even": "4"})

    assert (read.app, read.count, read.even) == ("abc", 5, 4)


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("App", "x", "App must be a text, at least 2 characters"),
        ("App", "hunter2", "App must be a text, at most 3 characters"),
        ("HowMany", "0", "HowMany must be a whole number, at least 1"),
        ("HowMany", "77777", "HowMany must be a whole number, at most 5"),
        ("Code", "hunter2", "Code must be a text, in the form ^[a-z]+$"),
        ("Key", "hunter2", "Key must be a secret text, at least 8 characters"),
        ("Even", "77777", "Even must be a whole number that the provider accepts"),
        ("Even", "7" * 5_000, "Even must be a whole number"),
    ],
)
def test_a_limit_is_named_and_the_value_is_not(key: str, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_config(Model, {"App": "abc", key: text})

    assert caught.value.message == f"The action's configuration does not fit: {said}."
    assert caught.value.__context__ is None


@dataclasses.dataclass(frozen=True)
class Pair:
    low: int
    high: int
    total: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"{self.low} is above {self.high}")


def test_values_that_do_not_go_together_are_refused_without_them() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_config(Pair, {"Low": "77777", "High": "66666"})

    assert caught.value.message == (
        "The action's configuration does not fit: its values do not go together."
    )


@dataclasses.dataclass(frozen=True)
class Buggy:
    app: str

    def __post_init__(self) -> None:
        raise KeyError(self.app)


def test_a_bug_in_a_check_is_told_by_its_place_and_not_by_its_text() -> None:
    with pytest.raises(
        RuntimeError, match=r"Buggy cannot be read: .* KeyError \(.*, line"
    ) as caught:
        parse_config(Buggy, {"App": "hunter2"})

    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None


def made(*fields: tuple[str, Any] | tuple[str, Any, Any]) -> type[Any]:
    return dataclasses.make_dataclass("Made", fields, frozen=True)


class Numbers(enum.Enum):
    ONE = 1


class Empty(enum.Enum):
    pass


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (made(("a", list[str])), "field a is list"),
        (made(("a", Any)), "field a is typing.Any"),
        (made(("a", object)), "field a is <class 'object'>"),
        (made(("a", int | str)), r"field a is int \| str"),
        (made(("a", Numbers)), "field a is <enum 'Numbers'>"),
        (made(("a", Empty)), "field a is <enum 'Empty'>"),
        (made(("a", Literal[1, 2])), r"field a is typing.Literal\[1, 2\]"),
        (made(("a", Annotated[str, Field(pattern="(")])), "unclosed group"),
        (made(("a", "NoSuchName")), "name 'NoSuchName' is not defined"),
        (made(("app_url", str), ("b", Annotated[str, Key("AppUrl")])), "share the key AppUrl"),
        (made(("a" * 51, str)), "is longer than 50 characters"),
        (made(("_", str)), "field _ gives an empty key; name it by Key"),
        (made(("a", Annotated[str, Key(secret=True)])), "a secret key is one of type Secret"),
        (made(("a", Annotated[Secret, Key(secret=False)])), "a secret key is one of type Secret"),
        (made(("a", Annotated[str, Key(required=False)])), "not required, so give it a default"),
        (made(("a", Annotated[Secret, Key(queryable=True)])), "queryable, so required and not"),
        (made(("a", Annotated[str, Key(queryable=True)], "x")), "queryable, so required and not"),
        (
            made(
                ("a", Annotated[str, Key(queryable=True)]),
                ("b", Annotated[str, Key(queryable=True)]),
            ),
            "AWS allows one queryable key",
        ),
    ],
)
def test_a_class_that_no_texts_can_fill_is_refused(config: type[Any], said: str) -> None:
    with pytest.raises(ConfigClassError, match=said) as caught:
        config_parser(config)

    assert str(caught.value).startswith("class ")
    assert "\n" not in str(caught.value)


def test_a_default_may_stand_behind_a_key_that_aws_requires() -> None:
    marked = Annotated[Optional[str], Key("Zone", required=True, queryable=True)]  # noqa: UP045

    assert config_parser(made(("a", marked, "x")))({"Zone": "z"}).a == "z"


def test_a_key_may_stand_inside_an_optional() -> None:
    assert (
        config_parser(made(("a", Annotated[str, Key("Zone")] | None, None)))({"Zone": "z"}).a == "z"
    )
