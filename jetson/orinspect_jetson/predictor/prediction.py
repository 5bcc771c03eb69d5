"""The prediction: latency, throughput, energy and memory of one network at one operating point, with 90 % intervals."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from math import exp, hypot, log

import numpy as np

from orinspect_edge_runtime.errors import InputError
from orinspect_jetson.predictor.calibration import KNOWN, NEW
from orinspect_jetson.predictor.energy import POWER_FACTOR, busy_w
from orinspect_jetson.predictor.footprint import memory_mb
from orinspect_jetson.predictor.layers import LayerTable, published_tables
from orinspect_jetson.predictor.operating_point import OperatingPoint
from orinspect_jetson.predictor.roofline import NAMES, PRECISIONS, Breakdown, Floats, breakdown, work_of

# Part of a module's memory that a headless L4T leaves to applications.
USABLE = 0.75


@dataclass(frozen=True)
class Estimate:
    """A value with its 90 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def within(cls, value: float, factor: float) -> Estimate:
        """value / factor .. value * factor."""
        return cls(value, value / factor, value * factor)


@dataclass(frozen=True)
class Prediction:
    """latency_ms: of a batch on the device. throughput: images a second. energy_mj: of the board, an image.

    basis: whether the network's family was among the fitted rows. fits_memory: the likely memory is within 75 % of the
    module's.
    """

    model: str
    point: OperatingPoint
    precision: str
    batch: int
    basis: str
    latency_ms: Estimate
    throughput: Estimate
    board_w: Estimate
    energy_mj: Estimate
    memory_mb: Estimate
    fits_memory: bool
    time: Breakdown


@dataclass(frozen=True)
class Coefficients:
    """Fitted coefficients in the order of roofline.NAMES, and the interval's factor by what is known of a network."""

    values: Floats
    factors: dict[str, float]


@functools.cache
def coefficients() -> Coefficients:
    """The packaged fit (benchmarks/predictor.py --write makes it from the published rows)."""
    file = resources.files("orinspect_jetson").joinpath("data/predictor/coefficients.json")
    stored = json.loads(file.read_text(encoding="utf-8"))
    return Coefficients(np.array([stored["values"][name] for name in NAMES]), stored["interval_factors"])


def predict(
    table: LayerTable, point: OperatingPoint, precision: str = "fp16", batch: int = 1, graph: bool = False
) -> Prediction:
    """Predict from a layer table. graph: the engine is replayed as a CUDA graph. Raises InputError for bad options."""
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r} is not known (known: {', '.join(PRECISIONS)})")
    if batch < 1:
        raise InputError(f"batch must be at least 1, not {batch}")
    fitted = coefficients()
    basis = KNOWN if table.family in {t.family for t in published_tables().values()} else NEW
    factor = fitted.factors[basis]
    time = breakdown(work_of(table, precision, batch), point, fitted.values, "graph" if graph else "engine")
    watts = busy_w(point, time)
    both = exp(hypot(log(factor), log(POWER_FACTOR)))
    memory = Estimate(*memory_mb(table, precision, batch))
    return Prediction(
        model=table.name,
        point=point,
        precision=precision,
        batch=batch,
        basis=basis,
        latency_ms=Estimate.within(time.total_ms, factor),
        throughput=Estimate.within(1e3 * batch / time.total_ms, factor),
        board_w=Estimate.within(watts, POWER_FACTOR),
        energy_mj=Estimate.within(watts * time.total_ms / batch, both),
        memory_mb=memory,
        fits_memory=memory.value <= USABLE * point.memory_gb * 1024,
        time=time,
    )
