"""The gate: fewest layers kept, planted faults found and named."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from planted_faults import scale_channel

from orinspect_export.decisions import Agreement, Budget, Judge
from orinspect_export.exporter import ExportOptions
from orinspect_export.gate import RELEASES, Candidate, _Search, pass_gate
from orinspect_export.graph import EncoderGraph
from orinspect_export.images import ExportImages
from orinspect_export.int8 import Quantiser
from orinspect_export.layer_work import layer_work
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
    candidate = Candidate("int8", quantiser.layers, layer_work(resnet.model, quantiser.layers), quantiser.build)
    judge = Judge(resnet.model, frames[16:])
    told: list[float] = []
    gated = pass_gate(candidate, resnet.model, judge, STRICT, frames[:16], told.append)
    assert not gated.naive.within(STRICT), "the case shows nothing"
    assert gated.agreement.within(STRICT)
    assert 0 < len(gated.kept) < len(quantiser.layers)
    assert list(gated.kept.values()) == sorted(gated.kept.values(), reverse=True)
    heaviest = max(gated.kept, key=lambda layer: candidate.work[layer])
    one_less = quantiser.build([layer for layer in gated.kept if layer != heaviest])
    assert not judge.agreement(one_less).within(STRICT)
    kept_work = sum(candidate.work[layer] for layer in gated.kept)
    assert gated.lowered_work == pytest.approx(1 - kept_work / sum(candidate.work.values()))
    assert judge.agreement(gated.model) == gated.agreement
    assert told == sorted(told)


def test_a_budget_that_cannot_be_met_names_the_costliest_layers(
    resnet: EncoderGraph, frames: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orinspect_export.gate.LEAST_LOWERED", 0.99)
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
    """The fewest of 64 layers that meet the budget, in at most eight graphs and one for each release that is tried."""
    for needed in (1, 2, 17, 31, 57):
        tried: list[int] = []
        search = _search(tried, lambda kept, needed=needed: len(kept) >= needed)
        assert len(search.least(lambda share: None)) == needed
        assert len(tried) <= 8 + RELEASES
    assert _search([], lambda kept: len(kept) >= 58).least(lambda share: None) is None


def test_what_saves_most_noise_for_its_work_is_kept_first() -> None:
    """b errs less than a, but costs a hundredth of its work; c hardly errs."""
    search = _Search(
        _judged([], lambda kept: "b" in kept), _met, {"a": 1.0, "b": 0.5, "c": 0.1}, {"a": 100, "b": 1, "c": 9}
    )
    assert search.orders == (["b", "a", "c"], ["a", "b", "c"])
    assert search.least(lambda share: None) == ["b"]


def test_a_layer_of_much_work_is_released_again_when_the_budget_allows() -> None:
    """Halving stops at the light layer behind the heavy one, which was not needed."""
    order = {"heavy": 3.0, "light": 1.0, "rest": 0.1}
    search = _Search(_judged([], lambda kept: "light" in kept), _met, order, {"heavy": 5, "light": 1, "rest": 9})
    assert search.orders[0] == ["heavy", "light", "rest"]
    assert search.least(lambda share: None) == ["light"]
    assert search.share(["light"]) == pytest.approx(1 / 15)


def test_one_layer_that_makes_all_of_the_error_is_kept_alone() -> None:
    """Ten light layers save more for their work; none of them is needed."""
    light = [f"light {index}" for index in range(10)]
    effects = {"heavy": 3.0, "rest": 0.1} | dict.fromkeys(light, 2.0)
    work = {"heavy": 5.0, "rest": 99.0} | dict.fromkeys(light, 1.0)
    search = _Search(_judged([], lambda kept: "heavy" in kept), _met, effects, work)
    assert search.orders[0][0] != "heavy"
    assert search.least(lambda share: None) == ["heavy"]


def _search(tried: list[int], enough: Callable[[Sequence[str]], bool]) -> Any:
    layers = [str(index) for index in range(64)]
    return _Search(_judged(tried, enough), _met, dict.fromkeys(layers, 1.0), dict.fromkeys(layers, 1.0))


def _judged(tried: list[int], enough: Callable[[Sequence[str]], bool]) -> Callable[[Sequence[str]], Agreement]:
    def judged(kept: Sequence[str]) -> Agreement:
        tried.append(len(kept))
        return Agreement(1.0 if enough(kept) else 0.0, 0.0, 0.0, 1.0, 100)

    return judged


def _met(agreement: Agreement) -> bool:
    return agreement.within(Budget())
