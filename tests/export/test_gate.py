"""The gate: fewest layers kept, planted faults found and named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from planted_faults import scale_channel

from orinspect_export.decisions import Agreement, Budget, Judge
from orinspect_export.exporter import ExportOptions
from orinspect_export.gate import Candidate, pass_gate
from orinspect_export.graph import EncoderGraph
from orinspect_export.images import ExportImages
from orinspect_export.int8 import Quantiser
from orinspect_export.lowering import lower_precisions

IMPOSSIBLE = Budget(min_rank_correlation=1.0, max_flips=-1.0)
STRICT = Budget(min_rank_correlation=0.995, max_flips=0.05)


def lower(model: Any, graph: EncoderGraph, frames: Any, *precisions: str, budget: Budget = STRICT) -> Any:
    encoder = EncoderGraph(model, graph.spec, graph.preprocess)
    images = ExportImages(frames[:16], frames[16:], ("image",) * 16, ())
    return lower_precisions(encoder, images, ExportOptions(precisions, budget=budget), lambda share: None)


def test_a_precision_that_agrees_keeps_nothing(resnet: EncoderGraph, frames: Any) -> None:
    note = lower(resnet.model, resnet, frames, "fp16").notes["fp16"]
    assert note["kept"] == {}
    assert note["warnings"] == {}
    assert note["graphs_tried"] == 1


def test_layers_are_kept_until_the_budget_is_met(resnet: EncoderGraph, frames: Any) -> None:
    quantiser = Quantiser(resnet.model, frames[:16])
    candidate = Candidate("int8", quantiser.layers, quantiser.build)
    judge = Judge(resnet.model, frames[16:])
    told: list[float] = []
    gated = pass_gate(candidate, resnet.model, judge, STRICT, frames[:16], told.append)
    assert not gated.naive.within(STRICT), "the case shows nothing"
    assert gated.agreement.within(STRICT)
    assert 0 < len(gated.kept) < len(quantiser.layers)
    assert list(gated.kept.values()) == sorted(gated.kept.values(), reverse=True)
    one_less = quantiser.build(list(gated.kept)[:-1])
    assert not judge.agreement(one_less).within(STRICT)
    assert judge.agreement(gated.model) == gated.agreement
    assert told == sorted(told)


def test_a_budget_that_cannot_be_met_names_the_costliest_layers(resnet: EncoderGraph, frames: Any) -> None:
    lowered = lower(resnet.model, resnet, frames, "int8", budget=IMPOSSIBLE)
    assert lowered.models == {}
    told = lowered.refused["int8"]
    assert re.search(r"int8 does not decide as fp32 .* Costliest layers.*/trunk/.*without int8", told)


def test_a_channel_a_thousand_times_as_large_is_named_and_kept(resnet: EncoderGraph, frames: Any) -> None:
    planted, victim = scale_channel(resnet.model, 1000)
    found = lower(planted, resnet, frames, "int8").notes["int8"]
    assert "channel 0 of its input reaches" in found["warnings"][victim]
    assert victim in found["kept"]
    sound = lower(resnet.model, resnet, frames, "int8").notes["int8"]
    assert victim not in sound["warnings"]


def test_an_overflow_of_half_precision_is_named_and_kept(resnet: EncoderGraph, frames: Any) -> None:
    planted, victim = scale_channel(resnet.model, 1e6)
    lowered = lower(planted, resnet, frames, "fp16")
    assert "half precision ends at 65504" in lowered.notes["fp16"]["warnings"][victim]
    exact = Judge(planted, frames[16:])
    assert exact.agreement(lowered.models["fp16"]).within(STRICT)


def test_the_search_halves() -> None:
    """The fewest of 64 layers that meet the budget, in at most eight graphs."""
    for needed in (1, 2, 17, 31, 57):
        tried: list[int] = []
        search = _search(tried, needed)
        assert search.fewest(lambda share: None) == needed
        assert len(tried) <= 8
    assert _search([], 58).fewest(lambda share: None) is None


def _search(tried: list[int], needed: int) -> Any:
    from orinspect_export.gate import _Search

    def judged(kept: Sequence[str]) -> Agreement:
        tried.append(len(kept))
        return Agreement(1.0 if len(kept) >= needed else 0.0, 0.0, 0.0, 1.0, 100)

    return _Search(judged, lambda agreement: agreement.within(Budget()), [str(index) for index in range(64)])
