"""The process that fits a taught recipe: python -m ... BUNDLE FOLDER RECIPE OPTIONS, the last FitOptions in JSON.

Prints the share done, a number a line; an error is one line on stderr and exit code 2.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import OrinspectError
from orinspect_edge_runtime.fit import fit_recipe
from orinspect_edge_runtime.fit_options import FitOptions
from orinspect_edge_runtime.preprocess import Frame, list_images, read_frame

# Of the whole progress, as seen with 50 frames: the rest is the fit and its threshold.
FEATURES_SHARE = 0.6


def main(bundle: str, folder: str, name: str, options: str) -> None:
    """Fit and add the recipe to the bundle; the line's own process goes first. One that is replaced keeps its mask."""
    os.nice(10)
    opened, paths = Bundle.open(bundle), list_images([Path(folder)])
    mask = opened.recipe(name).arrays.get("mask") if name in opened.manifest.recipes else None

    def frames() -> Iterator[Frame]:
        for number, path in enumerate(paths):
            yield read_frame(path, opened.manifest.preprocess, number)
            tell(FEATURES_SHARE * (number + 1) / len(paths))

    def fitting(share: float) -> None:
        tell(FEATURES_SHARE + (1 - FEATURES_SHARE) * share)

    chosen = FitOptions(**json.loads(options))
    opened.add_recipe(fit_recipe(opened, frames(), name, chosen, progress=fitting, mask=mask))


def tell(share: float) -> None:
    """One line to the process that waits."""
    print(f"{share:.3f}", flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OrinspectError as error:
        sys.exit(f"{error}")
