"""Which module, in which power mode? Every operating point that could keep up, the most frugal first."""

from __future__ import annotations

from dataclasses import dataclass

from orinspect_edge_runtime.errors import InputError
from orinspect_jetson.predictor.energy import average_w
from orinspect_jetson.predictor.layers import LayerTable
from orinspect_jetson.predictor.operating_point import OperatingPoint, all_points
from orinspect_jetson.predictor.prediction import Prediction, predict

SURE, LIKELY, UNLIKELY, NO = "yes", "likely", "unlikely", "no"


@dataclass(frozen=True)
class Advice:
    """One operating point. keeps_up: yes (the whole 90 % interval does), likely, unlikely (only its fast end), no.

    average_w: predicted board watts at the wanted rate, waiting between images. allowed: within the watts and memory.
    """

    prediction: Prediction
    keeps_up: str
    average_w: float
    allowed: bool

    @property
    def point(self) -> OperatingPoint:
        """Its operating point."""
        return self.prediction.point


def advise(table: LayerTable, fps: float, watts: float | None = None, precision: str = "fp16") -> list[Advice]:
    """All operating points, best first: those that keep up for sure and are allowed, then by average power.

    fps: images a second, batch 1. watts: most average board power. Raises InputError for rates that are not positive.
    """
    if not fps > 0 or (watts is not None and not watts > 0):
        raise InputError("--fps and --watts must be above 0")
    seen: dict[tuple[object, ...], Advice] = {}
    for point in all_points():
        advice = _judge(predict(table, point, precision), fps, watts)
        # The plain and the Super configuration have modes that differ in nothing but their table.
        seen.setdefault((point.device, point.mode, point.sm, point.gpu_mhz, point.bandwidth_gb_s), advice)
    grades = (SURE, LIKELY, UNLIKELY, NO)
    return sorted(seen.values(), key=lambda a: (not a.allowed, grades.index(a.keeps_up), a.average_w))


def _judge(prediction: Prediction, fps: float, watts: float | None) -> Advice:
    budget_ms, latency = 1e3 / fps, prediction.latency_ms
    keeps_up = SURE if latency.high <= budget_ms else LIKELY if latency.value <= budget_ms else UNLIKELY
    if latency.low > budget_ms:
        keeps_up = NO
    mean_w = average_w(prediction.point, prediction.time, latency.value / budget_ms)
    allowed = prediction.fits_memory and (watts is None or mean_w <= watts)
    return Advice(prediction, keeps_up, mean_w, allowed)
