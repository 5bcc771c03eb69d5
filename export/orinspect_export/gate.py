"""The accuracy gate: as few layers as possible stay in a higher precision, and no graph ships that decides otherwise."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from orinspect_edge_runtime.errors import CheckFailed
from orinspect_export.activations import Frames
from orinspect_export.decisions import Agreement, Budget, Judge
from orinspect_export.gate_journal import Remember, measure_anew
from orinspect_export.sensitivity import score_effects

if TYPE_CHECKING:
    import onnx

# A graph with less than this share of its work in the lower precision gains too little to be worth its name.
LEAST_LOWERED = 0.1
WORST_NAMED = 3
# Kept layers that are tried without at the end, those of most work first: each costs one more graph to judge.
RELEASES = 6
Progress = Callable[[float], None]
Build = Callable[[Collection[str]], "onnx.ModelProto"]


@dataclass(frozen=True)
class Candidate:
    """A precision to be gated.

    layers: names of those that can be lowered. work: of each, see layer_work.py. build: the graph with some of them
    kept. probe: the same in a precision that is quicker to build and rounds alike, to measure the effect of each layer
    with.
    """

    precision: str
    layers: Sequence[str]
    work: Mapping[str, float]
    build: Build
    probe: Build | None = None


@dataclass(frozen=True)
class Gated:
    """A graph that met the budget. kept: the layers not lowered, by their effect on the score when lowered alone.

    naive: the agreement with no layer kept. tried: how many graphs were judged. lowered_work: share of the layers' work
    that is done in the lower precision.
    """

    model: onnx.ModelProto
    agreement: Agreement
    naive: Agreement
    kept: dict[str, float]
    tried: int
    lowered_work: float


def pass_gate(
    candidate: Candidate,
    exact: onnx.ModelProto,
    judge: Judge,
    budget: Budget,
    frames: Frames,
    progress: Progress | None = None,
    remember: Remember = measure_anew,
) -> Gated:
    """The graph of the precision that meets the budget with as little work as possible kept.

    exact: the float32 graph. frames: uint8 [N, H, W, 3], to measure the layers' effects on. Layers are kept in the
    orders of `_Search`, their number is found by halving, and those of most work are then tried without. remember: of a
    gate_journal.GateJournal, to go on where a killed export was. Raises CheckFailed when the budget cannot be met.
    """
    tell = progress or (lambda share: None)
    name = candidate.precision

    def judged(kept: Sequence[str]) -> Agreement:
        named = f"{name} keeping {len(kept)} {_digest(kept)}"
        measured = remember(named, lambda: asdict(judge.agreement(candidate.build(kept))))
        return Agreement(**measured)

    naive = judged(())
    if naive.within(budget):
        tell(1.0)
        return Gated(candidate.build(()), naive, naive, {}, 1, 1.0)
    tell(0.1)
    layers, probe = candidate.layers, candidate.probe or candidate.build
    effects = score_effects(
        exact,
        layers,
        lambda layer: probe([name for name in layers if name != layer]),
        frames,
        lambda share: tell(0.1 + 0.5 * share),
        lambda layer, measure: remember(f"{name} effect of {layer}", measure),
    )
    search = _Search(judged, lambda agreement: agreement.within(budget), effects, candidate.work)
    chosen = search.least(lambda share: tell(0.6 + 0.4 * share))
    if chosen is None:
        raise CheckFailed(_over_budget(name, effects, search.closest))
    kept = {layer: effect for layer, effect in effects.items() if layer in chosen}
    lowered = 1 - search.share(chosen)
    return Gated(candidate.build(list(kept)), search.agreement(chosen), naive, kept, search.tried + 1, lowered)


def _digest(kept: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(kept)).encode()).hexdigest()[:12]


class _Search:
    """Which layers to keep. effects, work: of each layer. tried: how many graphs were judged.

    Layers are kept in two orders, and the one that keeps less work wins: by effect squared / work, because errors of
    layers add up by their squares, and by effect alone, which is better where one or two layers make all of the error.
    """

    def __init__(
        self,
        judged: Callable[[Sequence[str]], Agreement],
        within: Callable[[Agreement], bool],
        effects: Mapping[str, float],
        work: Mapping[str, float],
    ) -> None:
        by_saving = sorted(effects, key=lambda layer: -(effects[layer] ** 2) / work[layer])
        self.orders = (by_saving, sorted(effects, key=lambda layer: -effects[layer]))
        self.closest: Agreement
        self._found: dict[frozenset[str], Agreement] = {}
        self._judged, self._within, self._work = judged, within, work

    @property
    def tried(self) -> int:
        """How many graphs were judged."""
        return len(self._found)

    def share(self, layers: Collection[str]) -> float:
        """Of the work of all layers, that of these."""
        return sum(self._work[layer] for layer in layers) / sum(self._work.values())

    def agreement(self, kept: Sequence[str]) -> Agreement:
        """Of the graph that keeps these; judged once."""
        key = frozenset(kept)
        if key not in self._found:
            self._found[key] = self._judged(kept)
        return self._found[key]

    def least(self, tell: Progress) -> list[str] | None:
        """The layers to keep, or None when even the most allowed are too few."""
        found = []
        for index, order in enumerate(self.orders):
            kept = self._least_of(order, lambda part, index=index: tell((index + part) / len(self.orders)))  # type: ignore[misc]
            found += [] if kept is None else [kept]
        return min(found, key=self.share, default=None)

    def _least_of(self, order: Sequence[str], tell: Progress) -> list[str] | None:
        count = self._fewest(order, lambda part: tell(0.6 * part))
        if count is None:
            return None
        kept = list(order[:count])
        heaviest = sorted(kept, key=lambda layer: -self._work[layer])[:RELEASES]
        for index, layer in enumerate(heaviest):
            without = [name for name in kept if name != layer]
            kept = without if self._met(without) else kept
            tell(0.6 + 0.4 * (index + 1) / len(heaviest))
        return kept

    def _fewest(self, order: Sequence[str], tell: Progress) -> int | None:
        """How many layers to keep in their order, by halving."""
        most = self._most(order)
        if not self._met(order[:most]):
            return None
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._met(order[:middle]) else (middle, high)
            tell(1 - (high - low) / most)
        return high

    def _most(self, order: Sequence[str]) -> int:
        """The largest number of layers, all but one at most, that leaves enough work for the lower precision."""
        counts = range(len(order) - 1, 0, -1)
        return next((count for count in counts if self.share(order[:count]) <= 1 - LEAST_LOWERED), 0)

    def _met(self, kept: Sequence[str]) -> bool:
        self.closest = self.agreement(kept)
        return self._within(self.closest)


def _over_budget(precision: str, effects: dict[str, float], closest: Agreement) -> str:
    worst = ", ".join(f"{name} ({effect:.2g})" for name, effect in list(effects.items())[:WORST_NAMED])
    if closest.auroc_drop is not None:
        missed = f"AUROC drops by {closest.auroc_drop:.2f} points"
    else:
        rank = "undefined" if closest.score_rank_correlation is None else f"{closest.score_rank_correlation:.4f}"
        missed = f"rank correlation {rank}, {closest.verdict_flips:.2%} of the verdicts flip"
    kept = f"{1 - LEAST_LOWERED:.0%} of its work kept"
    finish = "train with  orinspect qat  first, " if precision.startswith("int8") else ""
    return (
        f"{precision} does not decide as fp32 does, even with {kept} ({missed}, least cosine of the embeddings "
        f"{closest.least_cosine:.4f}). Costliest layers, by effect on the score: {worst}. Give more --calibration "
        f"images, try another --calibrator, loosen the budget, {finish}or export without {precision}"
    )
