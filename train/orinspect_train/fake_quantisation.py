"""An encoder as INT8 will round it, in float32 and with gradients: fake quantisation.

Jacob et al. 2018, arXiv 1712.05877: weights by output channel and activations by tensor are rounded to 255 symmetric steps
in the forward pass, and gradients pass the rounding as if it were not there (Bengio et al. 2013, arXiv 1308.3432). What the
INT8 graphs of `orinspect export` round is rounded here but for the residual sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from orinspect_train.encoder import Encoder

STEPS = 127
# Ranges that are tried, as shares of the largest magnitude.
TRIED = torch.linspace(0.1, 1.0, 46)
# Values of a tensor and batch that the range is chosen on.
MOST_VALUES = 20_000
SMALLEST_STEP = 1e-12


class FakeInt8:
    """The features of an encoder under rounding. The encoder's own weights are trained; they stay in float32.

    images: normalised float [N, 3, H, W], which the ranges of the activations are chosen on, by least squared error.
    """

    def __init__(self, encoder: Encoder, images: Tensor) -> None:
        self._encoder = encoder
        self._layers = {
            name: module for name, module in encoder.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
        }
        self._steps = {name: reach / STEPS for name, reach in self._reaches(images).items()}

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding [B, E] and patches [B, P, D], as of Encoder.forward."""
        weights = {f"{name}.weight": round_weight(layer.weight) for name, layer in self._layers.items()}
        with self._hooked(lambda name, values: round_to_steps(values, self._steps[name])):
            embedding, patches = functional_call(self._encoder, weights, (images,))
        return embedding, patches

    def _reaches(self, images: Tensor) -> dict[str, Tensor]:
        """Magnitude that each layer's input is cut off at."""
        seen: dict[str, Tensor] = {}

        def look(name: str, values: Tensor) -> Tensor:
            flat = values.detach().abs().flatten()
            seen[name] = flat[:: max(1, len(flat) // MOST_VALUES)]
            return values

        with self._hooked(look), torch.no_grad():
            self._encoder(images)
        return {name: least_error_reach(values) for name, values in seen.items()}

    @contextmanager
    def _hooked(self, change: Any) -> Iterator[None]:
        """Every layer reads change(its name, its input) instead of its input."""
        handles = [
            layer.register_forward_pre_hook(lambda module, inputs, name=name: (change(name, inputs[0]),))
            for name, layer in self._layers.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def round_weight(weight: Tensor) -> Tensor:
    """A weight [out, ...] rounded with a step per output channel; gradients pass."""
    others = tuple(range(1, weight.ndim))
    step = weight.detach().abs().amax(others, keepdim=True) / STEPS
    return round_to_steps(weight, step)


def round_to_steps(values: Tensor, step: Tensor) -> Tensor:
    """Values rounded to whole steps from -127 to 127; gradients pass where nothing is cut off."""
    step = step.clamp_min(SMALLEST_STEP)
    exact = (values / step).clamp(-STEPS, STEPS)
    return (exact + (exact.round() - exact).detach()) * step


def least_error_reach(magnitudes: Tensor) -> Tensor:
    """The end of the range with the least squared error of rounding and cutting off; magnitudes: [N], none negative."""
    reaches = magnitudes.max() * TRIED.to(magnitudes.device)
    errors = torch.stack(
        [(round_to_steps(magnitudes, reach / STEPS) - magnitudes).square().mean() for reach in reaches]
    )
    return reaches[errors.argmin()]
