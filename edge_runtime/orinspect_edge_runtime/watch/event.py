"""What watch says of one frame: the verdict as sinks get it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orinspect_edge_runtime.preprocess import Pixels

# Beside the outcomes of a verdict: the frame could not be read or judged.
FAILED = "failed"
# Not of a frame but of the line: something is wrong (a black camera, drift), or well again.
ALARM, CLEAR = "alarm", "clear"
THUMBNAIL_SIDE = 192


@dataclass(frozen=True)
class Event:
    """One frame's verdict. id: unique, the same in every sink and in every repetition.

    captured_at, judged_at: seconds since the epoch. outcome: accept, review, reject or failed; alarm or clear are not of
    a frame: `error` tells of what. latency_ms: from the slot to the verdict. recipe_sha256, graph_sha256: of the files
    that judged. triggered_at, trigger: when and by what the frame was asked for. picture, anomaly_map: uint8 thumbnail,
    and every second value of the map, of what was not accepted.
    """

    id: str
    captured_at: float
    judged_at: float
    source: str
    index: int
    outcome: str
    score: float | None
    threshold: float
    latency_ms: float
    recipe: str
    recipe_sha256: str
    graph_sha256: str
    error: str = ""
    triggered_at: float | None = None
    trigger: str = ""
    picture: Pixels | None = field(default=None, compare=False, repr=False)
    anomaly_map: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)

    def to_json(self) -> str:
        """One line, without the pictures."""
        names = [f.name for f in dataclasses.fields(self) if f.name not in ("picture", "anomaly_map")]
        return json.dumps({name: getattr(self, name) for name in names}, allow_nan=False)


def thumbnail(pixels: Pixels) -> Image.Image:
    """At most THUMBNAIL_SIDE pixels a side, by a whole number: means over squares, a tenth of a finer filter's time."""
    image = Image.fromarray(pixels)
    return image.reduce(-(-max(image.size) // THUMBNAIL_SIDE))
