"""What an action type is, and how a field of its configuration is declared. Limits are AWS's."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, get_args

from pydantic import SecretStr

from dispatcher.sdk.checks import check_name, check_one_of, check_text

Secret = SecretStr  # a text that repr, str and logs show as stars; read with get_secret_value()
Category = Literal["Source", "Build", "Deploy", "Test", "Invoke", "Approval", "Compute"]


class Owner(StrEnum):
    """Whose action type it is: a partner's for every account, or one account's own."""

    THIRD_PARTY = "ThirdParty"
    CUSTOM = "Custom"


class OnCrash(StrEnum):
    """What becomes of a job whose process died inside the handler."""

    FAIL = "fail"
    RERUN = "rerun"


@dataclass(frozen=True, slots=True)
class ActionType:
    """AWS's ActionTypeId; limits as in the API reference.

    Raises ValueError or TypeError for what AWS would refuse.
    """

    category: str
    owner: Owner
    provider: str
    version: str

    def __post_init__(self) -> None:
        check_one_of("category", self.category, get_args(Category))
        check_one_of("owner", self.owner, tuple(Owner))
        check_name("provider", self.provider, 35)
        check_name("version", self.version, 9)
        object.__setattr__(self, "owner", Owner(self.owner))

    @property
    def task_name(self) -> str:
        """`<Owner>.<Category>.<Provider>.<version>`, the Celery task of this action."""
        return f"{self.owner}.{self.category}.{self.provider}.{self.version}"

    @property
    def queue(self) -> str:
        """`provider.<Provider>`, shared by all its categories, owners and versions."""
        return f"provider.{self.provider}"


@dataclass(frozen=True, slots=True)
class Key:
    """Names a field's configuration key and AWS's property of it: `Annotated[str, Key("AppURL")]`.

    Without a name the key follows from the field (`api_key`: `ApiKey`). `required` follows from
    the field's default and `secret` from its type `Secret`; say them only to be explicit.
    `key` and `queryable` are AWS's flags of the same names; a queryable property must be required
    and not secret (API reference, ActionConfigurationProperty). Name 1..50, description 1..160
    characters. Raises ValueError or TypeError.
    """

    name: str | None = None
    description: str | None = None
    required: bool | None = None
    secret: bool | None = None
    key: bool = False
    queryable: bool = False

    def __post_init__(self) -> None:
        if self.name is not None:
            check_text("Key's name", self.name, 50)
        if self.description is not None:
            check_text("Key's description", self.description, 160)
        if self.queryable and (self.secret or self.required is False):
            raise ValueError("A queryable key must be required and not secret; drop one flag.")
