"""Published rows that cannot be right as labelled: faster than the hardware can, or taken in another power mode.

A board can be slower than its mode for many reasons (clocks not pinned, a slow caller) but never faster: only rows that
are too fast are left out of the fit. Rows that another, slower mode would explain are named and stay in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orinspect_jetson.predictor.fitting import fit, log_ratio
from orinspect_jetson.predictor.layers import published_tables
from orinspect_jetson.predictor.operating_point import all_points, operating_point
from orinspect_jetson.predictor.published import Row
from orinspect_jetson.predictor.roofline import BYTES, PRECISIONS, TENSOR_OPS

# A group is suspect when its median is off by more than this under its label, and another mode leaves at most half.
SUSPECT = 0.12
LEAST_ROWS = 3
TOO_FAST, TOO_SLOW, IMPOSSIBLE = "too fast for its mode", "slow for its mode", "beats the peak"


@dataclass(frozen=True)
class Finding:
    """A suspicion about rows measured in one sitting. fits: the mode that explains them, None where none does.

    off_percent: median error of the prediction under the label, and under that mode.
    """

    source: str
    device: str
    mode: str
    family: str
    rows: int
    verdict: str
    fits: str | None
    off_percent: tuple[float, float | None]
    text: str


def floor_ms(row: Row) -> float:
    """The least time the hardware allows a row: all products at the dense peak, or all weights read once."""
    point = operating_point(row.device, row.mode)
    table = published_tables()[row.table]
    index = PRECISIONS.index(row.precision)
    compute = 2 * table.macs * row.batch / (TENSOR_OPS[index] * point.sm * point.gpu_mhz * 1e3)
    return float(max(compute, table.parameters * BYTES[index] / (point.bandwidth_gb_s * 1e6)))


def is_impossible(row: Row) -> bool:
    """Does it beat the dense peak of its device?"""
    return row.latency_ms < floor_ms(row)


def audit(rows: Sequence[Row]) -> list[Finding]:
    """Findings over all rows; each group is judged by a fit to all others."""
    groups: dict[tuple[str, str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    sound = [row for row in rows if not is_impossible(row)]
    found = []
    for key, mine in groups.items():
        impossible = [row for row in mine if is_impossible(row)]
        if impossible:
            found.append(_impossible(key, impossible))
            continue
        others = [row for row in sound if row.group != key]
        finding = _mode(key, mine, others) if len(mine) >= LEAST_ROWS else None
        if finding is not None:
            found.append(finding)
    return found


def _impossible(key: tuple[str, str, str, str], rows: list[Row]) -> Finding:
    worst = max(floor_ms(row) / row.latency_ms for row in rows)
    text = f"{worst:.1f} times the dense peak: not the work that its name says"
    return Finding(*key, len(rows), IMPOSSIBLE, None, (100 * (worst - 1), None), text)


def _mode(key: tuple[str, str, str, str], rows: list[Row], others: list[Row]) -> Finding | None:
    values = fit([row.sample() for row in others])
    _, device, mode, _ = key
    offs = {
        other: float(np.median(log_ratio([row.sample(other) for row in rows], values)))
        for other in dict.fromkeys([mode, *(p.mode for p in all_points() if p.device == device)])
    }
    best = min(offs, key=lambda name: abs(offs[name]))
    if abs(offs[mode]) <= SUSPECT or abs(offs[best]) > abs(offs[mode]) / 2:
        return None
    percent = (100 * float(np.expm1(offs[mode])), 100 * float(np.expm1(offs[best])))
    text = f"predicted {percent[0]:+.0f} % under {mode}, {percent[1]:+.0f} % under {best}"
    return Finding(*key, len(rows), TOO_FAST if offs[mode] > 0 else TOO_SLOW, best, percent, text)


def sound_rows(rows: Sequence[Row], findings: Sequence[Finding]) -> list[Row]:
    """The rows without those that are too fast to be what they are labelled."""
    out = {(f.source, f.device, f.mode, f.family) for f in findings if f.verdict != TOO_SLOW}
    return [row for row in rows if row.group not in out]
