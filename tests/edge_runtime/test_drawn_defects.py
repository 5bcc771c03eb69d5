"""What drawn defects change in a patch: read out of a bundle, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orinspect_edge_runtime import array_file, drawn_defects
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import BundleError, InputError
from orinspect_edge_runtime.features import Features
from orinspect_edge_runtime.fit import fit_features
from orinspect_edge_runtime.fit_options import FitOptions

CHANGES = np.diag([3.0, 2.0, 1.0]).astype(np.float32)


def test_a_bundle_holds_them(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle(tmp_path / "b", {drawn_defects.FILE: drawn_defects.to_bytes(CHANGES)})
    np.testing.assert_array_equal(drawn_defects.defect_changes(bundle), CHANGES)


def test_a_bundle_of_before_has_none(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> None:
    with pytest.raises(InputError, match="export it again"):
        drawn_defects.defect_changes(make_bundle(tmp_path / "b", {"other": b"x"}))


def test_an_encoder_that_sees_no_defect(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle(tmp_path / "b", {drawn_defects.FILE: drawn_defects.to_bytes(0 * CHANGES)})
    with pytest.raises(InputError, match="saw none of the defects"):
        drawn_defects.defect_changes(bundle)


def test_a_ratio_without_them_is_refused() -> None:
    features = Features(np.zeros((6, 9), np.float32), np.zeros((6, 4, 3), np.float32))
    with pytest.raises(InputError, match="pass `changes` too"):
        fit_features(features, FitOptions("padim", likelihood_ratio=True))


WHOLE = drawn_defects.to_bytes(CHANGES)
OTHERS = [
    b"",
    b"PK",
    b"\xff" * 100,
    WHOLE[:-30],
    WHOLE[: len(WHOLE) // 2],
    array_file.to_bytes({"other": CHANGES}),
    array_file.to_bytes({"changes": CHANGES[:2]}),
    array_file.to_bytes({"changes": np.full((3, 3), np.nan, np.float32)}),
    array_file.to_bytes({"changes": np.array("text")}),
]


@pytest.mark.parametrize("content", OTHERS, ids=range(len(OTHERS)))
def test_another_file_is_refused(content: bytes, tmp_path: Path, make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle(tmp_path / "b", {drawn_defects.FILE: content})
    with pytest.raises(BundleError, match="export again"):
        drawn_defects.defect_changes(bundle)


@pytest.mark.parametrize("seed", range(40))
def test_damage_is_refused_or_does_no_harm(seed: int, tmp_path: Path, make_bundle: Callable[..., Bundle]) -> None:
    rng = np.random.default_rng(seed)
    content = np.frombuffer(WHOLE, np.uint8).copy()
    content[rng.integers(len(content), size=3)] ^= rng.integers(1, 256, 3).astype(np.uint8)
    bundle = make_bundle(tmp_path / "b", {drawn_defects.FILE: content.tobytes()})
    try:
        np.testing.assert_array_equal(drawn_defects.defect_changes(bundle), CHANGES)
    except BundleError as error:
        assert "export again" in str(error)
