"""Whole pipelines on a fleet: source zip, command, output zip, webhook with continuation."""

import io
import json
import ssl
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from redis import Redis

from dispatcher.redis_server import RedisServer
from dispatcher.testing import zipped
from tests.harness import Fleet, fleet

COMMANDS = """
[commands.build]
run = ["/bin/sh", "-ec", '''
mkdir -p dist/bin
cp app.txt dist/
cp run.sh dist/bin/
chmod 755 dist/bin/run.sh
echo built
echo "Size=$(wc -c < app.txt)" >> "$CODEPIPELINE_VARIABLES_FILE"
''']
outputs = ["dist"]

[commands.broken]
run = ["/bin/sh", "-c", "echo it will not do; exit 77"]
failures = { 77 = "ConfigurationError" }
"""
SECRET = "whsec_" + "c2VjcmV0" * 5
BUILD = {"category": "Build", "owner": "Custom", "provider": "Command", "version": "1"}
DEPLOY = {"category": "Invoke", "owner": "Custom", "provider": "Webhook", "version": "1"}
LOOKS = 2


@dataclass
class Receiver:
    """A vendor's service over HTTPS: each operation runs until it was looked at twice."""

    folder: Path
    looks: dict[str, int] = field(default_factory=dict)
    started: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def server(self) -> ThreadingHTTPServer:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                name = self.headers["webhook-id"]
                receiver.started[name] = json.loads(body)
                self.answer({"status": "running", "id": name, "status_url": f"/status/{name}"})

            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                receiver.looks[name] = receiver.looks.get(name, 0) + 1
                done = receiver.looks[name] >= LOOKS
                self.answer({"status": "succeeded" if done else "running", "percent": 50})

            def answer(self, told: Mapping[str, Any]) -> None:
                body = json.dumps(told).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        made.socket = self.tls.wrap_socket(made.socket, server_side=True)
        return made

    @cached_property
    def tls(self) -> ssl.SSLContext:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.folder / "ca.pem"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        return context

    @property
    def host(self) -> str:
        return f"localhost:{self.server.server_port}"


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    made = Receiver(tmp_path)
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def pipelines(
    redis_server: RedisServer, redis: Redis, tmp_path: Path, receiver: Receiver
) -> Iterator[Fleet]:
    (tmp_path / "commands.toml").write_text(COMMANDS)
    settings = {
        "DISPATCHER_PROVIDERS": "workers.command,workers.webhook",
        "COMMAND_FILE": str(tmp_path / "commands.toml"),
        "WEBHOOK_ALLOWED_HOSTS": receiver.host,
        "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
        "WEBHOOK_CA_FILE": str(tmp_path / "ca.pem"),
    }
    with fleet(redis_server.url, tmp_path, **settings) as made:
        made.start_emulator("--ack-window", "5", "--continuation-delay", "0.2")
        made.aws.define("Command", category="Build")
        made.aws.define("Webhook", category="Invoke")
        made.start_beat()
        yield made


def source(number: int) -> bytes:
    return zipped({"app.txt": f"application {number}\n" * 100, "run.sh": "#!/bin/sh\n"})


def build(running: Fleet, number: int) -> str:
    return running.aws.submit(
        "Command",
        {"Command": "build"},
        category="Build",
        inputs={"Source": source(number)},
        outputs=["App", "Log"],
        pipelineName=f"pipeline-{number}",
    )


def deploy(running: Fleet, receiver: Receiver, built: str) -> str:
    """Its input is the build's output, as CodePipeline would have it."""
    app = running.job(built)["outputArtifacts"][0]
    return running.aws.submit(
        "Webhook",
        {"Url": f"https://{receiver.host}/start", "SigningSecret": SECRET},
        category="Invoke",
        inputArtifacts=[app],
    )


def check_app(content: bytes | None, number: int) -> None:
    assert content is not None
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name[-1] != "/"}
        modes = archive.getinfo("bin/run.sh").external_attr >> 16 & 0o777
    assert files == {
        "app.txt": (f"application {number}\n" * 100).encode(),
        "bin/run.sh": b"#!/bin/sh\n",
    }
    assert modes == 0o755


def last(running: Fleet, job_id: str) -> dict[str, Any]:
    """Of all that continue the job: the last one's end."""
    job = running.ended(job_id, 60)
    while job["next"] is not None:
        job = running.ended(job["next"], 60)
    return job


def all_s3_is_well(running: Fleet) -> None:
    """Each request had its own job's keys; the bucket's region is another than the fleet's."""
    calls = running.aws.s3_calls()
    assert {call.error for call in calls} <= {None, "AuthorizationHeaderMalformed"}
    assert None not in {call.job_id for call in calls}


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_source_is_built_and_its_output_followed_through_a_webhook(
    pipelines: Fleet, receiver: Receiver, pool: str
) -> None:
    pipelines.start_worker(pool)

    built = build(pipelines, 7)
    result = last(pipelines, built)["result"]["request"]

    assert result["outputVariables"] == {"Size": str(100 * len("application 7\n"))}
    check_app(pipelines.aws.artifact(built, "App"), 7)
    assert pipelines.aws.artifact(built, "Log") == b"built\n"

    deployed = deploy(pipelines, receiver, built)
    end = last(pipelines, deployed)

    assert end["status"] == "Succeeded"
    assert receiver.looks[deployed] == LOOKS
    told = receiver.started[deployed]
    assert [one["name"] for one in told["inputs"]] == ["App"]
    assert told["pipeline"]["arn"].startswith("arn:aws:codepipeline:")
    all_s3_is_well(pipelines)
    put = pipelines.calls(built, "PutJobSuccessResult")[0]["at"]
    assert put >= max(call.at for call in pipelines.aws.s3_calls() if call.job_id == built)
    assert not any(SECRET in process.output for process in pipelines.processes)


def test_a_failing_commands_log_is_kept_and_its_status_mapped(pipelines: Fleet) -> None:
    pipelines.start_worker("threads")
    job_id = pipelines.aws.submit(
        "Command", {"Command": "broken"}, category="Build", outputs=["Log"]
    )

    failure = last(pipelines, job_id)["result"]["request"]["failureDetails"]

    assert failure["type"] == "ConfigurationError"
    assert "it will not do" in failure["message"]
    assert pipelines.aws.artifact(job_id, "Log") == b"it will not do\n"


def test_200_jobs_on_16_threads_keep_their_keys_and_bytes_apart(
    pipelines: Fleet, receiver: Receiver
) -> None:
    pipelines.start_worker("threads", slots=16)

    builds = {number: build(pipelines, number) for number in range(100)}
    for number, built in builds.items():
        assert pipelines.ended(built, 90)["status"] == "Succeeded"
        check_app(pipelines.aws.artifact(built, "App"), number)
    deploys = [deploy(pipelines, receiver, built) for built in builds.values()]
    ends = [last(pipelines, deployed)["status"] for deployed in deploys]

    assert ends == ["Succeeded"] * 100
    assert {receiver.looks[deployed] for deployed in deploys} == {LOOKS}
    all_s3_is_well(pipelines)
