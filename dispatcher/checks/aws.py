"""Asks AWS who we are, for a job of each action type in each region, and tells what it says.

There is no call that asks without taking: a job that it happens to get is left alone, and AWS
offers it again after the acknowledgement window."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Final

from botocore.exceptions import BotoCoreError

from dispatcher.aws.account import Account, Answer, Call, Said
from dispatcher.checks.clocks import REFUSED_BEYOND, ahead, compared
from dispatcher.checks.report import Report, joined
from dispatcher.configuration import queryable_key
from dispatcher.engine.model import Action, LedgerDown
from dispatcher.sdk import Owner
from dispatcher.settings import Settings, SettingsError
from dispatcher.store.connection import connect
from dispatcher.store.fleet import RedisFleet

NO_CREDENTIALS: Final = (
    "AWS: boto3 finds no credentials; give this machine a role, or set AWS_PROFILE, or "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
)
NOT_ASKED: Final = (
    "AWS is not asked who we are: AWS_ENDPOINT_URL_CODEPIPELINE leads elsewhere, and neither "
    "AWS_ENDPOINT_URL nor AWS_ENDPOINT_URL_STS does."
)
NAMED: Final = "AWS knows us as {arn}, in account {account}."
UNNAMED: Final = "AWS: STS in {region} does not say who we are ({code}); no worker needs to know."
OF_NO_WORKER: Final = {Said.FORBIDDEN, Said.REFUSED}  # where STS says it
PARTNERS: Final = ", or have this account named among those that may poll it"
FAULTS: Final = {
    Said.FORBIDDEN: "{whom}: a policy forbids {operation} in {region} ({code}); allow "
    "codepipeline:{operation} to the role of the workers.",
    Said.BAD_CREDENTIALS: "AWS: it does not take these credentials in {region} ({code}); correct "
    "them, or the role that they come from.",
    Said.UNASKABLE: "AWS: it cannot be asked in {region} ({code}); correct the profile, the "
    "credentials or the endpoint that boto3 is given.",
    Said.REFUSED: "{whom}: AWS refuses {operation} in {region} ({code}); compare the action type "
    "with its declaration.",
}
WARNINGS: Final = {
    Said.UNKNOWN_TYPE: "{whom}: AWS knows no such action type in {region}; create it there, or "
    "correct its name{partners}.",
    Said.THROTTLED: "AWS: it answers calls too seldom in {region} ({code}); ask once more, and if "
    "it goes on, raise DISPATCHER_POLL_INTERVAL_MAX.",
    Said.NOTHING: "AWS: it did not answer in {region} ({code}); look at the network, and whether "
    "there is such a region.",
}


def paused(given: Settings) -> set[str]:
    """Providers that an operator wants no polls of."""
    try:
        with connect(given.redis_url.get_secret_value()) as client:
            return RedisFleet(client, given.times).paused()
    except LedgerDown:  # since it was looked at
        return set()


def asked(given: Settings, actions: Sequence[Action], resting: Collection[str]) -> Report:
    """`resting`: providers that are not polled."""
    try:
        regions = given.all_regions()
        with closing(Account()) as account:
            if not account.has_credentials():
                return Report(faults=(NO_CREDENTIALS,))
            identity = [Call(regions[0])] if account.knows_us(regions[0]) else []
            served = [action for action in actions if action.spec.type.provider not in resting]
            answers = account.ask([*identity, *calls(given, served, regions)])
    except SettingsError:  # said where regions are looked at
        return Report()
    except (BotoCoreError, ValueError) as error:
        text = f"AWS: what boto3 is given cannot be used ({type(error).__name__})"
        remedy = "correct or unset the profile, the credentials or the endpoint"
        return Report(faults=(f"{text}; {remedy}.",))
    skipped = {action.spec.type.provider for action in actions}.intersection(resting)
    said = [f"{name} is paused, so AWS is not asked for its jobs." for name in sorted(skipped)]
    return joined([Report((*said, *(() if identity else (NOT_ASKED,)))), told(answers)])


def calls(given: Settings, actions: Iterable[Action], regions: Sequence[str]) -> list[Call]:
    """A poll of each action type in each region; none where the value to poll for is not set."""
    found = []
    for action in actions:
        key = queryable_key(action.spec)
        queries = given.queries.get(action.spec.type.provider, ())
        if key is None:
            found += [Call(region, action.spec.type) for region in regions]
        elif {name for name, _ in queries} == {key}:
            found += [Call(region, action.spec.type, queries[0]) for region in regions]
    return found


def told(answers: Sequence[Answer]) -> Report:
    apart = max((_ahead(answer) for answer in answers), key=abs, default=0.0)
    clock = compared("AWS's", apart)
    if abs(apart) > REFUSED_BEYOND:  # then AWS says nothing else
        return Report(
            faults=tuple(f"{text} AWS takes no call until then." for text in clock.warnings)
        )
    return joined([*map(_sentence, answers), *_accepted(answers), clock])


def _ahead(answer: Answer) -> float:
    if answer.date is None:
        return 0.0
    return ahead(answer.asked, answer.answered, answer.date, answer.date + 1)


def _accepted(answers: Iterable[Answer]) -> list[Report]:
    by_region: dict[str, list[str]] = {}
    for answer in answers:
        if answer.said is Said.YES and answer.call.type:
            by_region.setdefault(answer.call.region, []).append(answer.call.type.task_name)
    return [
        Report((f"AWS may be asked for jobs in {region}: {', '.join(names)}.",))
        for region, names in by_region.items()
    ]


def _sentence(answer: Answer) -> Report:
    if answer.said is Said.YES:
        return Report() if answer.call.type else Report((NAMED.format_map(_words(answer)),))
    if answer.said in FAULTS and (answer.call.type or answer.said not in OF_NO_WORKER):
        return Report(faults=(FAULTS[answer.said].format_map(_words(answer)),))
    text = WARNINGS[answer.said] if answer.call.type else UNNAMED
    return Report(warnings=(text.format_map(_words(answer)),))


def _words(answer: Answer) -> Mapping[str, str]:
    kind = answer.call.type
    return {
        "whom": kind.task_name if kind else "AWS",
        "operation": answer.call.operation,
        "region": answer.call.region,
        "code": answer.code,
        "arn": answer.arn,
        "account": answer.account,
        "partners": PARTNERS if kind and kind.owner is Owner.THIRD_PARTY else "",
    }
