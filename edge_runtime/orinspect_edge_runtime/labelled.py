"""An image whose kind is known, as datasets on disk tell it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image file, its kind, whether that kind is a defect, and the files whose marked pixels are its defects."""

    path: Path
    kind: str
    is_defective: bool
    masks: tuple[Path, ...] = ()
