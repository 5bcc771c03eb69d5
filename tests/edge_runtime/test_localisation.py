"""Pixel metrics of an evaluation: masks at the model's size, empty and full ones, kinds, and the reference's AUROC."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import roc_auc_score

from orinspect_edge_runtime import metrics
from orinspect_edge_runtime.errors import ImageError, InputError
from orinspect_edge_runtime.localisation import GOOD, GoodCounts, Localisation, Localiser, MaskedMap, read_mask
from orinspect_edge_runtime.pixel_curve import count_pixels
from orinspect_edge_runtime.preprocess import PreprocessSpec

SPEC = PreprocessSpec(32, 32)


def localise(kinds: list[str], masks: np.ndarray, maps: np.ndarray) -> Localisation | None:
    """Images with an empty mask come as masked ones and as good ones by turns: both must count alike."""
    pixels, masked, good = Localiser(), [], []
    for number, (kind, mask, values) in enumerate(zip(kinds, masks, maps.astype(np.float32), strict=True)):
        if mask.any() or number % 2:
            masked.append(MaskedMap.of(kind, mask, values))
        else:
            good.append(values)
    for one in masked:
        pixels.add_marked(one)
    counts = GoodCounts(pixels.thresholds)
    for values in good:
        counts.add(values)
    for one in masked:
        pixels.add_unmarked(one)
    pixels.add_counts(GOOD, counts.total())
    return pixels.figures()


def saved(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_value_but_zero_marks(tmp_path: Path, value: int, dtype: type) -> None:
    pixels = np.zeros((64, 64), dtype)
    pixels[:32, :16] = value
    wanted = np.zeros((32, 32), bool)
    wanted[:16, :8] = True
    np.testing.assert_array_equal(read_mask([saved(tmp_path / "m.png", pixels)], SPEC), wanted)


def test_several_files_are_joined_and_a_speck_stays(tmp_path: Path) -> None:
    first, second = np.zeros((2, 640, 640), np.uint8)
    first[3, 3] = 255
    second[320:, :] = 255
    mask = read_mask([saved(tmp_path / "0.png", first), saved(tmp_path / "1.png", second)], SPEC)
    assert mask[16:].all()
    assert 1 <= mask[:16].sum() <= 4
    assert mask[0, 0]


def test_no_file_and_an_empty_file_mark_nothing(tmp_path: Path) -> None:
    assert not read_mask([], SPEC).any()
    assert not read_mask([saved(tmp_path / "m.png", np.zeros((9, 9), np.uint8))], SPEC).any()


def test_a_damaged_mask_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_text("text")
    with pytest.raises(ImageError, match=r"m\.png: a mask that cannot be read"):
        read_mask([tmp_path / "m.png"], SPEC)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([0, 1, 3]))
def test_figures_equal_the_reference(seed: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.random((4, 9, 9)) < 0.2
    masks[0], masks[1, 0, 0] = False, True
    maps = rng.standard_normal(masks.shape) + masks
    maps = (np.round(maps * steps) / steps if steps else maps).astype(np.float32)
    found = localise(["good", "cut", "cut", "bent"], masks, maps)
    assert found is not None
    assert found.pixel_auroc == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-9)
    assert found.aupro_05 == pytest.approx(metrics.aupro(masks, maps, limit=0.05), abs=1e-12)
    assert found.aupro_30 == pytest.approx(metrics.aupro(masks, maps), abs=1e-12)
    assert found.aupro_30_by_kind["cut"] == pytest.approx(metrics.aupro(masks[:3], maps[:3]), abs=1e-12)


@pytest.mark.parametrize("fill", [False, True])
def test_nothing_or_everything_marked_has_no_figures(fill: bool) -> None:
    assert localise(["bad"], np.full((1, 4, 4), fill), np.zeros((1, 4, 4))) is None


def test_an_empty_mask_counts_as_good() -> None:
    masks = np.zeros((2, 4, 4), bool)
    masks[1, 0, 0] = True
    found = localise(["bad", "bad"], masks, masks.astype(float))
    assert found is not None
    assert (found.masked_images, found.pixel_auroc, found.aupro_30) == (1, 1.0, pytest.approx(1.0))


def test_marked_pixels_come_first_and_maps_must_be_finite() -> None:
    broken, pixels = np.full((4, 4), np.nan, np.float32), Localiser()
    with pytest.raises(InputError, match="not finite"):
        MaskedMap.of("bad", np.ones((4, 4), bool), broken)
    with pytest.raises(InputError, match="not finite"):
        GoodCounts(pixels.thresholds).add(broken)
    with pytest.raises(ValueError, match="before the first unmarked"):
        pixels.add_marked(MaskedMap.of("bad", np.ones((4, 4), bool), np.zeros((4, 4), np.float32)))


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(0, 40))
def test_good_pixels_are_counted_however_they_come(seed: int, values: int) -> None:
    rng = np.random.default_rng(seed)
    thresholds = np.unique(rng.integers(0, 9, values).astype(np.float32))
    maps = rng.integers(0, 9, (5, 3, 3)).astype(np.float32)
    one_by_one, counts = GoodCounts(thresholds), GoodCounts(thresholds)
    for values_of_one in maps:
        one_by_one.add(values_of_one)
        one_by_one.total()
        counts.add(values_of_one)
    np.testing.assert_array_equal(one_by_one.total(), count_pixels(thresholds, maps.ravel()))
    np.testing.assert_array_equal(counts.total(), one_by_one.total())


def test_memory_does_not_grow_with_the_good_images() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((96, 96), bool)
    mask[10:14, 20:30] = True
    pixels = Localiser()
    pixels.add_marked(MaskedMap.of("bad", mask, rng.standard_normal((96, 96)).astype(np.float32)))
    counts = GoodCounts(pixels.thresholds)
    tracemalloc.start()
    for _ in range(200):
        counts.add(rng.standard_normal((96, 96)).astype(np.float32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * mask.size * 4, "200 maps were 200 times that"
