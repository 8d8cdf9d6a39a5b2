"""Our metrics on Flower's /metrics: gauges as the pages see them, and what the fleet has counted.

Read when somebody scrapes, in a thread: Flower scrapes in the loop that serves its pages. A Redis
that is away or hangs costs our metrics, and `ledger_up` says so, beside Flower's own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from dispatcher.engine.model import LedgerDown
from dispatcher.metrics import (
    BUCKETS,
    COUNTERS,
    GAUGES,
    LATENCY,
    PREFIX,
    UP,
    Counted,
    counted,
    time_spent,
)
from dispatcher.monitor.readings import ProviderRow, Readings

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily

WITHIN = 1.0  # seconds

VALUES: Mapping[str, Callable[[ProviderRow], float | None]] = {
    "queue_messages": lambda row: row.queue,
    "jobs_waiting": lambda row: row.waiting,
    "oldest_waiting_seconds": lambda row: row.oldest.total_seconds() if row.oldest else 0,
    "jobs_running": lambda row: row.running,
    "jobs_retrying": lambda row: row.retrying,
    "jobs_dead": lambda row: row.dead,
    "workers": lambda row: len(row.workers),
    "slots": lambda row: row.slots,
    "draining": lambda row: len(row.draining),
    "paused": lambda row: row.paused,
}


def install(readings: Readings, registry: CollectorRegistry = REGISTRY) -> None:
    registry.register(Gauges(readings))


class Gauges(Collector):
    def __init__(self, readings: Readings) -> None:
        self._readings = readings
        self._thread = ThreadPoolExecutor(1, "gauges")
        self._asked: Future[tuple[Sequence[ProviderRow], Sequence[Counted]]] | None = None

    def describe(self) -> Iterator[Family]:
        """Without asking Redis when it is registered."""
        return iter(())

    def collect(self) -> Iterator[Family]:
        up = GaugeMetricFamily(PREFIX + UP.name, UP.help)
        try:
            rows, sums = self._ask()
        except (LedgerDown, TimeoutError):
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from _gauges(rows)
        yield from _counters(sums)
        yield _latencies(sums)

    def _ask(self) -> tuple[Sequence[ProviderRow], Sequence[Counted]]:
        """Raises LedgerDown, or TimeoutError: at once, while an earlier question hangs."""
        patience = 0.0
        if self._asked is None or self._asked.done():
            self._asked, patience = self._thread.submit(self._read), WITHIN
        return self._asked.result(patience)

    def _read(self) -> tuple[Sequence[ProviderRow], Sequence[Counted]]:
        return self._readings.providers(), counted(self._readings.counts())


def _gauges(rows: Sequence[ProviderRow]) -> Iterator[Family]:
    for metric in GAUGES:
        family = GaugeMetricFamily(PREFIX + metric.name, metric.help, labels=metric.labels)
        for row in rows:
            value = VALUES[metric.name](row)
            if value is not None:
                family.add_metric([row.name], value)
        yield family


def _counters(sums: Sequence[Counted]) -> Iterator[Family]:
    for metric in COUNTERS:
        family = CounterMetricFamily(PREFIX + metric.name, metric.help, labels=metric.labels)
        for one in sums:
            if one.name == metric.name:
                family.add_metric(one.values, one.sum)
        yield family


def _latencies(sums: Sequence[Counted]) -> Family:
    family = HistogramMetricFamily(PREFIX + LATENCY.name, LATENCY.help, labels=LATENCY.labels)
    calls: dict[str, dict[str, int]] = {}
    for one in sums:
        if one.name == LATENCY.name:
            operation, at_most = one.values
            calls.setdefault(operation, {})[at_most] = one.sum
    for operation, found in calls.items():
        total, buckets = 0, []
        for bound in BUCKETS:
            total += found.get(str(bound), 0)
            buckets.append((_le(bound), total))
        family.add_metric([operation], buckets, time_spent(sums, operation))
    return family


def _le(bound: float) -> str:
    return "+Inf" if bound == BUCKETS[-1] else str(bound)
