"""Thresholds from good images alone, with a stated false-alarm rate; and what n images can promise at all.

Split conformal prediction (Vovk et al. 2005; Angelopoulos & Bates 2021, arXiv 2107.07511): when a new good image is
exchangeable with n calibration images that the model has not seen, its score is above their k-th smallest one with
probability at most (n + 1 - k) / (n + 1), whatever the distribution. Over cameras and lines that drift it is void.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.beta import beta_quantile
from orinspect_edge_runtime.errors import InputError

Doubles = NDArray[np.float64]
FEWEST_TAIL_SCORES = 10


@dataclass(frozen=True)
class Threshold:
    """A threshold and what it promises: an image is anomalous when its score is above `value`.

    false_alarm_asked: the rate wished for. false_alarm_promised: the rate guaranteed, on average over calibration sets
    (0.02 of 50 images: 1/51). kept: promised <= asked. rank: `value` is the rank-th smallest of `images` scores.
    interval: central 95 % of the rate that this one threshold will show, exact for continuous scores.
    extrapolated: the value lies in a fitted tail instead of among the scores, and promises nothing.
    note: all of that in one line.
    """

    value: float
    false_alarm_asked: float
    false_alarm_promised: float
    kept: bool
    rank: int
    images: int
    interval: tuple[float, float]
    extrapolated: bool
    note: str


def conformal_threshold(scores: NDArray[Any], false_alarm: float) -> Threshold:
    """The smallest of `scores` [n] that keeps the false-alarm rate, or the largest with `kept` False when none does.

    scores: of good images that the model was not fitted on. Raises InputError when there are none, for values that are
    not finite and for a rate outside 0..1.
    """
    ordered = _sorted(scores)
    _check_rate(false_alarm)
    count = len(ordered)
    # Not ceil((n + 1)(1 - rate)) at once: 1 - rate is rounded, and 0.05 of 19 images must give 19.
    rank = count + 1 - min(count, math.floor((count + 1) * false_alarm * (1 + 1e-12)))
    kept = rank <= count
    rank = min(rank, count)
    promised = (count + 1 - rank) / (count + 1)
    interval = rate_interval(rank, count)
    return Threshold(
        value=float(ordered[rank - 1]),
        false_alarm_asked=false_alarm,
        false_alarm_promised=promised,
        kept=kept,
        rank=rank,
        images=count,
        interval=interval,
        extrapolated=False,
        note=_note(false_alarm, promised, kept, count, interval),
    )


def rate_interval(rank: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Central interval of the rate of scores above the rank-th smallest of `count`: that rate is Beta(n+1-k, k).

    Exact for continuous scores; with ties the rate is only lower.
    """
    if not (1 <= rank <= count and 0 < confidence < 1):
        raise InputError(f"rank {rank} of {count} scores at confidence {confidence} is not defined")
    tail = (1 - confidence) / 2
    return beta_quantile(tail, count + 1 - rank, rank), beta_quantile(1 - tail, count + 1 - rank, rank)


def observed_rate_interval(alarms: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of a rate of which `alarms` among `count` images were seen (Biometrika 1934)."""
    if not (0 <= alarms <= count and count > 0 and 0 < confidence < 1):
        raise InputError(f"{alarms} alarms among {count} images at confidence {confidence} is not defined")
    tail = (1 - confidence) / 2
    low = beta_quantile(tail, alarms, count - alarms + 1) if alarms else 0.0
    high = beta_quantile(1 - tail, alarms + 1, count - alarms) if alarms < count else 1.0
    return low, high


def images_needed(false_alarm: float) -> int:
    """The fewest good images that can promise a false-alarm rate."""
    _check_rate(false_alarm)
    return math.ceil((1 - 1e-12) / false_alarm) - 1


def check_false_alarm(rate: float) -> None:
    """Raises InputError for a rate that no line would be run at."""
    if not 0 < rate < 0.5:
        raise InputError(f"--false-alarm {rate}: a share between 0 and 0.5, for example 0.01")


def p_values(calibration: NDArray[Any], scores: NDArray[Any], *, ties: str = "conservative") -> Doubles:
    """Conformal p-value of each score, float64 [m]: the share of good images that score as high, itself included.

    ties: `conservative` counts equal scores in full, so P(p <= a) <= a for a good image; `middle` counts half of them,
    which makes the values of good images uniform on average (for drift tests) and promises nothing.
    """
    if ties not in ("conservative", "middle"):
        raise InputError(f"ties {ties!r} is not known: use conservative or middle")
    known, asked = _sorted(calibration), _finite(scores)
    above = len(known) - np.searchsorted(known, asked, "right")
    equal = np.searchsorted(known, asked, "right") - np.searchsorted(known, asked, "left")
    share = 1.0 if ties == "conservative" else 0.5
    result: Doubles = (above + share * (equal + 1)) / (len(known) + 1)
    return result


def tail_threshold(scores: NDArray[Any], false_alarm: float, *, tail: float = 0.2) -> Threshold:
    """A threshold beyond the scores: a generalised Pareto tail fitted to the highest share `tail` of them.

    For rates that n images cannot promise. Probability-weighted moments (Hosking & Wallis 1987, doi
    10.1080/00401706.1987.10488243). An estimate, never a guarantee: `kept` is False and the note says so. Falls back to
    the conformal threshold when that one keeps the rate. Raises InputError for fewer than FEWEST_TAIL_SCORES in the
    tail or a tail without spread.
    """
    plain = conformal_threshold(scores, false_alarm)
    if plain.kept:
        return plain
    ordered = _sorted(scores)
    used = int(len(ordered) * tail)
    if used < FEWEST_TAIL_SCORES:
        raise InputError(
            f"{len(ordered)} good images leave {used} scores in the upper {tail:.0%}: a tail cannot be fitted to fewer "
            f"than {FEWEST_TAIL_SCORES}; add images"
        )
    base = float(ordered[-used - 1])
    shape, scale = pareto_tail(ordered[-used:] - base)
    ratio = false_alarm * len(ordered) / used
    beyond = -scale * math.log(ratio) if abs(shape) < 1e-9 else scale / shape * (ratio**-shape - 1)
    return Threshold(
        value=max(base + beyond, plain.value),
        false_alarm_asked=false_alarm,
        false_alarm_promised=plain.false_alarm_promised,
        kept=False,
        rank=plain.rank,
        images=plain.images,
        interval=(0.0, plain.interval[1]),
        extrapolated=True,
        note=f"extrapolated from the {used} highest scores (Pareto shape {shape:.2f}), an estimate; {plain.note}",
    )


def pareto_tail(excesses: NDArray[Any]) -> tuple[float, float]:
    """Shape xi and scale of the generalised Pareto distribution of excesses [n] >= 0, P(X > x) = (1 + xi x/s)^(-1/xi).

    Raises InputError when the excesses do not vary.
    """
    ordered = _sorted(excesses)
    rank = np.arange(len(ordered))
    mean = float(ordered.mean())
    weighted = float((ordered * (len(ordered) - 1 - rank)).sum() / (len(ordered) * max(len(ordered) - 1, 1)))
    spread = mean - 2 * weighted
    if not (mean > 0 and spread > 1e-12 * mean):
        raise InputError("the highest scores are all alike: a tail cannot be fitted to them")
    return 2 - mean / spread, 2 * mean * weighted / spread


# How a threshold is found, by the name that `fit --threshold` takes.
THRESHOLDS: dict[str, Callable[[NDArray[Any], float], Threshold]] = {
    "conformal": conformal_threshold,
    "tail": tail_threshold,
}


def _note(asked: float, promised: float, kept: bool, count: int, interval: tuple[float, float]) -> str:
    span = f"(95 % interval {interval[0]:.2%} to {interval[1]:.2%})"
    if kept:
        return f"at most {promised:.2%} false alarms on good images like the {count} calibrated on {span}"
    return (
        f"{count} good images cannot promise {asked:.2%} false alarms: the best is {promised:.2%} {span}; "
        f"{asked:.2%} takes {images_needed(asked)}"
    )


def _check_rate(rate: float) -> None:
    if not 0 < rate < 1:
        raise InputError(f"a false-alarm rate of {rate} cannot be asked for: use a share between 0 and 1, e.g. 0.01")


def _finite(scores: NDArray[Any]) -> Doubles:
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise InputError("scores must be a list of finite numbers; the model or its precision is broken")
    return values


def _sorted(scores: NDArray[Any]) -> Doubles:
    values = _finite(scores)
    if len(values) == 0:
        raise InputError("a threshold needs the scores of good images, and there are none")
    return np.sort(values)
