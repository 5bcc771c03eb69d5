"""Batch norms that see the images of all processes, so that several devices train as one with their batches together.

torch's SyncBatchNorm refuses the CPU and, put in place of timm's BatchNormAct2d, loses its activation. This one is the
same computation on any device; it changes the class of a module and nothing of its state.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, distributed, nn
from torch.autograd import Function
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm


class SharedBatchNorm(_BatchNorm):
    """BatchNorm1d and BatchNorm2d over all processes (Ioffe & Szegedy 2015, arXiv 1502.03167)."""

    def forward(self, values: Tensor) -> Tensor:
        """Float [B, C, ...] in and out."""
        return _normalised(self, values)


class SharedBatchNormAct2d(BatchNormAct2d):  # type: ignore[misc]
    """timm's batch norm with its activation, over all processes."""

    def forward(self, values: Tensor) -> Tensor:
        """Float [B, C, H, W] in and out."""
        activated: Tensor = self.act(self.drop(_normalised(self, values)))
        return activated


SHARED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: SharedBatchNorm,
    nn.BatchNorm2d: SharedBatchNorm,
    BatchNormAct2d: SharedBatchNormAct2d,
}


def share_statistics(module: nn.Module) -> None:
    """Let every batch norm in the module see the images of all processes from now on."""
    for part in module.modules():
        if type(part) in SHARED:
            part.__class__ = SHARED[type(part)]


class _Sum(Function):
    """The sum over all processes. Each takes part in the loss of each, so gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total


def _normalised(norm: _BatchNorm, values: Tensor) -> Tensor:
    if not norm.training:
        return functional.batch_norm(
            values, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
        )
    axes = [0, *range(2, values.ndim)]
    shape = [1, -1, *[1] * (values.ndim - 2)]
    count = values.numel() // values.shape[1] * distributed.get_world_size()
    wide = values.float()
    mean = _Sum.apply(wide.sum(axes)) / count
    centred = wide - mean.view(shape)
    variance = _Sum.apply(centred.square().sum(axes)) / count
    _remember(norm, mean.detach(), variance.detach() * count / max(count - 1, 1))
    result: Tensor = centred * (variance + norm.eps).rsqrt().view(shape)
    if norm.affine:
        result = result * norm.weight.view(shape) + norm.bias.view(shape)
    return result.to(values.dtype)


def _remember(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked += 1
    share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), share)
