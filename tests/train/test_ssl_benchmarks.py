"""What ssl_fashion.py and ssl_textures.py measure with: data as it lies on disk, neighbours, maps, intervals."""

from __future__ import annotations

import gzip
from pathlib import Path

import fashion
import numpy as np
import pytest
import ssl_fashion
import ssl_textures
import torch

from orinspect_train.encoder import Encoder


def write_idx(folder: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    for name, header, values in (("images-idx3", 16, pixels), ("labels-idx1", 8, labels)):
        content = bytes(header) + values.astype(np.uint8).tobytes()
        (folder / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(content))


def test_clothes_get_a_black_margin_and_keep_their_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (3, 28, 28))
    write_idx(tmp_path, pixels, np.array([9, 0, 4]))
    monkeypatch.setattr(fashion, "FOLDER", tmp_path)
    found = fashion.read("train")
    assert found.pixels.shape == (3, 32, 32, 3) and found.labels.tolist() == [9, 0, 4]
    np.testing.assert_array_equal(found.pixels[:, 2:-2, 2:-2, 1], pixels)
    assert not found.pixels[:, :2].any() and not found.pixels[:, :, -2:].any()
    np.testing.assert_allclose(ssl_fashion.flat(found.pixels) * 255, pixels.reshape(3, -1), rtol=1e-6)


def test_without_the_package_its_name_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion, "FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match="apt install dataset-fashion-mnist"):
        fashion.read("t10k")


def test_raw_scores_are_mean_distances_to_the_five_nearest() -> None:
    rng = np.random.default_rng(0)
    known, asked = (rng.random((count, 7), np.float32) for count in (40, 6))
    distances = np.sort(np.linalg.norm(asked[:, None] - known, axis=2), axis=1)
    np.testing.assert_allclose(ssl_fashion.nearest(known, asked), distances[:, :5].mean(1), rtol=1e-4)


def test_neighbours_vote_and_standardising_frees_them_of_a_loud_dimension() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([3, 8], 60)
    known = np.stack([1e4 * rng.random(120), labels + rng.normal(0, 0.1, 120)], 1).astype(np.float32)
    asked = np.stack([1e4 * rng.random(50), np.repeat([3, 8], 25)], 1).astype(np.float32)
    right = [
        (ssl_fashion.knn_labels(known, asked, labels, standardised=standardised) == np.repeat([3, 8], 25)).mean()
        for standardised in (True, False)
    ]
    assert right[0] == 1 and right[1] < 0.9


def test_scores_come_in_units_of_the_calibration_and_without_it() -> None:
    scores = np.array([1, 3, 2, 7], np.float32)
    np.testing.assert_allclose(ssl_fashion.standard(scores, 2), [0, 5])


def test_a_difference_holds_its_mean_and_an_interval_around_it() -> None:
    found = ssl_fashion.against([0.9, 0.8, 0.7], [0.8, 0.8, 0.8])
    assert found["over_raw"] == pytest.approx(0.0)
    assert found["interval_95"] == pytest.approx([-0.1, 0.1])


@pytest.mark.parametrize("name", ssl_textures.NAMES)
def test_every_second_tested_texture_has_a_defect_with_its_truth(name: str) -> None:
    drawn = ssl_textures.photographed(name, 0, good=3, test=8)
    assert drawn.good.shape == (3, ssl_textures.SIZE, ssl_textures.SIZE, 3)
    assert drawn.masks.any(axis=(1, 2)).tolist() == [False, True] * 4
    again, other = (ssl_textures.photographed(name, seed, good=3, test=8) for seed in (0, 1))
    np.testing.assert_array_equal(drawn.test, again.test)
    assert not np.array_equal(drawn.test, other.test)


def test_tested_crops_come_from_another_part_of_the_photograph(monkeypatch: pytest.MonkeyPatch) -> None:
    import skimage.data

    halves = np.zeros((512, 512))
    halves[:, round(512 * ssl_textures.LEARNT_SHARE) :] = 100
    monkeypatch.setattr(skimage.data, "brick", lambda: halves)
    drawn = ssl_textures.photographed("brick", 0, good=20, test=20)
    assert drawn.good.mean(axis=(1, 2, 3)).max() + 50 < drawn.test.mean(axis=(1, 2, 3)).min()


def test_a_map_is_hottest_where_the_patch_is() -> None:
    encoder = Encoder("tiny_resnet", ssl_textures.SIZE)
    rows, columns = encoder.grid(ssl_textures.SIZE, ssl_textures.SIZE)
    distances = np.zeros((1, rows * columns), np.float32)
    distances[0, 2 * columns + 5] = 1
    (heat,) = ssl_textures.heat_maps(distances, encoder)
    top, left = np.unravel_index(heat.argmax(), heat.shape)
    assert (top // encoder.stride, left // encoder.stride) == (2, 5)


def clothes(count: int) -> np.ndarray:
    """uint8 [count, 32, 32, 3]: gray noise, no two alike."""
    gray = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 1), np.uint8)
    return np.repeat(gray, 3, axis=3)


def test_what_is_scored_is_what_an_exported_graph_embeds_of_four_turns() -> None:
    pixels = clothes(5)
    module = ssl_fashion.open_module(pixels, ssl_fashion.ROTATION)
    found = ssl_fashion.exported_embeddings(module, pixels)
    turned = [ssl_fashion.embed(module, np.rot90(pixels, turns, (1, 2)).copy()) for turns in range(4)]
    np.testing.assert_allclose(found, np.concatenate(turned, axis=1), rtol=1e-3, atol=1e-4)
    assert not np.allclose(turned[0], turned[1], atol=1e-2)


def test_a_classifier_is_unsure_by_the_mean_over_the_turned_copies() -> None:
    module = ssl_fashion.open_module(clothes(5), ssl_fashion.ROTATION)
    embeddings = np.random.default_rng(0).normal(size=(3, 4 * module.encoder.embedding_dim)).astype(np.float32)
    expected = []
    for image in embeddings.reshape(3, 4, -1):
        logits = module.heads(torch.from_numpy(image)).detach().double().numpy()
        right = logits[range(4), range(4)] - np.log(np.exp(logits).sum(1))
        expected.append(-right.mean())
    np.testing.assert_allclose(ssl_fashion.unsure_of_turn(module, embeddings), expected, rtol=1e-4)


def test_a_form_that_was_stopped_goes_on_behind_the_classes_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    def scores(known: np.ndarray, calibration: np.ndarray, test: np.ndarray, settings: object) -> tuple[object, object]:
        begun.append(int(known[0, 0, 0, 0]))
        if len(begun) == 2:
            raise KeyboardInterrupt
        return {"raw": np.abs(test[:, 0, 0, 0].astype(float) - known[0, 0, 0, 0])}, {"cpu_seconds": 1.5}

    pictures = np.repeat(np.arange(2, dtype=np.uint8), 10)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
    read = fashion.Clothes(pictures, np.repeat([0, 1], 10))
    monkeypatch.setattr(fashion, "read", lambda part: read)
    monkeypatch.setattr(ssl_fashion, "class_scores", scores)
    form = ssl_fashion.Form(ssl_fashion.one_class, {}, classes=2)
    with pytest.raises(KeyboardInterrupt):
        ssl_fashion.one_class(form, tmp_path / "one-class")
    found = ssl_fashion.one_class(form, tmp_path / "one-class")
    assert begun == [0, 1, 1]
    assert found["cpu_seconds"] == 3.0 and found["rows"]["raw"]["by_class"] == [1.0, 1.0]
