from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orinspect_train.batches import Batches


def render(pixels: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"numbers": pixels[:, 0, 0, 0].astype(np.float32), "noise": rng.random(2).astype(np.float32)}


def numbered(count: int) -> np.ndarray:
    return np.repeat(np.arange(count, dtype=np.uint8)[:, None, None, None], 3, axis=3)


@given(st.integers(2, 40), st.integers(1, 12), st.integers(0, 99))
def test_every_image_comes_once_an_epoch(images: int, batch_size: int, seed: int) -> None:
    batches = Batches(numbered(images), render, batch_size=batch_size, seed=seed, first=0, last=3 * images)
    seen = torch.cat([batches[i]["numbers"] for i in range(-(-2 * images // batch_size))]).int().tolist()
    assert sorted(seen[:images]) == sorted(seen[images : 2 * images]) == list(range(images))


@settings(max_examples=20)
@given(st.integers(0, 20), st.integers(0, 99))
def test_a_batch_does_not_depend_on_where_the_run_was_resumed(first: int, seed: int) -> None:
    whole = Batches(numbered(10), render, batch_size=4, seed=seed, first=0, last=30)
    resumed = Batches(numbered(10), render, batch_size=4, seed=seed, first=first, last=30)
    np.random.default_rng(0).random(first)
    assert len(resumed) == 30 - first
    for name in ("numbers", "noise"):
        assert torch.equal(whole[first + 3][name], resumed[3][name])


def test_batches_differ_by_number_and_seed() -> None:
    one, other = (Batches(numbered(10), render, batch_size=4, seed=seed, first=0, last=30) for seed in (0, 1))
    assert not torch.equal(one[0]["noise"], one[1]["noise"])
    assert not torch.equal(one[0]["noise"], other[0]["noise"])


def test_the_loader_gives_the_batches_in_order() -> None:
    batches = Batches(numbered(10), render, batch_size=4, seed=0, first=2, last=5)
    loaded = [batch["noise"] for batch in batches.loader(0)]
    assert len(loaded) == 3
    assert all(torch.equal(found, batches[index]["noise"]) for index, found in enumerate(loaded))
