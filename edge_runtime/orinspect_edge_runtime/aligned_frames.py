"""Frames with the part in one place: learnt from the first good ones, and how any other is brought there."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace

from orinspect_edge_runtime.alignment import REFERENCE_PICTURES, Align, Aligner, Pose, make_reference, without_bars
from orinspect_edge_runtime.preprocess import Frame, Pixels, PreprocessSpec


def with_placing(
    frames: Iterable[Frame], degrees: float | None, spec: PreprocessSpec
) -> tuple[Iterable[Frame], Aligner | None]:
    """All the frames again, and what brings parts to the place that the first of them have; None without degrees.

    Of the first ones only what the model can see is held. Raises InputError when nothing can be seen in them.
    """
    if degrees is None:
        return frames, None
    rest = iter(frames)
    first = [
        replace(frame, pixels=without_bars(frame.pixels, spec)) for frame in itertools.islice(rest, REFERENCE_PICTURES)
    ]
    if not first:
        return first, None
    align = Align(degrees)
    reference = make_reference(align, [frame.pixels for frame in first])
    return itertools.chain(first, rest), Aligner(align, reference)


def in_place(frame: Frame, aligner: Aligner | None, spec: PreprocessSpec) -> tuple[Pixels, Pose | None]:
    """The frame's pixels with the part in its place (Aligner.placed), and how it lay; without an aligner as they are."""
    if aligner is None:
        return frame.pixels, None
    pose = aligner.pose(frame.pixels)
    return aligner.placed(frame.pixels, pose, spec), pose
