"""What a probe of candidates says, in words: a pretext where it surely beats every encoder as it is, else one of these.

Sure is a gain that the run's own rule would accept (alignment.has_helped) and whose 95 % interval, of a bootstrap over
the held-out images that is the same for all candidates, lies above 0. The interval knows nothing of what another seed
of the training would do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_train.alignment import LEAST_GAIN, Scores, has_helped

RESAMPLES, RESAMPLE_STREAM = 2000, 10
CONFIDENCE = (0.025, 0.975)
# From here on the drawn defects are too easy to tell candidates apart.
SATURATED = 0.99


@dataclass(frozen=True)
class Candidate:
    """One row of the probe.

    choice: options of `orinspect pretrain` that make this encoder; None for raw pixels, which are no encoder. method: of
    a pretext, empty for what is not trained. steps: of training. flattered: trained on drawn defects, which the signal
    overrates. failed: why there are no scores.
    """

    name: str
    choice: dict[str, Any] | None
    scores: Scores | None
    method: str = ""
    steps: int = 0
    flattered: bool = False
    failed: str = ""


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    least: float
    most: float


@dataclass(frozen=True)
class Recommendation:
    """chosen: the candidate to take. words: sentences, the first says what to do. means: AUROC by name of candidate,
    mean of the kinds. gains: over the encoder that training begins from."""

    chosen: Candidate
    words: list[str]
    means: dict[str, Interval] = field(default_factory=dict)
    gains: dict[str, Interval] = field(default_factory=dict)


def recommend(candidates: list[Candidate], seed: int) -> Recommendation:
    """What follows from the candidates, given from the simplest to the most laborious; the start of training is the
    first that has a choice."""
    measured = [one for one in candidates if one.scores is not None]
    draws = _Draws(measured, seed)
    starts = [one for one in measured if one.choice is not None and not one.method]
    pretexts = sorted((one for one in measured if one.method), key=lambda one: one.flattered)
    gaining = [one for one in pretexts if all(draws.surely_better(one, start) for start in starts)]
    best = max(gaining or starts, key=draws.mean)
    chosen = next(one for one in gaining or starts if not draws.surely_better(best, one))
    words = [
        _of_training(draws, starts, pretexts, chosen),
        *_of_pixels(draws, measured, chosen),
        *_of_doubt(draws, measured, chosen),
    ]
    means = {one.name: draws.interval(one) for one in measured}
    gains = {one.name: draws.gain(one, starts[0]) for one in measured if one is not starts[0]}
    return Recommendation(chosen, words, means, gains)


class _Draws:
    """Bootstrap draws of the held-out images, the same for every candidate, so that differences are paired."""

    def __init__(self, candidates: list[Candidate], seed: int) -> None:
        scores = {one.name: one.scores for one in candidates if one.scores is not None}
        count = len(next(iter(scores.values())).clean)
        rng = np.random.default_rng([seed, RESAMPLE_STREAM])
        counts = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES)
        self.drawn = {name: found.resampled(counts) for name, found in scores.items()}
        self.alignments = {name: found.alignment for name, found in scores.items()}

    def mean(self, one: Candidate) -> float:
        return self.alignments[one.name].mean

    def interval(self, one: Candidate) -> Interval:
        return _interval(self.mean(one), self.drawn[one.name])

    def gain(self, one: Candidate, other: Candidate) -> Interval:
        return _interval(self.mean(one) - self.mean(other), self.drawn[one.name] - self.drawn[other.name])

    def surely_better(self, one: Candidate, other: Candidate) -> bool:
        helped = has_helped(self.alignments[other.name], self.alignments[one.name])
        return helped and self.gain(one, other).least > 0


def _interval(value: float, drawn: NDArray[np.float64]) -> Interval:
    least, most = np.quantile(drawn, CONFIDENCE)
    return Interval(float(value), float(least), float(most))


def _of_training(draws: _Draws, starts: list[Candidate], pretexts: list[Candidate], chosen: Candidate) -> str:
    """What to do, and how the pretexts did."""
    if chosen.method:
        start = max(starts, key=draws.mean)
        return f"Train with {chosen.name}: it gains {_shown(draws.gain(chosen, start))} over {start.name}."
    if not pretexts:
        return f"Take {chosen.name} as it is: no pretext was measured."
    best = max(pretexts, key=draws.mean)
    gain = draws.gain(best, chosen)
    if gain.value <= 0:
        return f"Take {chosen.name} as it is: no pretext did better. The best, {best.name}: {_shown(gain)}."
    doubt = "within the noise of the signal" if gain.least <= 0 else "too little for a run to keep it"
    return (
        f"Take {chosen.name} as it is: no pretext did surely better. The best, {best.name}, gained {_shown(gain)}, "
        f"which is {doubt}."
    )


def _of_pixels(draws: _Draws, measured: list[Candidate], chosen: Candidate) -> list[str]:
    """How raw pixels did against the chosen encoder."""
    found = []
    for pixels in (one for one in measured if one.choice is None):
        ahead = f"{_shown(draws.gain(pixels, chosen))} against {chosen.name}"
        if draws.surely_better(pixels, chosen):
            found.append(f"Raw pixels win: {ahead}. On these images no encoder found what plain pixels show.")
        elif not draws.surely_better(chosen, pixels):
            found.append(f"Raw pixels do as well within the noise: {ahead}. Do not expect much of an encoder here.")
    return found


def _of_doubt(draws: _Draws, measured: list[Candidate], chosen: Candidate) -> list[str]:
    """Why to be careful with all of this."""
    found = []
    if chosen.flattered:
        found.append(
            f"{chosen.name} trains on drawn defects, of other kinds than those measured here, but drawn ones: the signal "
            "flatters it. Let  orinspect evaluate  decide on real defects."
        )
    if min(draws.mean(one) for one in measured) > SATURATED:
        found.append("Every candidate finds nearly all drawn defects: this signal cannot tell them apart.")
    if draws.interval(chosen).most - draws.interval(chosen).least > 10 * LEAST_GAIN:
        found.append("The intervals are wide: more images of good parts, or more --minutes, make them narrower.")
    return found


def _shown(gain: Interval) -> str:
    return f"{gain.value:+.3f} ({gain.least:+.3f} to {gain.most:+.3f})"
