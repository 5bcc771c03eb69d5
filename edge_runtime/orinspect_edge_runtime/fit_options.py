"""What a user may choose of a fit, and which choices go together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.alignment import Align
from orinspect_edge_runtime.bank_rule import BankRule
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.scorers import SCORERS, Scorer
from orinspect_edge_runtime.scorers.padim import Padim
from orinspect_edge_runtime.scorers.padim_mahalanobis import PadimMahalanobis
from orinspect_edge_runtime.scorers.patchcore import PatchCore
from orinspect_edge_runtime.threshold import THRESHOLDS, check_false_alarm
from orinspect_edge_runtime.tiling import Tiles, parse_tiles

Floats = NDArray[np.float32]
# Its bank holds patches of all places; other scorers model each place of the model's frame, or the image as a whole.
TILED_SCORER = "patchcore"
PADIM_SCORERS = ("padim", "padim_mahalanobis")
# Options of patchcore alone, as fields of FitOptions: how far a patch is from its bank.
BANK_SCORER, BANK_OPTIONS = "patchcore", ("neighbours", "reweight", "distance", "projection", "components")


@dataclass(frozen=True)
class FitOptions:
    """What a user may choose. groups: kinds of good image to tell apart, 0 to find the number by evidence.

    review_alarm: share of good images that a person may have to look at, those that alarm included; None for no review.
    threshold: how both are found, a name of THRESHOLDS. tiles: `3x2` to see the picture in three columns and two rows of
    tiles of the model's size, which share tile_overlap of a tile; empty to see it as a whole. align: degrees that parts may
    be turned either way, to bring each to the same place first (see alignment.py); None to take pictures as they come. rank:
    of padim's covariances; None for full ones. likelihood_ratio: of padim, weigh differences by what drawn defects change.
    neighbours, reweight, distance: of patchcore, see bank_rule.py; projection, components: of patchcore, see
    scorers/patchcore.py.
    """

    scorer: str = "patchcore"
    precision: str = "fp32"
    false_alarm: float = 0.01
    groups: int = 0
    seed: int = 0
    backend: str = "auto"
    review_alarm: float | None = None
    threshold: str = "conformal"
    tiles: str = ""
    tile_overlap: float = Tiles.overlap
    align: float | None = None
    rank: int | None = None
    likelihood_ratio: bool = False
    neighbours: int = BankRule.neighbours
    reweight: int = BankRule.reweight
    distance: str = BankRule.distance
    projection: str = PatchCore.projection
    components: int | None = PatchCore.components

    def __post_init__(self) -> None:
        if self.align is not None:
            Align(self.align)
        if self.scorer not in SCORERS:
            raise InputError(f"scorer {self.scorer!r} is not known: use one of {', '.join(SCORERS)}")
        if self.threshold not in THRESHOLDS:
            raise InputError(f"threshold {self.threshold!r} is not known: use one of {', '.join(THRESHOLDS)}")
        if self.rank is not None and self.scorer not in PADIM_SCORERS:
            raise InputError(
                f"--rank is of the covariances of {' and '.join(PADIM_SCORERS)}: {self.scorer} has none by place"
            )
        if self.likelihood_ratio and self.scorer not in PADIM_SCORERS:
            raise InputError(f"--likelihood-ratio is of {' and '.join(PADIM_SCORERS)}, not of {self.scorer}")
        self._check_bank_options()
        check_false_alarm(self.false_alarm)
        if self.review_alarm is not None and not self.false_alarm < self.review_alarm < 1:
            raise InputError(f"--review-alarm {self.review_alarm}: a share above --false-alarm and below 1")
        if parse_tiles(self.tiles, self.tile_overlap) is not None:
            if self.scorer != TILED_SCORER:
                raise InputError(
                    f"--tiles needs the scorer {TILED_SCORER}: a patch is compared with those of every place"
                )
            if self.groups > 1:
                raise InputError("--tiles: kinds of good image cannot be told apart tile by tile; leave --groups away")
            if self.reweight:
                raise InputError(
                    "--reweight weighs a picture by its one farthest patch; --tiles by tile: leave one away"
                )

    def _check_bank_options(self) -> None:
        given = [name for name in BANK_OPTIONS if getattr(self, name) != getattr(FitOptions, name)]
        if given and self.scorer != BANK_SCORER:
            raise InputError(f"--{given[0]} is of the memory bank of the scorer {BANK_SCORER}: {self.scorer} has none")
        self.chosen_scorer()

    def check_growing(self) -> None:
        """Raise InputError when more images than are held in memory cannot enter the bank."""
        if self.reweight:
            raise InputError(
                "--reweight: a row more can raise a score, so --in-memory could promise nothing; leave one away"
            )

    def chosen_scorer(self, changes: Floats | None = None) -> Scorer:
        """The scorer with its options. changes: of drawn_defects.py, for likelihood_ratio."""
        if self.scorer in PADIM_SCORERS:
            kind = Padim if self.scorer == Padim.name else PadimMahalanobis
            return kind(self.rank, changes=changes if self.likelihood_ratio else None)
        if self.scorer != BANK_SCORER:
            return SCORERS[self.scorer]
        rule = BankRule(self.neighbours, self.reweight, self.distance)
        return PatchCore(rule, self.projection, self.components)
