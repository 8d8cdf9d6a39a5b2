"""A board as a busy day would have it: for the picture in the documentation, and for looks."""

from redis import Redis

from tests.browser.written import ARN, Written, announce, place, write, write_ended

RUNNING = (
    ("7c1e02aa", "AcmeDeploy", "orion", 100, "storefront", 72, "12 of 17 hosts are up to date"),
    ("b04f7d19", "AcmeDeploy", "lyra", 64, "billing-api", 40, "waiting for health checks"),
    ("e93a5c60", "AcmeScan", "orion", 31, "storefront", 15, "scanning 1,204 packages"),
    ("1f88d2c4", "AcmeScan", "vega", 12, "ledger-sync", None, ""),
)
ENDED = (
    ("42ab9e07", "success", "storefront 4.12.0 is live in eu-west-1", 9, "orion", "storefront"),
    (
        "c5d1f3b8",
        "failure",
        "2 of 6 health checks failed: /ready answered 503",
        95,
        "lyra",
        "search",
    ),
    ("90ee6a1d", "success", "no findings above medium", 190, "vega", "ledger-sync"),
    ("3b7746f2", "success", "billing-api 2.8.1 is live in eu-west-1", 320, "lyra", "billing-api"),
)


def uuid(first: str) -> str:
    return f"{first}-5d0e-4c7a-9f31-2b6c8e41d{first[:3]}"


def fill(redis: Redis) -> None:
    announce(redis, "AcmeDeploy", {"acme1@host-a": 16, "acme2@host-b": 16})
    announce(redis, "AcmeScan", {"scan1@host-c": 4, "scan2@host-c": 0})
    announce(redis, "AcmeApprove", {"acme1@host-a": 16})
    redis.sadd("dispatcher:paused", "AcmeApprove")
    for first, provider, client, age, pipeline, percent, note in RUNNING:
        said = {"percent": percent, "note": note} if percent is not None else {}
        write(redis, Written(
            uuid(first), kind=f"ThirdParty.Deploy.{provider}.1", client=client, age=age,
            fields={"owner": "acme1@host-a/x/y", **said}, pipeline=place(pipeline),
            life=(("offered", ""), ("begun", "by acme1@host-a, attempt 1"), ("acknowledged", "")),
        ))  # fmt: skip
    write(redis, Written(
        uuid("d2096bb3"), "queued", "ThirdParty.Deploy.AcmeDeploy.1", "resting", "vega", 140,
        {"attempt": 2, "lease": _soon(redis, 24), "note": "the registry answered 429"},
        place("ledger-sync"),
    ), Written(
        uuid("58e0c7f1"), "queued", "ThirdParty.Deploy.AcmeScan.1", "waiting", "lyra", 18,
        {"ack": "no", "attempt": 0, "lease": 0}, place("search", "Verify", "Scan"),
    ), Written(
        uuid("aa31d0e9"), "finished", "Custom.Deploy.AcmeDeploy.1", "dead", None, 2_900,
        {"dead": 1, "outcome": "dead", "owner": "acme2@host-b/x/y"},
        place("warehouse", arn=f"{ARN}warehouse",
              execution_id="8b0f6c1e-3d52-4f4b-9a07-5f3f1f0f9c11"),
        told={"kind": "success", "message": "warehouse 7 is live", "external_id": "rel-2291",
              "variables": {"Release": "7", "Url": "https://warehouse.example"}},
        life=(("offered", ""), ("begun", "by acme2@host-b, attempt 1"), ("acknowledged", ""),
              ("finished", "success"), ("dead letter", "AWS refused the result")),
    ))  # fmt: skip
    for first, outcome, message, ago, client, pipeline in ENDED:
        write_ended(redis, uuid(first), outcome, message, ago, client=client,
                    pipeline=place(pipeline))  # fmt: skip


def _soon(redis: Redis, seconds: int) -> int:
    now, _ = redis.time()
    return (int(now) + seconds) * 1000
