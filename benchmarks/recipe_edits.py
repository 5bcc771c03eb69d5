"""What edits of a recipe cost and do: marked false alarms, a forgotten image, undo, and switching between recipes.

    python benchmarks/recipe_edits.py BUNDLE DATASET            writes benchmarks/results/recipe_edits.json
    python benchmarks/recipe_edits.py BUNDLE DATASET --quick    fewer images; prints only

DATASET as for `orinspect evaluate`. A patchcore recipe is fitted on training images in a copy of BUNDLE; of the good test
images one half (every other one) is shown to a person, who marks every alarm as false; the other half and the defective
images tell what that did to images that nobody marked. Times are [wall, CPU] seconds. Says nothing about a Jetson.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from revision import revision

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.conditions import measure_conditions
from orinspect_edge_runtime.dataset import read_dataset, training_images
from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.fit import fit_recipe
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.preprocess import Frame, read_frame, read_frames
from orinspect_edge_runtime.recipe import Recipe
from orinspect_edge_runtime.recipe_edit import copy_recipe, forget_image, mark_good, undo
from orinspect_edge_runtime.verdict import Verdict

RESULT = Path(__file__).parent / "results/recipe_edits.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--false-alarm", type=float, default=0.1)
    chosen = parser.parse_args()
    fitted_on, tested = (60, 60) if chosen.quick else (200, 200)
    conditions = measure_conditions(0) | {"commit": revision(), "false_alarm": chosen.false_alarm}
    with tempfile.TemporaryDirectory(prefix="orinspect-edits-") as folder:
        shutil.copytree(chosen.bundle, Path(folder) / "bundle")
        bundle = Bundle.open(Path(folder) / "bundle")
        rng, spec = np.random.default_rng(0), bundle.manifest.preprocess
        train = _drawn(rng, training_images(chosen.dataset), fitted_on)
        options = FitOptions(false_alarm=chosen.false_alarm)
        bundle = bundle.add_recipe(fit_recipe(bundle, read_frames(train, spec, []), "edited", options))
        images = read_dataset(chosen.dataset)
        good, bad = ([image.path for image in images if image.is_defective == wrong] for wrong in (False, True))
        frames = [[read_frame(path, spec) for path in _drawn(rng, paths, tested)] for paths in (good, bad)]
        result = {"protocol": __doc__, "conditions": conditions} | measured(bundle, *frames)
    print(json.dumps({key: value for key, value in result.items() if key != "protocol"}, indent=2))
    if not chosen.quick:
        durable.write_bytes(RESULT, json.dumps(result, indent=2).encode() + b"\n")


def measured(bundle: Bundle, good: Sequence[Frame], bad: Sequence[Frame]) -> dict[str, Any]:
    """Alarms and seconds before and after the edits; score_rises must be 0, undone_to_the_byte true."""
    before = bundle.recipe("edited")
    seen, unseen = good[::2], good[1::2]
    with Detector.load(bundle, "edited") as detector:
        first = [[detector(frame) for frame in part] for part in (seen, unseen, bad)]
        alarms = [frame for frame, verdict in zip(seen, first[0], strict=True) if verdict.is_anomalous]
        marks = [_timed(lambda frame=frame: mark_good(bundle, "edited", frame, detector=detector)) for frame in alarms]
        refresh_s = _timed(detector.refresh)[0]
        then = [[detector(frame) for frame in part] for part in (seen, unseen, bad)]
        still = sum(detector(frame).is_anomalous for frame in alarms)
    rises = max(b.score - a.score for x, y in zip(first, then, strict=True) for a, b in zip(x, y, strict=True))
    forget_s, forgotten = _timed(lambda: forget_image(bundle, "edited", before.images[0]))
    undo_s = [_timed(lambda: undo(bundle, "edited"))[0] for _ in range(len(marks) + 1)]
    cold_s = _timed(lambda: mark_good(bundle, "edited", alarms[0] if alarms else bad[0]))[0]
    undo(bundle, "edited")
    return {
        "rows": before.arrays["bank"].shape[1],
        "alarms": {
            name: {"images": len(x), "before": _alarms(x), "after": _alarms(y)}
            for name, x, y in zip(("good, marked", "good, not seen", "defective"), first, then, strict=True)
        },
        "marked_images_that_still_alarm": still,
        "largest_rise_of_a_score": float(rises),
        "rows_added": [edit.rows_added for _, edit in marks],
        "mark_s": [seconds for seconds, _ in marks],
        "refresh_s": refresh_s,
        "mark_with_the_graph_to_open_s": cold_s,
        "forget_s": forget_s,
        "rows_forgotten": forgotten.rows_removed,
        "undo_s": undo_s,
        "undone_to_the_byte": _same_arrays(bundle.now().recipe("edited"), before),
        "switch_s": switched(bundle),
    }


def switched(bundle: Bundle) -> dict[str, float]:
    """Median wall seconds of `use` between two recipes, and of getting one ready."""
    bundle = copy_recipe(bundle, "edited", "other")
    with Detector.load(bundle, "edited", recipes=["other"]) as detector:
        uses = [_timed(lambda name=name: detector.use(name))[0][0] for name in ("other", "edited") * 200]
        prepares = [_timed(lambda: detector.prepare("other"))[0][0] for _ in range(9)]
    return {"use": median(uses), "use_p99": float(np.quantile(uses, 0.99)), "prepare": median(prepares)}


def _alarms(verdicts: Sequence[Verdict]) -> int:
    return sum(verdict.is_anomalous for verdict in verdicts)


def _same_arrays(a: Recipe, b: Recipe) -> bool:
    return all(a.arrays[name].tobytes() == b.arrays[name].tobytes() for name in b.arrays)


def _drawn(rng: np.random.Generator, paths: Sequence[Path], most: int) -> list[Path]:
    return [paths[index] for index in np.sort(rng.permutation(len(paths))[:most])]


def _timed(call: Callable[[], Any]) -> tuple[tuple[float, float], Any]:
    """Wall and CPU seconds of a call, and what it returned."""
    start, start_cpu = time.perf_counter(), time.process_time()
    result = call()
    return (time.perf_counter() - start, time.process_time() - start_cpu), result


if __name__ == "__main__":
    main()
