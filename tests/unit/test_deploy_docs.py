"""The samples for a deployment fit the code, each other, and what AWS and Redis check."""

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import botocore.session
import click
import pytest
import yaml  # type: ignore[import-untyped]
from botocore.configloader import load_config
from botocore.validate import ParamValidator

from dispatcher.checks.report import Report
from dispatcher.cli import main
from dispatcher.metrics import GAUGES, PREFIX
from dispatcher.monitor.defaults import FOLDER, memory
from dispatcher.settings import VARIABLES, read
from tests.command_lines import follow

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "dispatcher/docs"
SAMPLES = DOCS / "samples"
PAGE = (DOCS / "deploy.md").read_text()
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
LAST_STEPS = 6  # seconds that a worker takes after its grace
PROVIDER = "provider.AcmeDeploy"
CALLS = re.compile(r'operation = "(\w+)"|^ +"(\w+Result)",$', re.MULTILINE)
ADAPTER = (ROOT / "dispatcher/aws/codepipeline.py").read_text()
ACTIONS = {f"codepipeline:{call[1] or call[2]}" for call in CALLS.finditer(ADAPTER)}
UNIT = (SAMPLES / "dispatcher-worker@.service").read_text()
OTHER_UNITS = dict(
    re.findall(r"^# ([\w-]+)\.service.*\n((?:\w+=.+\n)+)", PAGE.split("```ini")[1], re.MULTILINE)
)


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((SAMPLES / name).read_text()))


def statements(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((SAMPLES / name).read_text())["Statement"]
    return found


def actions(name: str) -> set[str]:
    named = [one["Action"] for one in statements(name)]
    return {text for one in named for text in ([one] if isinstance(one, str) else one)}


@dataclass(frozen=True)
class Part:
    """What is started: `grace` is what its platform waits, in seconds, None where nobody says."""

    name: str
    commands: Sequence[Sequence[str]]
    environment: Mapping[str, str]
    grace: float | None
    folder: int  # bytes

    @property
    def main(self) -> Sequence[str]:
        return self.commands[0]

    @property
    def slots(self) -> int:
        return int(self.main[self.main.index("-c") + 1])

    @property
    def works(self) -> bool:
        return "worker" in self.main


def pods() -> Iterator[Part]:
    shared = next(one["data"] for one in documents("kubernetes.yaml") if one["kind"] == "ConfigMap")
    for one in documents("kubernetes.yaml"):
        if one["kind"] != "Deployment":
            continue
        spec = one["spec"]["template"]["spec"]
        container = spec["containers"][0]
        probes = [
            container[kind]["exec"]["command"]
            for kind in ("startupProbe", "readinessProbe", "livenessProbe")
            if "exec" in container.get(kind, {})
        ]
        own = {given["name"]: given.get("value", "") for given in container["env"]}
        scratch = next(volume for volume in spec["volumes"] if volume["name"] == "scratch")
        yield Part(
            one["metadata"]["name"],
            [container["command"], *probes],
            {**shared, **own},
            spec.get("terminationGracePeriodSeconds"),
            size(scratch["emptyDir"]["sizeLimit"]),
        )


def size(text: str) -> int:
    """Of Kubernetes' binary units."""
    unit = {"Mi": 1024**2, "Gi": 1024**3}[text[-2:]]
    return int(text[:-2]) * unit


def ecs() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SAMPLES / "ecs-worker.json").read_text())
    return found


def task() -> Part:
    definition = ecs()
    container = definition["containerDefinitions"][0]
    given = {one["name"]: one.get("value", "") for one in container["environment"]}
    return Part(
        definition["family"],
        [container["command"], container["healthCheck"]["command"][1:]],
        given | {one["name"]: "" for one in container["secrets"]},
        container["stopTimeout"],
        definition["ephemeralStorage"]["sizeInGiB"] * 1024**3,
    )


def units() -> Iterator[Part]:
    yield unit("dispatcher-worker@", UNIT)
    for name, lines in OTHER_UNITS.items():
        yield unit(name, UNIT.replace("\n[Install]", f"{lines}\n[Install]"))


def unit(name: str, text: str) -> Part:
    service = service_of(text)
    program, *options = shlex.split(
        service["ExecStart"].replace("%i", "AcmeDeploy").replace("%%", "%")
    )
    return Part(name, [[Path(program).name, *options]], {}, float(service["TimeoutStopSec"]), 0)


def service_of(text: str) -> Mapping[str, str]:
    """Of a key that is given twice the last counts."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser["Service"]


PARTS = [*pods(), task(), *units()]
WORKERS = [part for part in PARTS if part.works]


def id_of(part: Part) -> str:
    return part.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_something(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", text)

    files = {link.partition("#")[0] for link in links if "://" not in link} - {""}
    assert [name for name in sorted(files) if not (page.parent / name).exists()] == []
    headings = {anchor(line) for line in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    assert {link[1:] for link in links if link.startswith("#")} <= headings


def anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_every_sample_is_linked() -> None:
    linked = set(re.findall(r"\(samples/([^)]+)\)", PAGE))

    assert {path.name for path in SAMPLES.iterdir()} <= linked


def test_the_page_is_not_too_long_to_be_read() -> None:
    assert len(PAGE.splitlines()) < 300


def test_every_yaml_and_json_sample_can_be_read() -> None:
    for path in SAMPLES.glob("*.yaml"):
        assert all(documents(path.name)), path.name
    for path in SAMPLES.glob("*.json"):
        assert json.loads(path.read_text()), path.name


@pytest.mark.parametrize("part", PARTS, ids=id_of)
def test_every_command_exists_with_its_options(part: Part) -> None:
    for command in part.commands:
        follow(command)


def test_every_command_of_the_page_exists() -> None:
    told = re.findall(r"`dispatcher ([a-z-]+)( [a-z]+)?", PAGE)

    assert told
    for name, second in told:
        command = main.commands[name]
        assert not isinstance(command, click.Group) or second.strip() in command.commands
    for line in re.findall(r"`(celery [^`]+)`", PAGE):
        follow(shlex.split(line))


@pytest.mark.parametrize(
    "path", [*PAGES, *sorted(SAMPLES.iterdir()), ROOT / "docker-compose.yml"], ids=lambda p: p.name
)
def test_every_setting_that_is_named_exists(path: Path) -> None:
    named = set(re.findall(r"DISPATCHER_[A-Z]+(?:_[A-Z]+)*", path.read_text()))

    assert named <= set(VARIABLES.values())


@pytest.mark.parametrize("part", WORKERS, ids=id_of)
def test_the_platform_waits_longer_than_a_worker_takes_to_stop(part: Part) -> None:
    ours = {name: value for name, value in part.environment.items() if "SHUTDOWN" in name}

    assert part.grace is not None
    assert part.grace > read(ours).shutdown_grace + LAST_STEPS


def test_fargate_waits_so_long_and_no_longer() -> None:
    most = ecs()["containerDefinitions"][0]["stopTimeout"]

    assert most <= 120
    assert f"the grace is at most {120 - LAST_STEPS - 1}" in PAGE


@pytest.mark.parametrize(
    "part", [part for part in WORKERS if PROVIDER in part.main and part.folder], ids=id_of
)
def test_what_every_slot_may_unpack_fits_into_the_folder(part: Part) -> None:
    settings = read({name: part.environment[name] for name in part.environment if "MAX_" in name})

    each = settings.artifact_max_bytes + settings.extract_max_bytes
    assert part.slots * each <= part.folder


def test_no_container_is_root_or_may_become_it() -> None:
    for one in documents("kubernetes.yaml"):
        if one["kind"] == "Deployment":
            spec = one["spec"]["template"]["spec"]
            assert spec["securityContext"]["runAsNonRoot"]
            assert spec["containers"][0]["securityContext"] == {
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
    container = ecs()["containerDefinitions"][0]
    assert container["readonlyRootFilesystem"]
    assert container["user"] == "10001:10001"
    assert container["linuxParameters"]["capabilities"] == {"drop": ["ALL"]}


def test_no_service_of_the_cluster_sets_variables_of_ours() -> None:
    """One that is named flower would set FLOWER_PORT, to no number."""
    pods = [one["spec"]["template"]["spec"] for one in documents("kubernetes.yaml")
            if one["kind"] == "Deployment"]  # fmt: skip

    assert len(pods) == 4
    assert [pod["enableServiceLinks"] for pod in pods] == [False] * 4


def test_no_liveness_probe_asks_the_broker() -> None:
    for one in documents("kubernetes.yaml"):
        if one["kind"] == "Deployment":
            container = one["spec"]["template"]["spec"]["containers"][0]
            assert "exec" not in container.get("livenessProbe", {})
            assert "livenessProbe" in container or "readinessProbe" in container


def test_whoever_is_named_in_the_cluster_is_there() -> None:
    found = documents("kubernetes.yaml")
    named = {(one["kind"], one["metadata"]["name"]) for one in found}

    for one in found:
        if one["kind"] != "Deployment":
            continue
        template = one["spec"]["template"]
        spec = template["spec"]
        container = spec["containers"][0]
        assert one["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
        assert ("ConfigMap", container["envFrom"][0]["configMapRef"]["name"]) in named
        if account := spec.get("serviceAccountName"):
            assert ("ServiceAccount", account) in named
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}
        claims = [volume.get("persistentVolumeClaim") for volume in spec["volumes"]]
        claimed = {("PersistentVolumeClaim", claim["claimName"]) for claim in claims if claim}
        assert claimed <= named
    assert ("Deployment", documents("keda.yaml")[0]["spec"]["scaleTargetRef"]["name"]) in named


def test_flower_asks_for_a_password_and_is_fenced_in() -> None:
    found = {(one["kind"], one["metadata"]["name"]): one for one in documents("kubernetes.yaml")}
    spec = found["Deployment", "flower"]["spec"]["template"]["spec"]
    container = spec["containers"][0]
    auth = next(one for one in container["env"] if one["name"] == "FLOWER_BASIC_AUTH")

    assert auth["valueFrom"]["secretKeyRef"]
    assert "--read-only=true" in container["command"]
    fenced = found["NetworkPolicy", "flower"]["spec"]
    labels = found["Deployment", "flower"]["spec"]["template"]["metadata"]["labels"]
    assert fenced["podSelector"]["matchLabels"] == labels
    assert all(rule["from"] for rule in fenced["ingress"])


def test_workers_are_scaled_before_they_are_full_and_never_to_none() -> None:
    scaled = documents("keda.yaml")[0]["spec"]
    trigger = scaled["triggers"][0]["metadata"]
    target = next(part for part in PARTS if part.name == scaled["scaleTargetRef"]["name"])

    assert scaled["minReplicaCount"] >= 1
    # A tenth is what the autoscaler overlooks.
    assert target.slots / float(trigger["threshold"]) > 1.1
    assert trigger["ignoreNullValues"] == "false"
    known = {PREFIX + metric.name for metric in GAUGES}
    used = set(re.findall(rf"{PREFIX}\w+", trigger["query"]))
    assert used == {"codepipeline_queue_messages", "codepipeline_jobs_running"} <= known
    assert set(re.findall(r'provider="(\w+)"', trigger["query"])) == {"AcmeDeploy"}


def test_every_gauge_of_the_page_exists() -> None:
    known = {PREFIX + metric.name for metric in GAUGES}

    assert set(re.findall(rf"`({PREFIX}\w+)`", PAGE)) <= known


def test_aws_would_take_the_task_definition() -> None:
    service = botocore.session.get_session().get_service_model("ecs")
    shape = service.operation_model("RegisterTaskDefinition").input_shape
    check = ecs()["containerDefinitions"][0]["healthCheck"]

    assert shape is not None
    assert ParamValidator().validate(ecs(), shape).generate_report() == ""
    assert 5 <= check["interval"] <= 300
    assert 2 <= check["timeout"] <= 60
    assert 1 <= check["retries"] <= 10
    assert 21 <= ecs()["ephemeralStorage"]["sizeInGiB"] <= 200


def test_the_policies_name_calls_that_exist_one_by_one() -> None:
    service = botocore.session.get_session().get_service_model("codepipeline")
    known = {f"codepipeline:{name}" for name in service.operation_names}

    for name in ("policy-poller.json", "policy-worker.json"):
        assert actions(name) <= known
        assert all(one["Effect"] == "Allow" and one["Resource"] for one in statements(name))


def test_every_call_of_ours_is_in_a_policy_and_no_other() -> None:
    assert len(ACTIONS) == 10
    assert actions("policy-poller.json") | actions("policy-worker.json") == ACTIONS


def test_only_who_polls_may_poll_and_only_who_works_sees_details() -> None:
    polls = {name for name in ACTIONS if ":PollFor" in name}
    puts = {name for name in ACTIONS if ":Put" in name}

    assert actions("policy-poller.json") == polls | puts
    assert actions("policy-worker.json") == ACTIONS - polls


def test_the_profiles_are_ones_that_boto3_can_read() -> None:
    profiles = load_config(str(SAMPLES / "aws-config"))["profiles"]

    assert profiles.keys() == {"pod", "shop", "blog"}
    roles = [profile["role_arn"] for profile in profiles.values()]
    assert len(set(roles)) == len(roles)
    assert all(
        profile.keys() & {"credential_source", "web_identity_token_file"}
        for profile in profiles.values()
    )


def test_no_registry_is_named() -> None:
    files = [*SAMPLES.iterdir(), ROOT / "docker-compose.yml"]
    text = "".join(path.read_text() for path in files)
    images = re.findall(r'image"?: "?([^\s",]+)', text)

    assert images
    assert [image for image in images if "." in image.partition("/")[0].partition(":")[0]] == []


def test_a_task_can_be_protected_as_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    example = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    namespace: dict[str, Any] = {}
    exec(compile(example, "deploy.md", "exec"), namespace)  # noqa: S102 - the page's own code
    asked: list[tuple[str, Any]] = []

    class Agent(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            length = int(self.headers["Content-Length"])
            asked.append((self.path, json.loads(self.rfile.read(length))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Agent) as server:
        monkeypatch.setenv("ECS_AGENT_URI", f"http://127.0.0.1:{server.server_port}/api/id")
        thread = Thread(target=server.handle_request)
        thread.start()
        namespace["protect"](60)
        thread.join()

    body = {"ProtectionEnabled": True, "ExpiresInMinutes": 60}
    assert asked == [("/api/id/task-protection/v1/state", body)]


def steps() -> list[tuple[str, str]]:
    """The Dockerfile's, one a line."""
    lines = (SAMPLES / "Dockerfile").read_text().splitlines()
    return [(line.split()[0], line.partition(" ")[2]) for line in lines if line[:1] != "#"]


def test_the_image_has_what_the_other_samples_ask_of_it() -> None:
    found = dict(steps())
    modules = {
        part.environment["DISPATCHER_PROVIDERS"]
        for part in PARTS
        if "DISPATCHER_PROVIDERS" in part.environment
    }

    source, folder = found["COPY"].split()
    assert {Path(source).stem} == modules
    assert folder.rstrip("/") == found["WORKDIR"]
    assert "TMPDIR=/scratch" in found["ENV"].split()
    assert found["VOLUME"] == "/scratch"
    tags = re.findall(r"docker build -t (\S+)", (SAMPLES / "Dockerfile").read_text())
    assert tags == [ecs()["containerDefinitions"][0]["image"]]


def test_the_image_has_no_root_and_hands_its_worker_the_signal() -> None:
    found = dict(steps())

    known = "FROM RUN COPY ENV RUN VOLUME WORKDIR USER CMD"
    assert [name for name, _ in steps()] == known.split()
    assert found["USER"] == ecs()["containerDefinitions"][0]["user"]
    assert f"chown {found['USER']} /scratch" in found["RUN"]
    command = json.loads(found["CMD"])
    assert PROVIDER in command
    follow(command)


def test_the_execution_role_may_read_each_secret_and_write_the_log() -> None:
    may = {one["Sid"]: one["Resource"] for one in statements("policy-execution.json")}
    container = ecs()["containerDefinitions"][0]
    secrets = [one["valueFrom"] for one in container["secrets"]]
    log = container["logConfiguration"]["options"]

    used = {one for one in may["ReadSecrets"] for named in secrets if fnmatchcase(named, one)}
    assert len(used) == len(secrets)
    further = [one.split(":secret:")[1] for one in may["ReadSecrets"] if one not in used]
    assert [f"the secret `{one.removesuffix('-??????')}`" in PAGE for one in further] == [True]
    assert f":{log['awslogs-region']}:" in may["WriteLogs"]
    assert may["WriteLogs"].endswith(f":log-group:{log['awslogs-group']}:*")
    assert may["PullImage"].endswith(f":repository/{container['image'].partition(':')[0]}")


def test_the_execution_role_may_call_what_exists() -> None:
    session = botocore.session.get_session()

    for name in actions("policy-execution.json"):
        service, call = name.split(":")
        assert call in session.get_service_model(service).operation_names


def test_each_part_has_a_unit() -> None:
    mains = [part.main for part in units()]

    assert [main[3] for main in mains] == ["worker", "worker", "beat", "flower"]
    queues = [main[main.index("-Q") + 1] for main in mains if "-Q" in main]
    assert queues == [PROVIDER, "dispatcher"]


def test_flower_s_state_is_where_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    lines = service_of(f"[Service]\n{OTHER_UNITS['dispatcher-flower']}")
    root = lines["Environment"].removeprefix("XDG_STATE_HOME=")

    kept = [memory(given, "redis://127.0.0.1:6379/0", 5555).parent for given in ("", root)]

    assert f"`~/{kept[0].relative_to('/home/somebody')}`" in PAGE
    assert f"`$XDG_STATE_HOME/{FOLDER}`" in PAGE
    assert kept[1] == Path("/var/lib", lines["StateDirectory"])


def test_only_wrong_settings_are_not_worth_another_start() -> None:
    rows = re.findall(
        r"^\| (\d+) \| (.+) \| (.+) \|$", PAGE.split("| exit status ")[1], re.MULTILINE
    )
    says = {int(status): (why, again) for status, why, again in rows}

    assert set(says) == {0, 1, 2, os.EX_TEMPFAIL}
    assert "what is there is wrong" in says[Report(faults=("No Redis.",)).exit_code][0]
    assert "wrong settings" in says[Report(faults=("LEASE.",), wrong_settings=True).exit_code][0]
    never = [str(status) for status, (_, again) in says.items() if again.startswith("no")]
    assert service_of(UNIT)["RestartPreventExitStatus"].split() == never
    assert service_of(UNIT)["Restart"] == "always"


@pytest.mark.parametrize("name", ["command", "webhook"])
def test_a_provider_that_is_copied_as_its_page_says_is_found(name: str, tmp_path: Path) -> None:
    page = (DOCS / f"{name}.md").read_text()
    copy = re.findall(r"^mkdir .+$", page, re.MULTILINE)[0].replace(
        "CHECKOUT", shlex.quote(str(ROOT))
    )
    chosen = re.findall(r"DISPATCHER_PROVIDERS=(\S+)", page)[0]
    look = "import sys; from dispatcher.registry import load; "
    look += "print([sys.modules[one.module].__file__ for one in load(sys.argv[1:])])"

    subprocess.run(["sh", "-ec", copy], cwd=tmp_path, check=True)
    # With -c the working directory comes first, before a checkout that is installed to be edited.
    ran = subprocess.run(
        [sys.executable, "-c", look, chosen],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )

    assert ran.stdout.strip() == str([str(tmp_path / "workers" / name / "__init__.py")])
