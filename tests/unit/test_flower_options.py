"""What Flower is told, and what is said where it cannot be meant so."""

import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from flower.options import default_options
from hypothesis import given
from hypothesis import strategies as st
from tornado.options import OptionParser

from dispatcher.monitor.given import LINKED, Given

CANARY = "canary-51be"
LEFT_OPEN = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # by Tornado, on faults
OF_CELERY = ("-A", "--app", "-b", "--broker", "-q", "--quiet")


def misread(*arguments: str, **environment: str) -> str:
    return Given(default_options, arguments, environment).misread(OF_CELERY)


def unfit(*arguments: str, conf: str = "", **environment: str) -> str:
    """Read as Flower does: variables, a conf file, a command line."""
    options = OptionParser()
    options.define("port", 5555)
    options.define("address", "")
    options.define("unix_socket", "")
    options.define("basic_auth", type=str, multiple=True)
    options.define("conf", "flowerconfig.py")
    for name, value in environment.items():
        option = options._options[name.removeprefix("FLOWER_").lower().replace("_", "-")]
        option.parse(value)
    if conf:
        options.parse_config_file(conf, final=False)
        options.conf = conf
    options.parse_command_line(["flower", *arguments], final=False)
    return Given(options, arguments, environment).unfit()


@pytest.mark.parametrize(
    "argument",
    [
        "--read-only", "--read_only", "-read-only", "--read_only=false", "--port=0", "--db=",
        "--basic_auth=op:pw,other:pw", "--logging=debug", "--task-runtime-metric-buckets=1,2.5",
        "--inspect-timeout=1e3", "", "--url-prefix=--a=b",
    ],
)  # fmt: skip
def test_each_spelling_that_flower_knows_is_left_to_it(argument: str) -> None:
    assert misread(argument) == ""
    assert misread("--debug", argument, "--persistent=true") == ""


@pytest.mark.parametrize("arguments", [["--broker=x"], ["-A", "x"], ["-b", "x", "--port=1"]])
def test_celerys_own_are_left_to_flower_which_warns_of_them(arguments: list[str]) -> None:
    assert misread(*arguments) == ""


@pytest.mark.parametrize("name", sorted(set(default_options)))
def test_each_option_of_flowers_is_known_and_a_slip_in_it_is_not(name: str) -> None:
    slip = f"--{name[:-1]}{name[-1]}{name[-1]}=x"

    assert "no such option" not in misread(f"--{name}=1")
    assert f"did you mean --{name.replace('_', '-')}?" in misread(slip)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--adress=0.0.0.0"], "--adress: no such option of Flower's; did you mean --address?"),
        (["--as-dict=1"], "--as-dict: no such option of Flower's; leave it out."),
        (["--port", "1"], "--port: write its value after an equals sign, as in --port=VALUE."),
        (["--port:1"], "--port: write its value after an equals sign, as in --port=VALUE."),
        (["--port=abc"], "--port: must be a whole number."),
        (["--port="], "--port: must be a whole number."),
        (["--inspect_timeout=x"], "--inspect_timeout: must be a number."),
        (["--xheaders=no"], "--xheaders: must be true or false."),
        (["--xheaders=fales"], "--xheaders: must be true or false."),
    ],
)
def test_an_argument_that_flower_would_skip_or_fail_on_is_named(
    arguments: list[str], sentence: str
) -> None:
    assert misread(*arguments) == sentence
    assert misread("--debug", *arguments, "--also-wrong") == sentence


def test_a_word_that_is_no_option_is_told_by_what_stands_before_it() -> None:
    """Flower skips it, or, where it is `port=1`, all that follows it."""
    for word in (CANARY, f"port={CANARY}", f"basic_auth=op:{CANARY}"):
        assert misread(word).startswith("flower: what follows it is no option;")
        assert misread("--read-only", word).startswith("--read-only: what follows it is no option;")
        assert misread("--port=1", word, "--debug").startswith("--port: what follows it")


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"FLOWER_PORT": "tcp:5555"}, "FLOWER_PORT: must be a whole number."),
        ({"FLOWER_PORT": "tcp://10.0.0.1:5555"}, f"FLOWER_PORT: must be a whole number{LINKED}."),
        ({"FLOWER_READ_ONLY": "fales"}, "FLOWER_READ_ONLY: must be true or false."),
        ({"FLOWER_READ_ONLY": "no", "FLOWER_SERVICE_HOST": "x", "PORT": "x"}, ""),
    ],
)
def test_a_variable_of_a_wrong_kind_is_named(environment: Mapping[str, str], sentence: str) -> None:
    assert misread(**environment) == sentence


@pytest.mark.parametrize("entry", ["", ":", "op", "op:", f":{CANARY}", f"op:{CANARY}é", CANARY])
@pytest.mark.parametrize("among", ["{}", "a:b,{}", "{},a:b"])
def test_who_could_not_log_in_or_needs_no_password_keeps_flower_from_starting(
    entry: str, among: str, tmp_path: Path
) -> None:
    users = among.format(entry)
    conf = tmp_path / "conf.py"
    conf.write_text(f"basic_auth = {users.split(',')!r}")

    said = {
        "--basic_auth": unfit(f"--basic_auth={users}", "--port=0"),
        "FLOWER_BASIC_AUTH": unfit("--port=0", FLOWER_BASIC_AUTH=users),
        f"basic_auth in {conf}": unfit("--port=0", conf=str(conf), FLOWER_BASIC_AUTH="a:b"),
    }

    for name, one in said.items():
        assert one.startswith(f"{name}: must be user:password")
        assert CANARY not in one


def test_users_with_passwords_may_log_in() -> None:
    assert unfit("--basic-auth=a:b,c::,d:e:f", "--port=0") == ""


def by_argument(port: int) -> str:
    return unfit("--address=127.0.0.1", f"-port={port}")


def by_variable(port: int) -> str:
    return unfit(FLOWER_ADDRESS="127.0.0.1", FLOWER_PORT=str(port))


def on_all_addresses(port: int) -> str:
    return unfit(f"--port={port}")


@LEFT_OPEN
@pytest.mark.parametrize(
    ("ask", "name", "place"),
    [
        (by_argument, "-port", "127.0.0.1"),
        (by_variable, "FLOWER_PORT", "127.0.0.1"),
        (on_all_addresses, "--port", "all addresses"),
    ],
)
def test_a_port_that_is_taken_is_named_as_it_was_given(
    ask: Callable[[int], str], name: str, place: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        assert (
            ask(port) == f"{name}: {port} on {place} is taken; choose another, as in --port=5555."
        )

    assert ask(port) == ""


def test_ports_that_are_none_are_not_cut_to_16_bits() -> None:
    for port in (-1, 65536, 70000):
        assert unfit(f"--port={port}").startswith(f"--port: {port} is beyond 0 to 65535;")


@LEFT_OPEN
@pytest.mark.parametrize("address", ["999.1.1.1", "192.0.2.1", "a..b", "::2"])
def test_an_address_of_no_interface_here_is_named(address: str) -> None:
    fix = "is no address of this machine; choose one that is, as in --address=127.0.0.1."

    assert unfit(f"--address={address}", "--port=0") == f"--address: {address} {fix}"
    assert unfit("--port=0", FLOWER_ADDRESS=address) == f"FLOWER_ADDRESS: {address} {fix}"


@LEFT_OPEN
def test_a_unix_socket_needs_no_port_and_a_place(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    assert unfit(f"--unix_socket={tmp_path / 's'}", "--address=999.1.1.1") == ""
    assert unfit(f"--unix_socket={tmp_path / 's'}") == ""  # as Flower, it replaces a socket
    for wrong in (file, tmp_path / "none" / "s", tmp_path / ("s" * 120)):
        assert unfit(f"--unix_socket={wrong}").startswith("--unix_socket: no socket can be made")
    assert file.is_file()


@given(st.lists(st.text(max_size=20), max_size=4))
def test_whatever_is_said_has_one_line_for_an_answer(words: list[str]) -> None:
    found = misread(*words)

    assert len(found.splitlines()) <= 1


@given(st.sampled_from(["--basic-auth", "--basic_auht", "--unknown", "basic_auth", ""]))
def test_no_value_is_ever_in_an_answer(name: str) -> None:
    for joint in ("=", ":", " ", "@"):
        assert CANARY not in misread(f"{name}{joint}op:{CANARY}")
