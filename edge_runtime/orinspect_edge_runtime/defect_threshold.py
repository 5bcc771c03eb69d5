"""A threshold from good images and a few defects: of the best F1, or of the least cost; and what so few can say of it.

No defect is ever fitted on. Between two neighbouring scores every threshold does the same on the images at hand; where
it lies in that gap follows from what lies beyond (see `_share_of_gap`). The rates expected of new images are those of
images left out: each is judged by a threshold chosen without it, because the chosen one was picked for doing well on
exactly these. They are estimates with an interval, no promises as the conformal threshold's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.metrics import auroc
from orinspect_edge_runtime.threshold import observed_rate_interval

FEWEST_DEFECTS = 2
# Images are left out one by one; more than this of a class in so many parts.
MOST_PARTS = 200
ROUNDS = 1000
# The miss rate that a user is told the number of defects for.
SHOWN_RATE = 0.05
Doubles = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Stakes:
    """What the two errors are worth.

    cost_missed: of a defective part that passes, in the unit of cost_false_alarm, that of a good part rejected; None to
    maximise the F1 score. defect_rate: share of the line's parts that are defective; None, for F1 only, to take that of
    the images given. Raises InputError for costs that are not above 0, for a rate outside 0..1, and for costs without one.
    """

    cost_missed: float | None = None
    cost_false_alarm: float = 1.0
    defect_rate: float | None = None

    def __post_init__(self) -> None:
        for name, cost in (("missed", self.cost_missed), ("false-alarm", self.cost_false_alarm)):
            if cost is not None and not (math.isfinite(cost) and cost > 0):
                raise InputError(f"--cost-{name} {cost}: a cost above 0")
        if self.defect_rate is not None and not 0 < self.defect_rate < 1:
            raise InputError(f"--defect-rate {self.defect_rate}: a share between 0 and 1, for example 0.01")
        if self.cost_missed is not None and self.defect_rate is None:
            raise InputError("--cost-missed needs --defect-rate: what misses cost depends on how many defects come")
        if self.cost_missed is None and self.cost_false_alarm != 1:
            raise InputError("--cost-false-alarm needs --cost-missed: only the two together say what is cheapest")

    @property
    def rule(self) -> str:
        """`f1` or `cost`: the recipe's threshold_rule."""
        return "f1" if self.cost_missed is None else "cost"

    def prevalence(self, good: int, defects: int) -> float:
        """Share of defective parts to reckon with."""
        return self.defect_rate or defects / (good + defects)

    def loss(self, false_alarms: Any, missed: Any, prevalence: float) -> Any:
        """What is to be least: the cost a part, or 1 - F1. false_alarms, missed: rates, floats or arrays."""
        wrong, passed = (1 - prevalence) * false_alarms, prevalence * missed
        if self.cost_missed is not None:
            return self.cost_false_alarm * wrong + self.cost_missed * passed
        return 1 - 2 * (prevalence - passed) / (2 * prevalence - passed + wrong)


@dataclass(frozen=True)
class DefectThreshold:
    """A threshold chosen on good images and defects.

    interval: where 95 % of the thresholds lie that resampled images choose. false_alarms, missed: rates expected of new
    images like these, with 95 % intervals (Clopper-Pearson on the images left out, so approximate). loss: 1 - F1 or the
    cost a part, expected likewise. auroc: chance that a defect outscores a good image. note: all of it in a line.
    """

    value: float
    interval: Interval
    false_alarms: float
    false_alarms_interval: Interval
    missed: float
    missed_interval: Interval
    loss: float
    auroc: float
    note: str


def defect_threshold(good: NDArray[Any], defects: NDArray[Any], stakes: Stakes, *, seed: int = 0) -> DefectThreshold:
    """The threshold with the least loss on scores of good images [n] that the model had not seen and of defects [m].

    Raises InputError for fewer than two of either, and for scores that are not finite.
    """
    known, bad = _sorted(good), _sorted(defects)
    check_defects(len(bad))
    if len(known) < FEWEST_DEFECTS:
        raise InputError(f"{len(known)} good image: a threshold between good images and defects needs {FEWEST_DEFECTS}")
    prevalence = stakes.prevalence(len(known), len(bad))
    chosen = _choose(known, bad, stakes, prevalence)
    alarms, misses = _left_out_errors(known, bad, stakes, prevalence)
    false_alarms, missed = alarms / len(known), misses / len(bad)
    found = DefectThreshold(
        value=chosen.value,
        interval=_resampled(known, bad, stakes, prevalence, seed),
        false_alarms=false_alarms,
        false_alarms_interval=observed_rate_interval(alarms, len(known)),
        missed=missed,
        missed_interval=observed_rate_interval(misses, len(bad)),
        loss=float(stakes.loss(false_alarms, missed, prevalence)),
        auroc=auroc(np.repeat([False, True], [len(known), len(bad)]), np.concatenate([known, bad])),
        note="",
    )
    return replace(found, note=_note(found, chosen, known, bad, stakes))


def check_defects(count: int) -> None:
    """Raises InputError when a threshold cannot be found by so few defects."""
    if count < FEWEST_DEFECTS:
        raise InputError(
            f"{count} defect: what a threshold misses cannot be seen from that; give {FEWEST_DEFECTS} or more"
        )


def defects_needed(missed: float) -> int:
    """The fewest defects, all of them found, whose 95 % interval of the miss rate ends at `missed`."""
    return math.ceil(math.log(0.025) / math.log1p(-missed))


@dataclass(frozen=True)
class _Choice:
    """A threshold, and the neighbouring scores `low` <= value < `high` that it lies between; infinite at the ends."""

    value: float
    low: float
    high: float


def _choose(good: Doubles, bad: Doubles, stakes: Stakes, prevalence: float) -> _Choice:
    """The threshold of least loss, of ascending scores. Among equals the widest gap wins, then the lowest one."""
    values = np.unique(np.concatenate([good, bad]))
    false_alarms = 1 - np.searchsorted(good, values, "right") / len(good)
    missed = np.searchsorted(bad, values, "right") / len(bad)
    loss = stakes.loss(np.append(1.0, false_alarms), np.append(0.0, missed), prevalence)
    # Of the thresholds below and above all scores nothing is known but that: they win no tie.
    widths = np.concatenate([[0.0], np.diff(values), [0.0]])
    place = int(np.where(loss <= loss.min() * (1 + 1e-12), widths, -1.0).argmax())
    if place == 0:
        return _Choice(float(np.nextafter(values[0], -np.inf)), -np.inf, float(values[0]))
    if place == len(values):
        return _Choice(float(values[-1]), float(values[-1]), np.inf)
    low, high = float(values[place - 1]), float(values[place])
    share = _share_of_gap(len(good), len(bad), stakes, prevalence)
    return _Choice(min(low + share * (high - low), float(np.nextafter(high, -np.inf))), low, high)


def _share_of_gap(good: int, bad: int, stakes: Stakes, prevalence: float) -> float:
    """Where in a gap between good images and defects a threshold lies, 0 to 1 from the good images on.

    A new good image is above the highest of n with chance 1 / (n + 1), a new defect below the lowest of m with
    1 / (m + 1). Were those spread over the gap, ever thinner towards its other end (a triangle), a threshold at s of it
    would cost A (1 - s)^2 + B s^2 in false alarms and misses, which is least at A / (A + B). The middle at equal stakes.
    """
    wrong = (1 - prevalence) * stakes.cost_false_alarm / (good + 1)
    passed = prevalence * (stakes.cost_missed or stakes.cost_false_alarm) / (bad + 1)
    return wrong / (wrong + passed)


def _left_out_errors(good: Doubles, bad: Doubles, stakes: Stakes, prevalence: float) -> tuple[int, int]:
    """False alarms and misses among images that are judged by a threshold chosen without them."""
    alarms = sum(
        int((good[part] > _choose(np.delete(good, part), bad, stakes, prevalence).value).sum())
        for part in _parts(len(good))
    )
    misses = sum(
        int((bad[part] <= _choose(good, np.delete(bad, part), stakes, prevalence).value).sum())
        for part in _parts(len(bad))
    )
    return alarms, misses


def _parts(count: int) -> list[NDArray[np.intp]]:
    return [np.arange(begin, count, MOST_PARTS) for begin in range(min(count, MOST_PARTS))]


def _resampled(good: Doubles, bad: Doubles, stakes: Stakes, prevalence: float, seed: int) -> Interval:
    """Percentile bootstrap interval of the chosen threshold; good images and defects are drawn anew separately."""
    rng = np.random.default_rng(seed)

    def drawn(scores: Doubles) -> Doubles:
        return scores[np.sort(rng.integers(len(scores), size=len(scores)))]

    values = [_choose(drawn(good), drawn(bad), stakes, prevalence).value for _ in range(ROUNDS)]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _note(found: DefectThreshold, chosen: _Choice, good: Doubles, bad: Doubles, stakes: Stakes) -> str:
    return "; ".join(
        [
            f"{_aim(stakes)} on {len(good)} good images and {len(bad)} defects",
            f"expected of images like these: {found.missed:.1%} of the defects missed {_span(found.missed_interval)}, "
            f"{found.false_alarms:.2%} false alarms {_span(found.false_alarms_interval)}{_price(found, stakes)}; "
            "estimates, no promise",
            f"on resampled images the threshold lies between {found.interval[0]:.3f} and {found.interval[1]:.3f}",
            *_what_they_show(found, chosen, good, bad),
        ]
    )


def _aim(stakes: Stakes) -> str:
    rate = "" if stakes.defect_rate is None else f" at {stakes.defect_rate:.3%} defective parts"
    if stakes.cost_missed is None:
        return f"best F1{rate}"
    return f"least cost ({stakes.cost_missed:g} a miss, {stakes.cost_false_alarm:g} a false alarm){rate}"


def _price(found: DefectThreshold, stakes: Stakes) -> str:
    return "" if stakes.cost_missed is None else f", {found.loss:.3g} a part"


def _span(interval: Interval) -> str:
    return f"(95 % interval {interval[0]:.2%} to {interval[1]:.2%})"


def _what_they_show(found: DefectThreshold, chosen: _Choice, good: Doubles, bad: Doubles) -> list[str]:
    """What the choice rests on, and what these images are too few or too mixed for."""
    words = []
    if math.isinf(chosen.low):
        words.append("the least loss is to reject everything: this threshold tells nothing apart")
    elif math.isinf(chosen.high):
        words.append("the least loss is to reject nothing: this threshold tells nothing apart")
    if good[-1] < bad[0]:
        share = (chosen.value - chosen.low) / (chosen.high - chosen.low)
        words.append(
            f"all defects lie above all good images: any threshold from {chosen.low:.3f} to {chosen.high:.3f} does as "
            f"well on them, this one lies at {share:.0%} of the way"
        )
    else:
        words.append(f"good images and defects overlap (AUROC {found.auroc:.3f}){_by_chance(found.auroc, good, bad)}")
    if found.missed_interval[1] > 2 * max(found.missed, SHOWN_RATE):
        words.append(
            f"{len(bad)} defects are few: that less than {SHOWN_RATE:.0%} are missed takes {defects_needed(SHOWN_RATE)}, "
            "all found"
        )
    return words


def _by_chance(found: float, good: Doubles, bad: Doubles) -> str:
    """A word when scores that know nothing would part them as well once in forty times (Mann-Whitney's deviation)."""
    deviation = math.sqrt((len(good) + len(bad) + 1) / (12 * len(good) * len(bad)))
    return (
        ""
        if found > 0.5 + 1.96 * deviation
        else ", no more apart than by chance: this recipe does not see such defects"
    )


def _sorted(scores: NDArray[Any]) -> Doubles:
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise InputError("scores must be a list of finite numbers; the model or its precision is broken")
    return np.sort(values)
