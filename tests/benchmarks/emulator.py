"""How fast the emulator answers, beside moto's own server: `python -m tests.benchmarks.emulator`.

Both serve one client with one connection, then four clients, from one core each; the client's
processes have another core. What counts is the ratio: absolute figures are of this machine.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import urlsplit

from dispatcher.emulator.process import running

POLL = json.dumps(
    {"actionTypeId": {"category": "Test", "owner": "Custom", "provider": "X", "version": "1"}}
)
# moto has no job calls: the cheapest call of CodePipeline's that it has.
LIST = "{}"
MOTO = """
import time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print("http://127.0.0.1:%d" % server.get_host_and_port()[1], flush=True)
time.sleep(1e6)
"""


def headers(operation: str) -> dict[str, str]:
    scope = "AKIA/20260101/us-east-1/codepipeline/aws4_request"
    return {
        "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature="
        + "0" * 64,
        "X-Amz-Target": f"CodePipeline_20150709.{operation}",
        "Content-Type": "application/x-amz-json-1.1",
    }


def times(url: str, operation: str, body: str, calls: int) -> list[float]:
    """Seconds of each call, on one kept connection."""
    address = urlsplit(url)
    connection = HTTPConnection(str(address.hostname), address.port)
    taken = []
    for _ in range(calls):
        begin = time.perf_counter()
        connection.request("POST", "/", body, headers(operation))
        answer = connection.getresponse()
        answer.read()
        taken.append(time.perf_counter() - begin)
        if answer.status != 200:
            raise SystemExit(f"{url} {operation}: {answer.status}")
    connection.close()
    return taken


def rate(url: str, operation: str, body: str, calls: int, clients: int = 4) -> float:
    """Calls a second with several clients at once."""
    with multiprocessing.get_context("fork").Pool(clients) as pool:
        begin = time.perf_counter()
        pool.starmap(times, [(url, operation, body, calls // clients)] * clients)
        return calls / (time.perf_counter() - begin)


@contextmanager
def moto() -> Iterator[str]:
    command = [sys.executable, "-c", MOTO]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        line = server.stdout.readline() if server.stdout else ""
        try:
            yield line.split()[-1]
        finally:
            server.kill()


def move_to(core: int) -> None:
    """This process, and those that it starts from now on."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {core})


def measure(name: str, url: str, operation: str, body: str, calls: int) -> tuple[float, float]:
    times(url, operation, body, calls // 10)
    median = statistics.median(times(url, operation, body, calls))
    most = rate(url, operation, body, calls)
    sys.stdout.write(f"{name:24} p50 {median * 1000:6.2f} ms   {most:8.0f} calls/s of 4 clients\n")
    return median, most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=4000)
    calls = parser.parse_args().calls
    move_to(1)
    with running() as emulator, moto() as moto_url:
        move_to(0)
        emulator.define("X")
        ours = measure("emulator PollForJobs", emulator.url, "PollForJobs", POLL, calls)
        theirs = measure("moto ListPipelines", moto_url, "ListPipelines", LIST, calls // 4)
    sys.stdout.write(
        f"ratio: an answer in 1/{theirs[0] / ours[0]:.1f} of the time, "
        f"{ours[1] / theirs[1]:.1f} times the calls\n"
    )


if __name__ == "__main__":
    main()
