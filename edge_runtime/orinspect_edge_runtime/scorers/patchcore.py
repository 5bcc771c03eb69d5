"""PatchCore (Roth et al. 2022, arXiv 2106.08265): distance to the nearest patches of good images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.bank_rule import GRAPHS_RULE, BankRule, in_space
from orinspect_edge_runtime.coreset import greedy_k_centre
from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.groups import members
from orinspect_edge_runtime.heads import OTHER_GROUP_PENALTY
from orinspect_edge_runtime.whitening import Whitening, fit_whitening

Floats = NDArray[np.float32]
Arrays = dict[str, NDArray[Any]]
# Images whitened at a time, and bytes of the product of queries and bank at a time.
CHUNK_IMAGES = 64
CHUNK_BYTES = 16 << 20
# What patches are multiplied by, and the kind of whitening that is.
PROJECTIONS = {"whitened": "zca", "none": "none"}


@dataclass(frozen=True)
class PatchCore:
    """One projection for all groups; a bank of the most different patches of each group.

    rule: how distances are measured (bank_rule.py). projection: `whitened`, or `none` for patches as the encoder gives them.
    components: directions of the largest variance that a patch is reduced to, None for all. subsample: patches of a group,
    drawn at random, that the bank is picked from; coreset: share of them that it keeps, at least `fewest_rows` if there are
    as many. Memory beside the patches given: 4 bytes x subsample x D (36 MB at 152) and the coreset's own, twice the bank,
    and CHUNK_BYTES.
    """

    rule: BankRule = GRAPHS_RULE
    projection: str = "whitened"
    components: int | None = None
    subsample: int = 60_000
    coreset: float = 0.05
    fewest_rows: int = 400
    name: ClassVar[str] = "patchcore"
    head: ClassVar[str] = "patchcore"
    has_map: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.projection not in PROJECTIONS:
            raise InputError(f"--projection {self.projection} is not known: use one of {', '.join(PROJECTIONS)}")

    def fit(
        self,
        embeddings: Floats,
        patches: Floats,
        groups: NDArray[Any],
        n_groups: int,
        *,
        seed: int = 0,
        progress: Callable[[float], None] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """`patch_mean` [D], `patch_projection` [D, D], `bank` [D + 1 + G, M], all float32, and some that no graph takes.

        `bank_origin`, int32 [M, 2]: image number and patch number of each row. `bank_radius`, float32 [G]: the largest
        distance of a group's patch, of those the rows were picked from, to its nearest row when it was fitted. `bank_rule`
        of a rule that is not the graph's. Rows are ordered by group and, within one, so that any prefix is the best
        smaller bank. Raises InputError for patches whose groups the graph could not keep apart, as no whitened ones are.
        """
        whitening = self._projection(patches)
        rng = np.random.default_rng(seed)
        rows, origins, owners, radii = [], [], [], []
        for group in range(n_groups):
            origin = self._subsample(members(groups, group), patches.shape[1], rng)
            chosen = self.rule.placed(whitening(patches[origin[:, 0], origin[:, 1]]))
            count = min(len(chosen), max(self.fewest_rows, round(self.coreset * len(chosen))))
            picked = greedy_k_centre(chosen, count, seed=seed, progress=_part(progress, group, n_groups))
            rows.append(chosen[picked.indices])
            origins.append(origin[picked.indices])
            radii.append(picked.radius)
            owners.append(np.full(count, group))
        _check_reach(rows)
        bank = bank_columns(np.concatenate(rows), np.concatenate(owners), n_groups)
        return {
            "patch_mean": whitening.mean,
            "patch_projection": whitening.projection,
            "bank": bank,
            "bank_origin": np.concatenate(origins).astype(np.int32),
            "bank_radius": self.rule.measured(np.array(radii, np.float32)),
            **self.rule.arrays(),
        }

    def _projection(self, patches: Floats) -> Whitening:
        found = fit_whitening(_chunks(patches), kind=PROJECTIONS[self.projection], components=self.components)
        # The cosine of patches as they are: seen from the origin, not from their mean.
        is_plain_cosine = self.projection == "none" and self.rule.distance == "cosine"
        return replace(found, mean=np.zeros_like(found.mean)) if is_plain_cosine else found

    def _subsample(self, images: NDArray[np.intp], positions: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """[n, 2]: image and patch of the patches drawn from the images of a group."""
        total = len(images) * positions
        drawn = np.sort(rng.choice(total, min(self.subsample, total), replace=False))
        return np.stack([images[drawn // positions], drawn % positions], axis=1)

    def raw_scores(
        self, arrays: dict[str, NDArray[Any]], embeddings: Floats, patches: Floats, groups: NDArray[Any]
    ) -> tuple[Floats, Floats | None]:
        """Largest patch distance float32 [N], and all of them float32 [N, P], by the rule of the arrays.

        Of patches that are not `inspected` none is an image's farthest, by which others are weighed.
        """
        find = _by_the_graphs_rule if BankRule.of(arrays).in_graph else _by_another_rule
        distances = find(arrays, patches, np.asarray(groups))
        return distances.max(axis=1), distances


def _by_the_graphs_rule(arrays: Arrays, patches: Floats, groups: NDArray[Any]) -> Floats:
    """Distances float32 [N, P]."""
    bank, distances = arrays["bank"], np.empty(patches.shape[:2], np.float32)
    marks = np.eye(len(bank) - patches.shape[2] - 1, dtype=np.float32)
    step = _images_at_once(bank.shape[1], patches)
    for begin in range(0, len(patches), step):
        images = slice(begin, begin + step)
        distances[images] = nearest_distances(in_space(arrays, patches[images]), marks[groups[images]], bank)
    return distances


def _by_another_rule(arrays: Arrays, patches: Floats, groups: NDArray[Any]) -> Floats:
    """As `_by_the_graphs_rule`, group by group."""
    rule, distances = BankRule.of(arrays), np.empty(patches.shape[:2], np.float32)
    counted = np.flatnonzero(arrays.get("inspected", np.ones(patches.shape[1], bool)))
    for group in np.unique(groups):
        rows, own = rows_of(arrays["bank"], patches.shape[2], group), np.flatnonzero(groups == group)
        step = _images_at_once(len(rows), patches)
        for images in (own[begin : begin + step] for begin in range(0, len(own), step)):
            placed = in_space(arrays, patches[images])
            flat = rule.nearest(placed.reshape(-1, placed.shape[2]), rows).mean(axis=1)
            distances[images] = flat.reshape(len(images), -1)
            for image, one in zip(images, placed, strict=True):
                farthest = counted[distances[image, counted].argmax()]
                distances[image] *= rule.factor(one[farthest], rows)
    return distances


def _images_at_once(rows: int, patches: Floats) -> int:
    return max(1, CHUNK_BYTES // (4 * rows * int(patches.shape[1])))


def _check_reach(rows_by_group: list[Floats]) -> None:
    """Raises InputError when rows of another group could come into reach of a patch four times as long as any row."""
    longest = max(float(np.einsum("md,md->m", rows, rows).max()) for rows in rows_by_group)
    if len(rows_by_group) > 1 and 16 * longest > OTHER_GROUP_PENALTY:
        raise InputError(
            "--projection none: this encoder's patches are too long for kinds of good image; use --groups 1"
        )


def rows_of(bank: Floats, dim: int, group: int) -> Floats:
    """The rows float32 [M, D] of a group; a view of the bank where they lie together, as `fit` and every edit leave them."""
    own = bank[dim + 1 + group] == 0
    first, last = np.flatnonzero(own)[[0, -1]]
    together = slice(first, last + 1)
    rows: Floats = bank[:dim, together].T if own[together].all() else bank[:dim, own].T
    return rows


def nearest_distances(whitened: Floats, onehot: Floats, bank: Floats) -> Floats:
    """Distance of whitened patches [N, P, D] to the nearest row of their image's group: the formula of the graph."""
    count, positions, _ = whitened.shape
    ones = np.ones((count, positions, 1), np.float32)
    marks = np.broadcast_to(onehot[:, None], (count, positions, onehot.shape[1]))
    best = (np.concatenate([2 * whitened, ones, marks], axis=2) @ bank).max(axis=2)
    squared = np.einsum("npd,npd->np", whitened, whitened)
    distances: Floats = np.sqrt(np.maximum(squared - best, 0))
    return distances


def bank_columns(rows: Floats, owners: NDArray[Any], n_groups: int) -> Floats:
    """The bank as the graph takes it, float32 [D + 1 + G, M], of whitened rows [M, D] and their groups [M].

    In memory and in a recipe's file a column's numbers lie side by side: searching reads whole columns.
    """
    norms = np.einsum("md,md->m", rows, rows)
    other = owners[:, None] != np.arange(n_groups)
    penalties = np.where(other, np.float32(-OTHER_GROUP_PENALTY), np.float32(0))
    bank: Floats = np.concatenate([rows, -norms[:, None], penalties], axis=1, dtype=np.float32).T
    return bank


def options_of(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """How a recipe's bank was fitted, by the names of FitOptions; empty when it has none. Of images that are all alike the
    projection is `none`: nothing could be whitened.
    """
    if "bank" not in arrays:
        return {}
    projection = arrays["patch_projection"].astype(np.float64)
    # Directions that are left out keep a trace of float32's rounding; those that are kept are 1 to EIGENVALUE_FLOOR^-1/2.
    rank = int(np.linalg.matrix_rank(projection, tol=1e-4 * np.linalg.norm(projection, 2)))
    is_projector = np.allclose(projection @ projection, projection, atol=1e-4)
    return vars(BankRule.of(arrays)) | {
        "projection": "none" if is_projector else "whitened",
        "components": rank if rank < len(projection) else None,
    }


def told_options(arrays: Mapping[str, NDArray[Any]]) -> str:
    """What of these options is not the default, for people: `neighbours 3, distance cosine`."""
    usual = vars(GRAPHS_RULE) | {"projection": PatchCore.projection, "components": PatchCore.components}
    return ", ".join(f"{name} {value}" for name, value in options_of(arrays).items() if value != usual[name])


def _chunks(patches: Floats) -> Iterator[Floats]:
    for begin in range(0, len(patches), CHUNK_IMAGES):
        yield patches[begin : begin + CHUNK_IMAGES].reshape(-1, patches.shape[2])


def _part(progress: Callable[[float], None] | None, group: int, n_groups: int) -> Callable[[float], None] | None:
    """Progress of one group as a part of the whole."""
    if progress is None:
        return None
    return lambda share: progress((group + share) / n_groups)
