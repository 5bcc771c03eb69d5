"""Power of the whole board: rough. Eleven published rows on two boards cannot settle more than one constant."""

from __future__ import annotations

from orinspect_jetson.predictor.operating_point import OperatingPoint
from orinspect_jetson.predictor.roofline import Breakdown

# Watts at rest with clocks up: a constant and a part that grows with the memory interface (and with the module).
IDLE_W = 2.0
IDLE_W_A_GB_S = 0.06
# Watts of one busy multiprocessor at 1 GHz and 1 V; voltage along the clock (volts, volts a GHz).
SM_W = 2.2
VOLTS = (0.5, 0.4)
# A kernel that waits for memory keeps this share of the multiprocessors' power.
WAITING = 0.5
# The 90 % interval of the power: the largest error on the published rows, rounded up.
POWER_FACTOR = 1.5


def idle_w(point: OperatingPoint) -> float:
    """Board watts with nothing to infer, clocks not lowered."""
    return IDLE_W + IDLE_W_A_GB_S * point.bandwidth_gb_s


def busy_w(point: OperatingPoint, time: Breakdown) -> float:
    """Board watts while inferring without pause: dynamic power of CMOS, C V^2 f, over the share of time busy."""
    ghz = point.gpu_mhz / 1e3
    volts = VOLTS[0] + VOLTS[1] * ghz
    waiting_ms = time.memory_ms + time.gap_ms
    share = min((time.compute_ms + WAITING * waiting_ms) / time.total_ms, 1.0)
    return idle_w(point) + SM_W * point.sm * ghz * volts**2 * share


def average_w(point: OperatingPoint, time: Breakdown, duty: float) -> float:
    """Board watts when inferring a share of the time (duty, 0..1), waiting in between."""
    return idle_w(point) + min(duty, 1.0) * (busy_w(point, time) - idle_w(point))
