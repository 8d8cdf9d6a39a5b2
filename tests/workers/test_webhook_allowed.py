"""Where a webhook must not lead, however its URL is written and whatever its name resolves to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.sdk import ConfigurationError, Continue, Failure
from tests.workers.webhook_receiver import JOB, Stage, resolving
from workers.webhook.allowed import Place, Policy, operators_policy

Patch = pytest.MonkeyPatch
POLICY = Policy([("hooks.example.com", 443), ("*.example.org", 8443)], [])

HOSTILE = [
    # another host, or none
    "https://evil.test/",
    "https://example.com/",
    "https://sub.hooks.example.com/",
    "https://hooks.example.com.evil.test/",
    "https://evilhooks.example.com/",
    "https://hooks-example.com/",
    "https://example.org:8443/",
    "https://evilexample.org:8443/",
    "https://.example.org:8443/",
    "https://a..example.org:8443/",
    "https://localhost/",
    "https:///start",
    "https://",
    "https:hooks.example.com/",
    "https:/hooks.example.com/",
    "//hooks.example.com/",
    "hooks.example.com",
    "/start",
    "",
    # another scheme
    "http://hooks.example.com/",
    "HTTPS://hooks.example.com/",
    "http\N{LATIN SMALL LETTER LONG S}://hooks.example.com/",
    "ftp://hooks.example.com/",
    "file:///etc/passwd",
    "gopher://hooks.example.com/",
    "javascript://hooks.example.com/%0aalert(1)",
    "view-source:https://hooks.example.com/",
    "https+unix://hooks.example.com/",
    # another port
    "https://hooks.example.com:8443/",
    "https://hooks.example.com:80/",
    "https://hooks.example.com:22/",
    "https://hooks.example.com:0/",
    "https://hooks.example.com:00443/",
    "https://hooks.example.com:65979/",
    "https://hooks.example.com:4294967739/",
    "https://hooks.example.com:/",
    "https://hooks.example.com:+443/",
    "https://hooks.example.com:-443/",
    "https://hooks.example.com: 443/",
    "https://hooks.example.com:443:443/",
    "https://hooks.example.com:٤٤٣/",
    "https://a.example.org/",
    # a user, and what parsers disagree about
    "https://user@hooks.example.com/",
    "https://user:password@hooks.example.com/",
    "https://@hooks.example.com/",
    "https://hooks.example.com@evil.test/",
    "https://hooks.example.com:443@evil.test/",
    "https://hooks.example.com%40evil.test/",
    "https://hooks.example.com\\@evil.test/",
    "https://evil.test\\@hooks.example.com/",
    "https://hooks.example.com\\.evil.test/",
    "https://evil.test#@hooks.example.com/",
    "https://evil.test;hooks.example.com/",
    "https://evil.test&@hooks.example.com/",
    "https://hooks.example.com,evil.test/",
    "https://hooks.example.com evil.test/",
    "https://hooks.example.com#fragment",
    "https://hooks.example.com/a#fragment",
    # addresses in any notation
    "https://127.0.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://93.184.216.34/",
    "https://2130706433/",
    "https://017700000001/",
    "https://0177.0.0.1/",
    "https://0x7f000001/",
    "https://0X7F.0.0.1/",
    "https://0x7f.0x0.0x0.0x1/",
    "https://127.1/",
    "https://127.0.1/",
    "https://0/",
    "https://0x/",
    "https://1.2.3.4.5/",
    "https://a.example.1/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[fd00:ec2::254]/",
    "https://[fe80::1%25eth0]/",
    "https://[fe80::1%eth0]/",
    "https://[::]/",
    "https://[hooks.example.com]/",
    "https://::1/",
    "https://127.0.0.1.nip.io/",
    "https://①②⑦.⓪.⓪.①/",
    # letters that look like others, and dots that are none
    "https://hooks.example.com./",
    "https://hooks.example.com../",
    "https://hooks。example。com/",
    "https://hooks\N{FULLWIDTH FULL STOP}example\N{FULLWIDTH FULL STOP}com/",
    "https://ⓗⓞⓞⓚⓢ.example.com/",
    "https://hoo\N{KELVIN SIGN}s.example.com/",
    "https://hook\N{LATIN SMALL LETTER LONG S}.example.com/",
    "https://ho\N{CYRILLIC SMALL LETTER O}ks.example.com/",
    "https://hooks.exämple.com/",
    "https://xn--hoks-55a.example.com/",
    "https://hooks.example.com\N{SOFT HYPHEN}/",
    "https://hooks\N{ZERO WIDTH SPACE}.example.com/",
    "https://ho%6fks.example.com/",
    "https://hooks.example.com%2f.evil.test/",
    "https://hooks.example.com%00.evil.test/",
    "https://-a.example.org:8443/",
    "https://a-.example.org:8443/",
    "https://a_b.example.org:8443/",
    "https://*.example.org:8443/",
    f"https://{'a' * 64}.example.org:8443/",
    f"https://{'a.' * 125}example.org:8443/",
    # control characters, blanks, and more than there may be
    "https://hooks.example.com/\r\nHost: evil.test",
    "https://hooks.example.com\r\n.evil.test/",
    "https://hooks.example.com/\n",
    "https://hooks.example.com\n",
    "https://hooks.example.com/\t",
    "https://hooks.example.com/\x00",
    "https://hooks.example.com/ HTTP/1.1",
    "https://hooks.example.com/\x7f",
    "https://hooks.example.com/é",
    "https://hooks.example.com/\udcff",
    "https://hooks.example.com/a|b",
    'https://hooks.example.com/"',
    "https://hooks.example.com/{id}",
    " https://hooks.example.com/",
    "https://hooks.example.com/ ",
    "\ufeffhttps://hooks.example.com/",
    "https://\thooks.example.com/",
    "ht\ntps://hooks.example.com/",
    f"https://hooks.example.com/{'a' * 1_000}",
]


@pytest.mark.parametrize("url", HOSTILE, ids=ascii)
def test_a_hostile_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        POLICY.place("Url", url)

    assert caught.value.message.startswith(("Url must be", "Url names a host and port"))
    for part in ("evil", "password", "meta-data", url[8:]):
        assert not part or part == "/" or part not in caught.value.message


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0177.1", "0x7f000001", "0X7F.0.0.0x1", "0x", "a.1"]
)
def test_an_address_is_refused_even_where_it_is_listed(host: str) -> None:
    policy = Policy([(host.lower(), 443)], [])

    with pytest.raises(ConfigurationError, match="without a user, an IP address"):
        policy.place("Url", f"https://{host}/")


def test_there_are_many_hostile_urls() -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) >= 60


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://hooks.example.com", Place("hooks.example.com", 443, "")),
        ("https://hooks.example.com:443/", Place("hooks.example.com", 443, "/")),
        ("https://Hooks.EXAMPLE.com/A", Place("hooks.example.com", 443, "/A")),
        ("https://hooks.example.com?a=b@c", Place("hooks.example.com", 443, "?a=b@c")),
        ("https://hooks.example.com//evil/@x", Place("hooks.example.com", 443, "//evil/@x")),
        ("https://a.b.example.org:8443/x", Place("a.b.example.org", 8443, "/x")),
    ],
)
def test_an_allowed_url_is_taken_apart(url: str, place: Place) -> None:
    assert POLICY.place("Url", url) == place


@given(st.text(min_size=1) | st.from_regex(r"https://[!-~]{1,40}", fullmatch=True))
def test_no_url_leads_to_a_host_that_is_not_allowed(url: str) -> None:
    try:
        place = POLICY.place("Url", url)
    except ConfigurationError:
        return

    assert place.host == "hooks.example.com" or place.host.endswith(".example.org")


@given(
    st.sampled_from(["https://hooks.example.com", "https://a.example.org:8443"]),
    st.text(min_size=1, max_size=4),
    st.integers(0, 30),
)
def test_what_is_put_into_an_allowed_url_leads_nowhere_else(url: str, odd: str, at: int) -> None:
    url = f"{url[:at]}{odd}{url[at:]}"
    try:
        place = POLICY.place("Url", url)
    except ConfigurationError:
        return

    assert place.host == "hooks.example.com" or place.host.endswith(".example.org")
    assert (place.host + place.path).isascii()


# Addresses


REFUSED = [
    *("0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1"),  # noqa: S104
    *("172.31.255.255", "192.168.1.1", "169.254.169.254", "169.254.170.2", "100.64.0.1"),
    *("100.100.100.200", "168.63.129.16", "192.0.0.1", "192.0.0.9", "192.0.0.192", "192.0.2.1"),
    *("192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255"),
    *("240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:93.184.216.34"),
    *("::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::5db8:d822", "64:ff9b:1::a00:1"),
    *("2002:7f00:1::1", "2002:a9fe:a9fe::", "2002:5db8:d822::1", "2001:0:1::1", "2001:10::1"),
    *(
        "2001:20::1",
        "2001:1::1",
        "400::1",
        "2001:db8::1",
        "3fff::1",
        "100::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
    ),
    *("fd20:ce::254", "fe80::1", "fe80::a9fe:a9fe", "fec0::1", "ff02::1", "ff0e::1", "4000::1"),
]
PUBLIC = ["93.184.216.34", "1.1.1.1", "192.0.1.1", "172.32.0.1", "100.128.0.1", "223.255.255.1"]
PUBLIC += ["2606:4700::1111", "2a00:1450:4001::1"]


def addresses(monkeypatch: Patch, policy: Policy, *found: str) -> list[str]:
    resolving(monkeypatch, {"hooks.example.com": list(found)}, [])
    return policy.addresses(Place("hooks.example.com", 443, ""))


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_is_not_public_is_refused_and_not_shown(
    monkeypatch: Patch, address: str
) -> None:
    with pytest.raises(ConfigurationError, match="that is not public") as caught:
        addresses(monkeypatch, POLICY, address)

    assert address not in caught.value.message


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_taken(monkeypatch: Patch, address: str) -> None:
    assert addresses(monkeypatch, POLICY, address) == [address]


def test_one_refused_address_among_others_is_enough(monkeypatch: Patch) -> None:
    with pytest.raises(ConfigurationError):
        addresses(monkeypatch, POLICY, "93.184.216.34", "10.0.0.1")


def test_an_address_told_twice_is_one(monkeypatch: Patch) -> None:
    assert addresses(monkeypatch, POLICY, "1.1.1.1", "1.1.1.1") == ["1.1.1.1"]


@pytest.mark.parametrize("allowed", ["127.0.0.0/8,::1", "10.1.0.0/16,127.0.0.0/8, ::1/128"])
def test_the_operator_may_permit_networks_of_his_own(monkeypatch: Patch, allowed: str) -> None:
    monkeypatch.setenv("WEBHOOK_ALLOWED_HOSTS", "hooks.example.com")
    monkeypatch.setenv("WEBHOOK_ALLOWED_NETWORKS", allowed)
    policy = operators_policy()

    assert addresses(monkeypatch, policy, "127.0.0.1", "::1") == ["127.0.0.1", "::1"]
    with pytest.raises(ConfigurationError):
        addresses(monkeypatch, policy, "10.0.0.1")
    with pytest.raises(ConfigurationError):
        addresses(monkeypatch, policy, "::ffff:127.0.0.1")


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.1", "169.254.169.254", "168.63.129.16", "224.0.0.1", "255.255.255.255", "::"),
        *("fd00:ec2::254", "fd20:ce::254", "fe80::1", "ff02::1", "::ffff:169.254.169.254"),
        *("64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::1", "2001:0:1::1"),
    ],
)
def test_some_addresses_are_refused_whatever_the_operator_permits(
    monkeypatch: Patch, address: str
) -> None:
    monkeypatch.setenv("WEBHOOK_ALLOWED_HOSTS", "hooks.example.com")
    monkeypatch.setenv("WEBHOOK_ALLOWED_NETWORKS", "0.0.0.0/0,::/0")
    policy = operators_policy()

    with pytest.raises(ConfigurationError):
        addresses(monkeypatch, policy, address)


# The operator's lists


@pytest.mark.parametrize("hosts", [None, "", " , ,"])
def test_without_a_list_of_hosts_every_job_is_refused(
    monkeypatch: Patch, hosts: str | None
) -> None:
    monkeypatch.delenv("WEBHOOK_ALLOWED_HOSTS", raising=False)
    if hosts is not None:
        monkeypatch.setenv("WEBHOOK_ALLOWED_HOSTS", hosts)

    with pytest.raises(ConfigurationError, match="until its operator sets WEBHOOK_ALLOWED_HOSTS"):
        operators_policy()


@pytest.mark.parametrize(
    ("hosts", "networks"),
    [
        ("*", ""),
        ("https://hooks.example.com", ""),
        ("hooks.example.com/start", ""),
        ("hooks.*.com", ""),
        ("*hooks.example.com", ""),
        ("hooks.example.com:", ""),
        ("hooks.example.com:0", ""),
        ("hooks.example.com hooks.example.org", ""),
        ("hooks.example.com.", ""),
        ("hööks.example.com", ""),
        ("good.example.com,[::1]", ""),
        ("good.example.com,10.1.2.3:8443", ""),
        ("hooks.example.com", "10.0.0.1/8"),
        ("hooks.example.com", "10.0.0.0/33"),
        ("hooks.example.com", "localhost"),
        ("hooks.example.com", "10.0.0.0/8 127.0.0.0/8"),
    ],
)
def test_a_list_that_cannot_be_read_is_told(monkeypatch: Patch, hosts: str, networks: str) -> None:
    monkeypatch.setenv("WEBHOOK_ALLOWED_HOSTS", hosts)
    monkeypatch.setenv("WEBHOOK_ALLOWED_NETWORKS", networks)

    with pytest.raises(ConfigurationError, match="operator must correct") as caught:
        operators_policy()

    assert caught.value.__context__ is None


def test_a_list_is_read_whatever_its_case_and_blanks(monkeypatch: Patch) -> None:
    monkeypatch.setenv("WEBHOOK_ALLOWED_HOSTS", " Hooks.Example.com , *.Example.ORG:8443,")
    monkeypatch.setenv("WEBHOOK_ALLOWED_NETWORKS", "")

    assert operators_policy() == POLICY


# In whole jobs


@pytest.mark.parametrize(
    "url", ["https://evil.test/", "http://hooks.test/", "https://127.0.0.1:{port}/"]
)
def test_a_refused_url_is_not_looked_up(stage: Stage, url: str) -> None:
    with pytest.raises(ConfigurationError):
        stage.run(url=url.format(port=stage.receiver.port))

    assert (stage.lookups, stage.receiver.connections) == ([], 0)


def test_a_refused_address_is_not_connected_to(stage: Stage, monkeypatch: Patch) -> None:
    monkeypatch.delenv("WEBHOOK_ALLOWED_NETWORKS")

    with pytest.raises(ConfigurationError, match="WEBHOOK_ALLOWED_NETWORKS"):
        stage.run()

    assert stage.receiver.connections == 0


def test_a_token_is_checked_against_the_list_that_is_in_force_now(
    stage: Stage, monkeypatch: Patch
) -> None:
    port = stage.receiver.port
    status = f"https://other.test:{port}/status?key=canary"
    token = stage.started(status_url=status)
    monkeypatch.setenv("WEBHOOK_ALLOWED_HOSTS", f"hooks.test:{port}")

    with pytest.raises(ConfigurationError) as caught:
        stage.run(token)

    assert caught.value.message.startswith("The operation's status URL names a host and port")
    assert "canary" not in caught.value.message
    assert stage.lookups == []


def test_a_token_of_another_host_is_refused_though_that_is_allowed(stage: Stage) -> None:
    token = stage.started(status_url=f"https://other.test:{stage.receiver.port}/status")

    with pytest.raises(Failure, match="was started with another Url or StatusUrl") as caught:
        stage.run(token)

    assert isinstance(caught.value, ConfigurationError)
    assert stage.lookups == []


def test_a_token_of_this_host_is_not(stage: Stage) -> None:
    assert isinstance(stage.run(stage.started()), Continue)
    assert JOB in stage.receiver.requests[0].headers["webhook-id"]
