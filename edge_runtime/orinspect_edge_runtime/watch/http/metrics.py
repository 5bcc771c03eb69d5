"""/metrics in Prometheus' text format, from what the loop told last; labels are recipes, outcomes, sinks and alarms only."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from orinspect_edge_runtime.verdict import ACCEPT, REJECT, REVIEW
from orinspect_edge_runtime.watch.event import FAILED

if TYPE_CHECKING:
    from orinspect_edge_runtime.watch.http.window import Window
    from orinspect_edge_runtime.watch.loop import Watch

# The loop counts ten buckets an octave; every fifth is shown: edges a factor of 1.41 apart, from 0.01 ms to 20 min.
EVERY_BUCKET = 5
LEAST_EDGE_MS, MOST_EDGE_MS = 0.1, 60_000
ALARMS = ("lost", "black", "frozen")


class Metrics(Collector):
    """Collects when it is asked."""

    def __init__(self, watch: Watch, window: Window) -> None:
        self._watch, self._window = watch, window
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """The page."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """All metrics of the watch."""
        told = self._watch.told
        yield from self._frames(told)
        yield self._latency()
        yield from self._scores()
        yield from _sinks(told["sinks"])
        alarm = GaugeMetricFamily("orinspect_camera_alarm", "1 while the camera has this trouble.", labels=["trouble"])
        for kind in ALARMS:
            alarm.add_metric([kind], float(told["camera"].startswith(kind)))
        yield alarm
        active = GaugeMetricFamily("orinspect_alarm", "1 for each trouble of the line that lasts.", labels=["alarm"])
        for name in told["alarms"]:
            active.add_metric([name], 1)
        yield active
        info = GaugeMetricFamily("orinspect_build_info", "Version and what runs.", labels=["version", "runs"])
        info.add_metric([version("orinspect"), told["runs"]], 1)
        yield info

    def _frames(self, told: dict[str, Any]) -> Iterator[Metric]:
        outcomes = CounterMetricFamily("orinspect_frames", "Frames judged, by outcome.", labels=["outcome"])
        for outcome in (ACCEPT, REVIEW, REJECT, FAILED):
            outcomes.add_metric([outcome], told["outcomes"].get(outcome, 0))
        yield outcomes
        yield CounterMetricFamily(
            "orinspect_frames_dropped", "Camera frames that a newer one replaced.", value=told["dropped_frames"]
        )
        yield GaugeMetricFamily(
            "orinspect_told_timestamp_seconds", "When the loop gave its last sign of life.", value=told["told_at"]
        )
        yield GaugeMetricFamily("orinspect_start_timestamp_seconds", "When the watch began.", value=told["began_at"])

    def _latency(self) -> Metric:
        latency = self._watch.latency
        edges = [pair for pair in latency.cumulative(EVERY_BUCKET) if LEAST_EDGE_MS <= pair[0] <= MOST_EDGE_MS]
        buckets: list[Any] = [(f"{edge / 1e3:.6g}", float(count)) for edge, count in edges]
        # Never below the last bucket, although the loop goes on counting meanwhile.
        total = max(latency.count, edges[-1][1])
        found = HistogramMetricFamily("orinspect_latency_seconds", "From the slot to the verdict.")
        found.add_metric([], [*buckets, ("+Inf", float(total))], latency.total_ms / 1e3)
        return found

    def _scores(self) -> Iterator[Metric]:
        recipe = self._watch.judge.product.recipe
        info = GaugeMetricFamily(
            "orinspect_recipe_info", "The recipe that judges.", labels=["recipe", "scorer", "precision", "graph"]
        )
        info.add_metric([recipe.name, recipe.scorer, recipe.precision, recipe.graph_sha256[:12]], 1)
        yield info
        yield GaugeMetricFamily("orinspect_threshold", "Scores above it are anomalous.", value=recipe.threshold)
        newest = self._window.newest
        if newest is not None:
            yield GaugeMetricFamily(
                "orinspect_score", "Score of the newest frame that could be judged.", value=newest.look.verdict.score
            )


def _sinks(sinks: dict[str, dict[str, Any]]) -> Iterator[Metric]:
    delivered = CounterMetricFamily("orinspect_sink_delivered", "Verdicts that a sink took.", labels=["sink"])
    dropped = CounterMetricFamily("orinspect_sink_dropped", "Verdicts that found a sink's queue full.", labels=["sink"])
    trouble = GaugeMetricFamily("orinspect_sink_trouble", "1 while a sink fails.", labels=["sink"])
    for name, one in sinks.items():
        delivered.add_metric([name], one["delivered"])
        dropped.add_metric([name], one["dropped"])
        trouble.add_metric([name], float(bool(one["trouble"])))
    yield from (delivered, dropped, trouble)
