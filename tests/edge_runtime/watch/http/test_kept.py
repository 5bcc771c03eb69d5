"""Frames of what was not accepted, kept for feedback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.preprocess import fit_to_model, read_frame
from orinspect_edge_runtime.watch.http.kept import KeptFrame, KeptFrames

Site = Any


def test_the_newest_frames_are_kept_bit_by_bit(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    kept = KeptFrames(tmp_path / "frames.sqlite", most=3)
    kept.write([KeptFrame(str(number), pixels[number]) for number in range(5)])
    kept.write([KeptFrame("4", pixels[0])])
    again = KeptFrames(tmp_path / "frames.sqlite", most=3)
    assert [again.read(str(number)) is None for number in range(5)] == [True, True, False, False, False]
    np.testing.assert_array_equal(again.read("4"), pixels[4])
    (tmp_path / "other.sqlite").write_bytes(b"no database" * 99)
    with pytest.raises(InputError, match=r"other\.sqlite: cannot be used"):
        KeptFrames(tmp_path / "other.sqlite", most=3)


def test_a_reject_is_kept_as_it_entered_the_graph(site: Site) -> None:
    (reject,) = site.get("/api/verdicts?outcome=reject")["verdicts"]
    spec = site.watch.judge.detector.bundle.manifest.preprocess
    wanted = fit_to_model(read_frame(site.pictures / "test/blot/00.png", spec).pixels, spec)
    np.testing.assert_array_equal(site.service.kept_frames.read(reject["id"]), wanted)
    (good, *_) = site.get("/api/verdicts?outcome=accept")["verdicts"]
    assert site.service.kept_frames.read(good["id"]) is None
