"""The accuracy gate: as few layers as possible stay in a higher precision, and no graph ships that decides otherwise."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from orinspect_edge_runtime.errors import CheckFailed
from orinspect_export.activations import Frames
from orinspect_export.decisions import Agreement, Budget, Judge
from orinspect_export.gate_journal import Remember, measure_anew
from orinspect_export.sensitivity import score_effects

if TYPE_CHECKING:
    import onnx

# A graph with fewer layers than this share in the lower precision gains too little to be worth its name.
LEAST_LOWERED = 0.1
WORST_NAMED = 3
Progress = Callable[[float], None]
Build = Callable[[Collection[str]], "onnx.ModelProto"]


@dataclass(frozen=True)
class Candidate:
    """A precision to be gated.

    layers: names of those that can be lowered. build: the graph with some of them kept. probe: the same in a precision
    that is quicker to build and rounds alike, to measure the effect of each layer with.
    """

    precision: str
    layers: Sequence[str]
    build: Build
    probe: Build | None = None


@dataclass(frozen=True)
class Gated:
    """A graph that met the budget. kept: the layers not lowered, by their effect on the score when lowered alone.

    naive: the agreement with no layer kept. tried: how many graphs were judged.
    """

    model: onnx.ModelProto
    agreement: Agreement
    naive: Agreement
    kept: dict[str, float]
    tried: int


def pass_gate(
    candidate: Candidate,
    exact: onnx.ModelProto,
    judge: Judge,
    budget: Budget,
    frames: Frames,
    progress: Progress | None = None,
    remember: Remember = measure_anew,
) -> Gated:
    """The graph of the precision with the fewest layers kept that meets the budget.

    exact: the float32 graph. frames: uint8 [N, H, W, 3], to measure the layers' effects on. Layers are kept in the
    order of their effect, and their number is found by halving. remember: of a gate_journal.GateJournal, to go on where a
    killed export was. Raises CheckFailed when the budget cannot be met.
    """
    tell = progress or (lambda share: None)
    name = candidate.precision

    def judged(kept: Sequence[str]) -> Agreement:
        measured = remember(f"{name} keeping {len(kept)}", lambda: asdict(judge.agreement(candidate.build(kept))))
        return Agreement(**measured)

    naive = judged(())
    if naive.within(budget):
        tell(1.0)
        return Gated(candidate.build(()), naive, naive, {}, 1)
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
    search = _Search(judged, lambda agreement: agreement.within(budget), list(effects))
    count = search.fewest(lambda share: tell(0.6 + 0.4 * share))
    if count is None:
        raise CheckFailed(_over_budget(name, effects, search.closest))
    kept = {layer: effects[layer] for layer in search.order[:count]}
    return Gated(candidate.build(list(kept)), search.agreement, naive, kept, search.tried + 1)


class _Search:
    """Halving over the number of layers kept; keeps the agreement of the last graph that met the budget."""

    def __init__(
        self, judged: Callable[[Sequence[str]], Agreement], within: Callable[[Agreement], bool], order: list[str]
    ) -> None:
        self.order = order
        self.tried = 0
        self.closest: Agreement
        self.agreement: Agreement
        self._judged, self._within = judged, within

    def fewest(self, tell: Progress) -> int | None:
        """The smallest number of layers to keep, or None when even the most allowed are too few."""
        most = int((1 - LEAST_LOWERED) * len(self.order))
        if not self._met(most):
            return None
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._met(middle) else (middle, high)
            tell(1 - (high - low) / most)
        return high

    def _met(self, count: int) -> bool:
        self.tried += 1
        self.closest = self._judged(self.order[:count])
        met = self._within(self.closest)
        if met:
            self.agreement = self.closest
        return met


def _over_budget(precision: str, effects: dict[str, float], closest: Agreement) -> str:
    worst = ", ".join(f"{name} ({effect:.2g})" for name, effect in list(effects.items())[:WORST_NAMED])
    if closest.auroc_drop is not None:
        missed = f"AUROC drops by {closest.auroc_drop:.2f} points"
    else:
        rank = "undefined" if closest.score_rank_correlation is None else f"{closest.score_rank_correlation:.4f}"
        missed = f"rank correlation {rank}, {closest.verdict_flips:.2%} of the verdicts flip"
    kept = f"{1 - LEAST_LOWERED:.0%} of its layers kept"
    finish = "train with  orinspect qat  first, " if precision.startswith("int8") else ""
    return (
        f"{precision} does not decide as fp32 does, even with {kept} ({missed}, least cosine of the embeddings "
        f"{closest.least_cosine:.4f}). Costliest layers, by effect on the score: {worst}. Give more --calibration "
        f"images, try another --calibrator, loosen the budget, {finish}or export without {precision}"
    )
