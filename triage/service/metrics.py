"""Prometheus metrics. Counts come from the database at each scrape, so that they outlive a restart
and hold what other processes did; times are observed as analyses end. No patient data in labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from triage.service.drift.assess import Assessment
from triage.service.records import Database, analyses, deliveries, lists, quarantine, studies
from triage.service.records.models import now

# Seconds; the aim is a flag within 15 s beyond the quiet time.
FLAG_S = (5, 10, 15, 20, 30, 45, 60, 90, 120, 300, 900, 3600)
STAGE_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300)


class Metrics:
    """One registry a service, so that tests can run several in one process."""

    def __init__(self, records: Database, drift: Callable[[], Assessment] = Assessment) -> None:
        """`drift`: what was seen last of what comes in."""
        self.registry = CollectorRegistry()
        self.registry.register(FromRecords(records))
        self.registry.register(FromDrift(drift))
        self.flag = Histogram(
            "triage_flag_seconds",
            "From the last image of a live study to its verdict.",
            buckets=FLAG_S,
            registry=self.registry,
        )
        self.stage = Histogram(
            "triage_stage_seconds",
            "What an analysis spent in each stage.",
            ["stage"],
            buckets=STAGE_S,
            registry=self.registry,
        )

    def finished(
        self, timings: Mapping[str, float], last_image: datetime | None, verdict: datetime | None
    ) -> None:
        """An analysis ended. `timings`: seconds by stage as in report.json."""
        for name, seconds in timings.items():
            self.stage.labels(name.removesuffix("_s")).observe(seconds)
        if last_image is not None and verdict is not None and verdict >= last_image:
            self.flag.observe((verdict - last_image).total_seconds())

    def text(self) -> tuple[bytes, str]:
        """The metrics and their media type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class FromRecords:
    """What the database knows."""

    def __init__(self, records: Database) -> None:
        self.records = records

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not ask the database."""
        return ()

    def collect(self) -> Iterable[Metric]:
        with self.records.reading() as session:
            by_status = studies.count_by_status(session)
            waiting = lists.waiting(session)
            instances = lists.count_instances(session)
            kept_apart = quarantine.count_by_reason(session)
            counters = studies.counters(session)
            outbox = deliveries.counts(session)
            workers = [(w.executor, w.heartbeat_at) for w in analyses.workers(session)]
        yield _gauges(
            "triage_studies",
            "Studies by status.",
            "status",
            {status.value: number for status, number in by_status.items()},
        )
        yield _gauges("triage_queue_length", "Studies without an end yet.", "kind", waiting)
        stored = GaugeMetricFamily("triage_instances", "Images stored.")
        stored.add_metric([], instances)
        yield stored
        yield _gauges(
            "triage_quarantine_files", "Files in quarantine by reason.", "reason", kept_apart
        )
        yield _gauges("triage_deliveries", "Results for others, by state.", "state", outbox)
        for name, value in sorted(counters.items()):
            yield CounterMetricFamily(f"triage_{name}", "Counted since the first start.", value)
        at = now()
        ages = {executor: (at - beat).total_seconds() for executor, beat in workers}
        yield _gauges(
            "triage_worker_heartbeat_age_seconds", "Since a worker's last beat.", "worker", ages
        )


class FromDrift:
    """How far each figure moved from each reference (`drift.assess`)."""

    def __init__(self, latest: Callable[[], Assessment]) -> None:
        self.latest = latest

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        found = self.latest()
        studies = GaugeMetricFamily("triage_drift_studies", "Newest studies that were compared.")
        studies.add_metric([], found.studies)
        yield studies
        labels = ["figure", "against"]
        psi = GaugeMetricFamily("triage_drift_psi", "Population stability index.", labels=labels)
        moved = GaugeMetricFamily("triage_drift", "1: moved far, not by chance.", labels=labels)
        for one in found.comparisons:
            for figure in one.figures:
                psi.add_metric([figure.figure, one.against], figure.shift.psi)
                moved.add_metric([figure.figure, one.against], float(figure.warn))
        yield from (psi, moved)


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family
