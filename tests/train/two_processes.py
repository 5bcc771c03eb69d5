"""Run by test_processes.py: two steps of every method, by this process alone and as one of two with half of the batch.

python two_processes.py RANK RENDEZVOUS OPTIONS: OPTIONS is JSON, options by method; prints the differences by method.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import distributed, nn

from orinspect_train.augment import Augmenter
from orinspect_train.batch_norm import share_statistics
from orinspect_train.config import PretrainConfig
from orinspect_train.encoder import Encoder
from orinspect_train.methods import open_method

SIZE, IMAGES, PROCESSES = 64, 8, 2


def main() -> None:
    torch.set_num_threads(1)
    rank, rendezvous, options = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    alone = {name: train(name, given, slice(None), devices=1) for name, given in options.items()}
    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=PROCESSES)
    share = IMAGES // PROCESSES
    mine = slice(rank * share, (rank + 1) * share)
    together = {name: train(name, given, mine, devices=PROCESSES) for name, given in options.items()}
    print(json.dumps({name: [_gap(alone[name], together[name]), moved(together[name])] for name in options}))
    distributed.destroy_process_group()


def train(name: str, options: dict[str, Any], mine: slice, devices: int) -> dict[str, torch.Tensor]:
    """The state of encoder and heads after two steps, and before them with `start ` in front.

    In double precision: in float32 a hidden unit whose input is zero but for rounding is on in one training and off in the
    other. Two of the 512 of csi's head, on one kind of processor, moved a weight by a hundredth of the largest change.
    """
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    encoder = Encoder("test_vit" if name == "mae" else "test_efficientnet", SIZE)
    config = PretrainConfig(method=name, encoder=encoder.name, size=SIZE, options=options)
    method = open_method(config, encoder, Augmenter(gray=False), devices)
    torch.set_default_dtype(torch.float32)
    model = nn.ModuleList([encoder, method.heads]).train().double()
    start = {f"start {key}": value.clone() for key, value in model.state_dict().items()}
    if devices > 1:
        share_statistics(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, SIZE, SIZE, 3), np.uint8)
    for _ in range(2):
        batch = {key: _double(torch.from_numpy(value[mine])) for key, value in method.render(images, rng).items()}
        with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
            loss, _ = method.loss(lambda pixels: pixels.double().permute(0, 3, 1, 2) / 127.5 - 1, batch, 0.0)
        optimizer.zero_grad()
        loss.backward()
        for parameter in trained if devices > 1 else []:
            # What DistributedDataParallel does.
            distributed.all_reduce(parameter.grad)
            parameter.grad /= devices
        optimizer.step()
    return start | model.state_dict()


def _double(values: torch.Tensor) -> torch.Tensor:
    return values.double() if values.is_floating_point() else values


def moved(state: dict[str, torch.Tensor]) -> float:
    """The largest change of any weight from the start."""
    weights = {key for key, value in state.items() if value.is_floating_point() and "running" not in key}
    ends = {key for key in weights if not key.startswith("start ") and "bank" not in key}
    return max(float((state[key] - state[f"start {key}"]).abs().max()) for key in ends)


def _gap(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of any value, queues and statistics included."""
    assert one.keys() == other.keys()
    return max(float((one[key].float() - other[key].float()).abs().max()) for key in one)


if __name__ == "__main__":
    main()
