"""The batches of a run: batch k is a pure function of (seed, k), whatever was computed before and by which process."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from orinspect_train.methods import Render

ORDER_STREAM, RENDER_STREAM = 3, 4


class Batches(Dataset[dict[str, torch.Tensor]]):
    """Rendered batches number `first` to `last` - 1, of uint8 images [N, H, W, 3]."""

    def __init__(
        self, pixels: NDArray[np.uint8], render: Render, *, batch_size: int, seed: int, first: int, last: int
    ) -> None:
        # A tensor is shared with worker processes; an array would be copied to each.
        self.pixels = torch.from_numpy(pixels)
        self.render, self.batch_size, self.seed, self.first, self.last = render, batch_size, seed, first, last

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = self.first + index
        rng = np.random.default_rng([self.seed, RENDER_STREAM, number])
        rendered = self.render(self.pixels.numpy()[self.chosen(number)], rng)
        return {name: torch.from_numpy(value) for name, value in rendered.items()}

    def chosen(self, number: int) -> NDArray[np.int64]:
        """Which images batch `number` is made of: every image comes once an epoch, in an order drawn for it."""
        places = np.arange(number * self.batch_size, (number + 1) * self.batch_size)
        epochs, places = np.divmod(places, len(self.pixels))
        orders = {epoch: self._order(int(epoch)) for epoch in np.unique(epochs)}
        return np.array([orders[epoch][place] for epoch, place in zip(epochs, places, strict=True)])

    def loader(self, workers: int, *, pin: bool = False) -> DataLoader[Any]:
        """A loader of ready batches, rendered in `workers` processes (0: in this one). pin: for a faster way to a GPU."""
        return DataLoader(self, batch_size=None, shuffle=False, num_workers=workers, pin_memory=pin)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, ORDER_STREAM, epoch]).permutation(len(self.pixels))
