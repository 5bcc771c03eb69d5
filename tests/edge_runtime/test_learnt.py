"""What a student has learnt from calibrates nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orinspect_edge_runtime import learnt
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import BundleError
from orinspect_edge_runtime.features import Features, score_features
from orinspect_edge_runtime.fit import fit_features
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.scorers import SCORERS


def test_a_fingerprint_is_of_the_pixels_and_their_order() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    mark = learnt.fingerprint(pixels)
    assert len(mark) == learnt.DIGITS and mark == learnt.fingerprint(pixels[::1].copy())
    assert mark == learnt.fingerprint(np.asfortranarray(pixels))
    other = pixels.copy()
    other[3, 4, 1] ^= 1
    assert len({mark, learnt.fingerprint(other), learnt.fingerprint(pixels[::-1])}) == 3


def test_a_bundle_lists_them(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> None:
    marks = ["00ff", "0a1b"]
    bundle = make_bundle(tmp_path / "b", {learnt.FILE: learnt.to_bytes(marks)})
    assert learnt.learnt_images(bundle) == frozenset(marks)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"learnt": 3}', b'{"learnt": [3]}', b"\xff", b"[" * 100_000])
def test_another_file_is_refused(content: bytes, tmp_path: Path, make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle(tmp_path / "b", {learnt.FILE: content})
    with pytest.raises(BundleError, match="export again"):
        learnt.learnt_images(bundle)


def draw(rng: Any, count: int, size: float) -> Features:
    residuals = size * rng.standard_normal((count, 4, 6))
    return Features(rng.standard_normal((count, 5)).astype(np.float32), residuals.astype(np.float32))


def rate(seed: int, *, careful: bool) -> float:
    """False alarms among fresh images when 120 of 180 have residuals that are smaller by a fifth."""
    rng = np.random.default_rng(seed)
    known, fresh = draw(rng, 120, 0.8), draw(rng, 60, 1.0)
    both = Features(
        *(np.concatenate([getattr(known, f.name), getattr(fresh, f.name)]) for f in dataclasses.fields(known))
    )
    unseen = np.arange(180) >= 120 if careful else None
    fitted = fit_features(both, FitOptions("student", false_alarm=0.1, groups=1, seed=seed), unseen=unseen)
    if careful:
        assert sorted(fitted.calibrating) == list(range(120, 180))
        assert len(fitted.calibration) == fitted.threshold.images == 60
    scores, _ = score_features(SCORERS["student"], fitted.arrays, draw(rng, 300, 1.0))
    return float((scores > fitted.threshold.value).mean())


def test_the_promise_is_kept_only_when_they_do_not_calibrate() -> None:
    careful = np.mean([rate(seed, careful=True) for seed in range(30)])
    careless = np.mean([rate(seed, careful=False) for seed in range(30)])
    assert 0.07 < careful < 0.12
    assert careless > 0.15


def test_the_file_is_json(tmp_path: Path) -> None:
    assert json.loads(learnt.to_bytes(["b", "a"])) == {"learnt": ["a", "b"]}
