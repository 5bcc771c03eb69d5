"""Images of 32 pixels through the whole toolkit: the tiny encoder, a bundle, a recipe, verdicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click import Command
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("torch", reason="the journey needs the train and export extras")

from orinspect_edge_runtime import Bundle, Detector
from orinspect_edge_runtime.fit_command import fit
from orinspect_export.cli import export
from orinspect_train.cli import pretrain

SIDE = 32


# Plates that differ by noise alone have no order that a precision could keep.
LOOSE = ("--min-rank-correlation", 0.9, "--max-flips", 0.2)


def draw(count: int, seed: int, *, scratched: bool) -> np.ndarray:
    """uint8 [count, 32, 32, 3]: shaded plates; a scratch is a bright diagonal line."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(60, 160, SIDE)[None, :] + 20 * np.sin(np.arange(SIDE) / 3)[:, None]
    plates = ramp + rng.normal(0, 6, (count, SIDE, SIDE))
    steps = np.arange(12)
    for plate in plates if scratched else ():
        at = rng.integers(4, 16) + steps
        plate[at, at] = plate[at + 1, at] = 255
    return np.repeat(plates.clip(0, 255).astype(np.uint8)[..., None], 3, 3)


def run(command: Command, *arguments: object) -> None:
    done = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def plates(folder: Path) -> Path:
    """A folder of good plates."""
    folder.mkdir()
    for number, plate in enumerate(draw(40, 0, scratched=False)):
        Image.fromarray(plate).save(folder / f"{number}.png")
    return folder


def test_32_pixels_are_enough(tmp_path: Path) -> None:
    good, bundle = plates(tmp_path / "good"), tmp_path / "bundle"
    options = ("--method", "simclr", "--encoder", "tiny_resnet", "--init", "scratch", "--size", SIDE, "--epochs", 2)
    run(pretrain, good, "--out", tmp_path / "run", *options)
    run(export, tmp_path / "run", "--out", bundle, "--precision", "fp32", "--calibration", good)
    run(fit, bundle, good, "--recipe", "plate", "--scorer", "padim", "--false-alarm", 0.05)
    with Detector.load(bundle, recipe="plate") as detector:
        scores = [[detector(plate).score for plate in draw(10, 1, scratched=bad)] for bad in (False, True)]
        # Stride 8: a map of four by four patches.
        assert detector(draw(1, 2, scratched=True)[0]).anomaly_map is not None
    assert max(scores[0]) < min(scores[1])


def test_four_turns_of_each_frame_are_embedded_in_every_precision(tmp_path: Path) -> None:
    good, bundle = plates(tmp_path / "good"), tmp_path / "bundle"
    options = ("--method", "rotation", "--encoder", "tiny_resnet", "--init", "scratch", "--size", SIDE, "--epochs", 2)
    run(pretrain, good, "--out", tmp_path / "run", *options)
    precisions = ("fp32", "fp16", "int8", "int8-cpu")
    asked = ("--precision", ",".join(precisions), "--turns", *LOOSE)
    run(export, tmp_path / "run", "--out", bundle, "--calibration", good, *asked)
    assert Bundle.open(bundle).manifest.precisions == precisions
    for precision in precisions:
        run(fit, bundle, good, "--recipe", "plate", "--scorer", "knn", "--precision", precision, "--false-alarm", 0.05)
        with Detector.load(bundle, recipe="plate") as detector:
            upright = [detector(plate).score for plate in draw(10, 1, scratched=False)]
            lying = [detector(np.rot90(plate).copy()).score for plate in draw(10, 1, scratched=False)]
        assert max(upright) < min(lying), precision


def test_patches_of_two_scales_in_every_precision(tmp_path: Path) -> None:
    good, bundle = plates(tmp_path / "good"), tmp_path / "bundle"
    options = ("--method", "simclr", "--encoder", "tiny_resnet", "--init", "scratch", "--size", SIDE, "--epochs", 0)
    run(pretrain, good, "--out", tmp_path / "run", *options)
    precisions = ("fp32", "fp16", "int8", "int8-cpu")
    asked = ("--precision", ",".join(precisions), "--second-scale", 1.5, *LOOSE)
    run(export, tmp_path / "run", "--out", bundle, "--calibration", good, *asked)
    manifest = Bundle.open(bundle).manifest
    assert manifest.precisions == precisions and manifest.preprocess.height == SIDE * 3 // 2
    for precision in precisions:
        for scorer in ("padim", "patchcore"):
            asked = ("--scorer", scorer, "--precision", precision, "--false-alarm", 0.05)
            run(fit, bundle, good, "--recipe", "plate", *asked)
            with Detector.load(bundle, recipe="plate") as detector:
                scores = [[detector(plate).score for plate in draw(10, 1, scratched=bad)] for bad in (False, True)]
            assert max(scores[0]) < min(scores[1]), (precision, scorer)
