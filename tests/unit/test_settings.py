"""The settings: what they are by default, and that every fault is said at once, without a value."""

from datetime import timedelta

import pytest

from dispatcher.archives import Limits
from dispatcher.settings import VARIABLES, Settings, SettingsError, read, survey

CANARY = "canary-9d2e"
WRONG = {
    "DISPATCHER_REDIS_URL": f"http://{CANARY}",
    "DISPATCHER_BROKER_URL": f"{CANARY}://host",
    "DISPATCHER_ALLOW_INSECURE_REDIS": CANARY,
    "DISPATCHER_REGIONS": f"eu-west-1,{CANARY}",
    "DISPATCHER_CLIENT_TOKENS": f'{{"client": "{CANARY}"}}',
    "DISPATCHER_POLL_INTERVAL": CANARY,
    "DISPATCHER_POLL_INTERVAL_MAX": "0",
    "DISPATCHER_ACK_WINDOW": "-3",
    "DISPATCHER_LEASE": "nan",
    "DISPATCHER_SWEEP_INTERVAL": "inf",
    "DISPATCHER_SHUTDOWN_GRACE": "86401",
    "DISPATCHER_QUERY_PARAMS": f"Acme.Project=shop,{CANARY}",
    "DISPATCHER_ARTIFACT_MAX_BYTES": CANARY,
    "DISPATCHER_EXTRACT_MAX_BYTES": "0",
    "DISPATCHER_EXTRACT_MAX_ENTRIES": "1.5",
    "DISPATCHER_EXTRACT_MAX_RATIO": "-1",
}


def faults(**given: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read({f"DISPATCHER_{name}": value for name, value in given.items()})
    return str(caught.value).splitlines()


def test_nothing_need_be_set() -> None:
    found = read({})

    assert found.broker == "redis://127.0.0.1:6379/0"
    assert found.providers == ("workers",)
    assert found.times.lease == timedelta(seconds=60)


def test_the_given_environment_alone_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_LEASE", "5")

    assert read({"DISPATCHER_LEASE": "0.5"}).times.lease == timedelta(milliseconds=500)
    assert read({}).lease == 60


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    assert read(dict.fromkeys(WRONG, "")) == Settings()


def test_lists_are_parted_by_commas_and_hold_nothing_twice() -> None:
    found = read({"DISPATCHER_PROVIDERS": " a, b.c ,a,", "DISPATCHER_REGIONS": "eu-west-1"})

    assert found.providers == ("a", "b.c")
    assert found.all_regions() == ("eu-west-1",)


@pytest.mark.parametrize("variable", WRONG)
def test_a_wrong_value_is_one_line_with_its_variable_and_not_its_value(variable: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read({variable: WRONG[variable]})

    assert str(caught.value).startswith(f"{variable}: ")
    assert len(str(caught.value).splitlines()) == 1
    assert CANARY not in str(caught.value)


def test_all_faults_are_said_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        read({**WRONG, "DISPATCHER_PROVDERS": CANARY})

    lines = str(caught.value).splitlines()
    assert {line.partition(":")[0] for line in lines} == {*WRONG, "DISPATCHER_PROVDERS"}
    assert CANARY not in str(caught.value)


def test_intervals_in_the_wrong_order_are_said_beside_other_faults() -> None:
    lines = faults(POLL_INTERVAL="9", LEASE=CANARY)

    assert [line.partition(":")[0] for line in lines] == [
        "DISPATCHER_LEASE",
        "DISPATCHER_POLL_INTERVAL_MAX",
    ]


def test_an_interval_that_cannot_be_read_is_no_fault_of_the_other() -> None:
    assert len(faults(POLL_INTERVAL=CANARY, POLL_INTERVAL_MAX="0.5")) == 1


def test_a_misspelt_name_is_told_the_right_one_and_a_strange_one_is_left_alone() -> None:
    assert "DISPATCHER_REDIS_URL is meant" in faults(REDIS_ULR="x")[0]
    assert read({"DISPATCHER_OF_ANOTHER_KIND": "x"}) == Settings()


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://host:port/0",
        "redis://host:99999/0",
        "redis://:pass/word@host/0",
        "redis://host/name",
        "redis://host/0/1",
        "127.0.0.1:6379",
    ],
)
def test_an_address_that_would_raise_later_is_refused_now(url: str) -> None:
    assert faults(REDIS_URL=url)[0].startswith("DISPATCHER_REDIS_URL: ")


@pytest.mark.parametrize(
    "url",
    ["amqp://u:p@host:5672/vhost", "sqs://", "sentinel://a:26379;sentinel://b:26379"],
)
def test_a_broker_of_celerys_is_taken_as_it_is(url: str) -> None:
    assert read({"DISPATCHER_BROKER_URL": url}).broker == url


@pytest.mark.parametrize(
    ("given", "broker"),
    [
        ("rediss://one;rediss://two", "rediss://one?{0};rediss://two?{0}"),
        ("rediss://one?ssl_ca_certs=/ca.pem", "rediss://one?ssl_ca_certs=/ca.pem&{0}"),
        ("rediss://one?ssl_cert_reqs=none", "rediss://one?ssl_cert_reqs=none"),
    ],
)
def test_the_certificate_of_a_redis_that_is_the_broker_alone_is_checked_too(
    given: str, broker: str
) -> None:
    expected = broker.format("ssl_cert_reqs=required")

    assert read({"DISPATCHER_BROKER_URL": given}).broker == expected


@pytest.mark.parametrize(
    ("redis", "broker"),
    [
        ("redis://:p@host:1/2?health_check_interval=5", "redis://:p@host:1/2"),
        ("rediss://host:1/2", "rediss://host:1/2?ssl_cert_reqs=required"),
        ("rediss://host?ssl_cert_reqs=none&db=1", "rediss://host?ssl_cert_reqs=none"),
    ],
)
def test_the_broker_is_redis_in_a_form_that_kombu_takes_and_checks_certificates(
    redis: str, broker: str
) -> None:
    assert read({"DISPATCHER_REDIS_URL": redis}).broker == broker


def test_the_region_of_boto3_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-2")

    assert read({}).all_regions() == ("us-east-2",)
    assert read({"AWS_REGION": "eu-west-1"}).all_regions() == ("eu-west-1",)


def test_no_region_and_an_unknown_profile_are_wrong_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(SettingsError, match="DISPATCHER_REGIONS"):
        read({}).all_regions()

    monkeypatch.setenv("AWS_PROFILE", CANARY)
    with pytest.raises(SettingsError, match="AWS_PROFILE") as caught:
        read({}).all_regions()
    assert CANARY not in str(caught.value)


def test_a_survey_reads_what_is_right_beside_what_is_wrong() -> None:
    found = survey({"DISPATCHER_LEASE": CANARY, "DISPATCHER_PROVIDERS": "mine"})

    assert found.settings.providers == ("mine",)
    assert found.settings.lease == 60
    assert set(found.faults) == {"DISPATCHER_LEASE"}


def test_what_is_printed_of_settings_holds_no_password() -> None:
    found = read({"DISPATCHER_REDIS_URL": f"redis://:{CANARY}@host/0"})

    assert CANARY not in repr(found)


def test_every_setting_has_a_variable_of_its_own() -> None:
    assert len(set(VARIABLES.values())) == len(Settings.model_fields)


@pytest.mark.parametrize("said", ["true", "false", "1", "0", "True"])
def test_an_insecure_redis_is_allowed_in_so_many_words(said: str) -> None:
    found = read({"DISPATCHER_ALLOW_INSECURE_REDIS": said})

    assert found.allow_insecure_redis == (said in {"true", "1", "True"})
    assert not read({}).allow_insecure_redis
    assert faults(ALLOW_INSECURE_REDIS="2") == [
        "DISPATCHER_ALLOW_INSECURE_REDIS: give true or false."
    ]


def test_query_params_are_values_of_a_providers_queryable_key() -> None:
    found = read({"DISPATCHER_QUERY_PARAMS": "Acme.Project=shop, Acme.Project=blog,Other.My key=1"})

    assert found.queries == {
        "Acme": [("Project", "shop"), ("Project", "blog")],
        "Other": [("My key", "1")],
    }


def test_what_an_artifact_may_unpack_to_is_the_operators_choice() -> None:
    limits = read({"DISPATCHER_EXTRACT_MAX_BYTES": "1000", "DISPATCHER_EXTRACT_MAX_RATIO": "50"})

    assert limits.limits == Limits(max_bytes=1000, max_entries=100_000, max_ratio=50)
