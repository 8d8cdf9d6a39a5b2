"""A custom action's queryable key: the settings name its values, or AWS refuses its polls."""

from dataclasses import dataclass
from typing import Annotated

import pytest

from dispatcher.checks import queries
from dispatcher.configuration import config_parser, queryable_key
from dispatcher.engine.model import Action
from dispatcher.sdk import ActionSpec, ActionType, Key, Owner
from dispatcher.settings import read


@dataclass(frozen=True)
class Config:
    project: Annotated[str, Key("Project", queryable=True)]


@dataclass(frozen=True)
class Plain:
    project: str


def acting(owner: Owner = Owner.CUSTOM, config: type = Config, provider: str = "Acme") -> Action:
    spec = ActionSpec(ActionType("Build", owner, provider, "1"), config)
    return Action(spec, lambda job: pytest.fail("it is not run"), config_parser(config), "tests")


def faults(asked: str, *actions: Action) -> tuple[str, ...]:
    found = queries(read({"DISPATCHER_QUERY_PARAMS": asked}), actions)
    assert found.wrong_settings == bool(found.faults)
    return found.faults


def test_the_values_of_the_key_suffice() -> None:
    assert faults("Acme.Project=shop,Acme.Project=blog", acting()) == ()


@pytest.mark.parametrize("asked", ["", "Acme.Other=shop", "Acme.Project=shop,Acme.Other=x"])
def test_a_key_without_its_values_or_beside_another_is_named_with_the_remedy(asked: str) -> None:
    assert faults(asked, acting()) == (
        "DISPATCHER_QUERY_PARAMS: Custom.Build.Acme.1 is polled by its queryable key Project; name "
        "the values to take, as in Acme.Project=value.",
    )


@pytest.mark.parametrize(
    "action",
    [acting(config=Plain), acting(Owner.THIRD_PARTY), acting(provider="Another")],
    ids=["no queryable key", "third-party", "another provider"],
)
def test_values_that_no_action_is_polled_by_are_named(action: Action) -> None:
    assert any(
        "no custom action of a provider Acme" in one for one in faults("Acme.Project=x", action)
    )


def test_nothing_need_be_said_of_other_actions() -> None:
    assert faults("", acting(config=Plain), acting(Owner.THIRD_PARTY)) == ()
    assert queryable_key(acting(Owner.THIRD_PARTY).spec) is None
