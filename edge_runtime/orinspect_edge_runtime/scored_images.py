"""Results of many images, as columns: a million rows of Python objects would take more memory than all else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.labelled import LabelledImage


@dataclass(frozen=True)
class ScoredImage:
    """One image's result. `image` is the file's path as given."""

    image: str
    kind: str
    is_defective: bool
    score: float
    is_anomalous: bool
    group: int


@dataclass(frozen=True, eq=False)
class ScoredImages(Sequence[ScoredImage]):
    """Row n is the result of labelled[place[n]]. score: float64, is_anomalous: bool, group: int32, place: int, each [N]."""

    labelled: Sequence[LabelledImage]
    place: NDArray[np.intp]
    score: NDArray[np.float64]
    is_anomalous: NDArray[np.bool_]
    group: NDArray[np.int32]

    @classmethod
    def of(cls, rows: Iterable[ScoredImage]) -> ScoredImages:
        """Columns of rows at hand."""
        rows = list(rows)
        return cls(
            [LabelledImage(Path(row.image), row.kind, row.is_defective) for row in rows],
            np.arange(len(rows)),
            np.array([row.score for row in rows], np.float64),
            np.array([row.is_anomalous for row in rows], bool),
            np.array([row.group for row in rows], np.int32),
        )

    @property
    def is_defective(self) -> NDArray[np.bool_]:
        """bool [N]."""
        return np.fromiter((one.is_defective for one in self._each()), bool, len(self))

    def defects(self) -> dict[str, NDArray[np.intp]]:
        """Rows of each kind of defect."""
        rows: dict[str, list[int]] = {}
        for number, one in enumerate(self._each()):
            if one.is_defective:
                rows.setdefault(one.kind, []).append(number)
        return {kind: np.array(numbers, np.intp) for kind, numbers in rows.items()}

    def _each(self) -> Iterator[LabelledImage]:
        return (self.labelled[place] for place in self.place)

    def __len__(self) -> int:
        return len(self.place)

    @overload
    def __getitem__(self, number: int) -> ScoredImage: ...

    @overload
    def __getitem__(self, number: slice) -> ScoredImages: ...

    def __getitem__(self, number: int | slice) -> ScoredImage | ScoredImages:
        if isinstance(number, slice):
            place, score, is_anomalous, group = self.place, self.score, self.is_anomalous, self.group
            return ScoredImages(self.labelled, place[number], score[number], is_anomalous[number], group[number])
        image = self.labelled[self.place[number]]
        score, is_anomalous, group = self.score[number], self.is_anomalous[number], self.group[number]
        return ScoredImage(
            str(image.path), image.kind, image.is_defective, float(score), bool(is_anomalous), int(group)
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScoredImages) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]
