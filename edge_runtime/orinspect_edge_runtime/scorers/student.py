"""Student-teacher: how far the encoder's patch features are from what a small network foretells of them.

After Bergmann et al. 2020 (arXiv 1911.02357) and EfficientAD (Batzner et al. 2023, arXiv 2303.14535). The student was
trained on good images (`orinspect student`) and lies in the graph, whose patches are therefore residuals: teacher less
student, in standard deviations of the teacher. What a good surface may look like is explained by then; here is only
learnt how large the rest of it is, by place.

Those papers take the mean of the squared residuals. A Gaussian at each place instead knows which residuals are usual,
and that patches at the rim have larger ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from orinspect_edge_runtime.heads import STUDENT
from orinspect_edge_runtime.scorers.padim import Padim


@dataclass(frozen=True)
class Student(Padim):
    """Padim on the residuals that a graph with the head `student` gives as its patches."""

    name: ClassVar[str] = "student"
    head: ClassVar[str] = STUDENT
