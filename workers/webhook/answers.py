"""What a receiver's answers mean for the pipeline, and the token from one look to the next.

All of it comes from outside: nothing is taken that was not checked, nor shown before it is cleaned.
"""

import hmac
import re
from dataclasses import dataclass, field, replace
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from dispatcher.sdk import (
    ConfigurationError,
    Continue,
    Failure,
    JobFailed,
    Outcome,
    PermissionDenied,
    Succeeded,
    SystemUnavailable,
)

from .calls import BODY, Answer

MISSES: Final = 10  # looks in a row without an answer: five minutes, for a receiver's own deploy
_TEXT: Final = 1_500
_TOKEN: Final = re.compile(
    r"v1 ([0-9A-Za-z_-]{1,100}) ([0-9]{1,11}) ([0-9]) ([!-~]{0,200}) ([!-~]{1,1000}) ([0-9a-f]{64})"
)
_SEE_SECRET: Final = (PermissionDenied, "see SigningSecret and who may call the receiver")
_SEE_PARAMETERS: Final = (ConfigurationError, "see Parameters")
_SEE_URL: Final = (ConfigurationError, "see Url")
_LOST: Final = (JobFailed, "it knows the operation no more")
_REDIRECT: Final = (ConfigurationError, "redirects are not followed, so give the URL it leads to")
_ODD: Final = (JobFailed, "which no webhook should")
_MEANINGS: Final[dict[int, tuple[type[Failure], str]]] = {
    400: _SEE_PARAMETERS,
    401: _SEE_SECRET,
    403: _SEE_SECRET,
    422: _SEE_PARAMETERS,
}


def _cleaned(text: str) -> str:
    plain = "".join(one if one.isprintable() else " " for one in text)
    plain = " ".join(plain.split())
    return plain if len(plain) <= _TEXT else f"{plain[: _TEXT - 1]}…"


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError
    return text


_Shown = Annotated[str, AfterValidator(_cleaned)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9@_-]+$")]
_Value = Annotated[str, AfterValidator(_printable)]


class Report(BaseModel):
    """An answer's body; what it has beside these is passed over."""

    model_config = ConfigDict(strict=True, frozen=True)

    status: Literal["running", "succeeded", "failed"] = Field(
        description='"running", "succeeded" or "failed"'
    )
    percent: int | None = Field(None, ge=0, le=100, description="a whole number from 0 to 100")
    summary: _Shown | None = Field(None, description="a text")
    message: _Shown | None = Field(None, description="a text")
    id: str | None = Field(
        None, pattern=r"^[!-~]{1,200}$", description="1 to 200 ASCII characters without blanks"
    )
    url: str | None = Field(
        None, pattern=r"^https?://[!-~]{1,500}$", description="a link of at most 500 characters"
    )
    status_url: str | None = Field(None, description="a text")
    variables: dict[_Name, _Value] | None = Field(
        None,
        description="texts without control characters under names of letters, digits, @, - and _",
    )


def report_of(answer: Answer, after: str = "") -> Report:
    """What a success says. JobFailed, with `after` at its end, for what cannot be used."""
    wrong = "it must be a JSON object of at most 64 KiB"
    if len(answer.body) <= BODY:
        try:
            return Report.model_validate_json(answer.body)
        except ValidationError as error:
            names = [str(one["loc"][0]) for one in error.errors(include_url=False) if one["loc"]]
        if names:
            wrong = f"{names[0]} must be {Report.model_fields[names[0]].description}"
    raise JobFailed(f"The webhook's answer cannot be used: {wrong}.{after}")


def refusal(answer: Answer, *, starting: bool) -> Failure | None:
    """What an answer means that is no success."""
    if 200 <= answer.status < 300:
        return None
    if answer.failed and not starting:
        return SystemUnavailable(
            f"The webhook {answer.told}; the last {MISSES} looks came to nothing."
        )
    if answer.failed:
        so = "nothing was started" if answer.undone else "the operation may have started"
        return SystemUnavailable(f"The webhook {answer.told}; {so}.")
    kind, text = _meaning(answer.status, starting=starting)
    return kind(f"The webhook {answer.told}; {text}.")


def _meaning(status: int, *, starting: bool) -> tuple[type[Failure], str]:
    if status in (404, 410):
        return _SEE_URL if starting else _LOST
    return _MEANINGS.get(status, _REDIRECT if 300 <= status < 400 else _ODD)


def outcome(report: Report, token: "Token", key: bytes) -> Outcome:
    """The handler's. Raises JobFailed for an operation that failed."""
    token = replace(token, external=report.id or token.external)
    if report.status == "failed":
        text = report.message or report.summary or "The operation failed and gave no message."
        raise JobFailed(_joined(text, report.url), token.external_id)
    summary = _joined(report.summary, report.url)
    if report.status == "succeeded":
        return Succeeded(summary, token.external_id, variables=report.variables or None)
    return Continue(token.sealed(key), report.percent, summary, token.external_id)


def _joined(text: str | None, link: str | None) -> str:
    return " ".join(part for part in (text, link) if part)


@dataclass(frozen=True)
class Token:
    """What one look hands to the next. `operation`: the id of the job that started it."""

    operation: str
    started: int
    misses: int = 0
    external: str = ""
    url: str = field(default="", repr=False)

    @property
    def external_id(self) -> str | None:
        return self.external or None

    def sealed(self, key: bytes) -> str:
        text = f"v1 {self.operation} {self.started} {self.misses} {self.external} {self.url}"
        return f"{text} {_seal(key, text)}"

    @classmethod
    def opened(cls, text: str, key: bytes) -> "Token":
        """Raises ConfigurationError for any text that `sealed` did not make with this key."""
        match = _TOKEN.fullmatch(text)
        if match is None or not hmac.compare_digest(match[6], _seal(key, text[:-65])):
            raise ConfigurationError(
                "The continuation token is not one of this action's, or its SigningSecret was "
                "changed while the operation ran."
            )
        return cls(match[1], int(match[2]), int(match[3]), match[4], match[5])


def _seal(key: bytes, text: str) -> str:
    # The word before it keeps it apart from what is signed for receivers, which know the key too.
    return hmac.digest(key, f"token:{text}".encode(), "sha256").hex()
