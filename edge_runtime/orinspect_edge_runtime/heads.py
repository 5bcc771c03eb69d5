"""The heads a graph can be fused with: which extra inputs each takes, and what they hold.

Every graph takes `frames`, uint8 [batch, height, width, 3] (RGB, the model's size), and gives

    score        float32 [batch]                 largest patch distance, normalised for the image's group
    anomaly_map  float32 [batch, height, width]  the same scale, upsampled and smoothed
    embedding    float32 [batch, embedding_dim]  mean, maximum and standard deviation of the last stage
    patches      float32 [batch, P, patch_dim]   P = rows x columns of the grid, before any projection; out of a graph
                                                 with the head `student` what a student does not explain of them

The head's inputs are a recipe's arrays: they stay on the device, so a new part or another recipe needs no new engine.
G is the number of groups (kinds of good image that the recipe tells apart), M the rows of the memory bank.

patchcore (Roth et al. 2022, arXiv 2106.08265), on whitened patches z = (x - mean) @ projection:
    min over rows m of |z - b_m|^2, as the product of [2z, 1, onehot(group)] with the columns of `bank`, which are
    [b_m; -|b_m|^2; -penalty(group, m)]: rows of another group are out of reach, at no extra cost. Recipes with another rule
    (bank_rule.py) only take the patches from the graph.
padim (Defard et al. 2020, arXiv 2011.08785), on projected patches, c = x_p @ projection - mean[g, p]:
    sqrt |scale[g, p] |c|^2 - |c @ factor[g, p]|^2| with one Gaussian of `projected_dim` dimensions for each position and
    group. Full: scale 0, and a factor of as many columns as dimensions. Low-rank: a scale, and few columns.
student (after Bergmann et al. 2020, arXiv 1911.02357): padim on the residuals, each patch feature less what a small
    network inside the graph, trained on good images, foretells of it. Only bundles of a run with a student have it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.manifest import EncoderSpec, TensorSpec

# What every bundle has.
HEADS = ("patchcore", "padim")
STUDENT = "student"
# Whose operators and inputs each head has; they differ in the patches that they are given.
DISTANCES = {"patchcore": "patchcore", "padim": "padim", STUDENT: "padim"}
# Far beyond any squared distance between whitened patches; distances are always computed in float32.
OTHER_GROUP_PENALTY = 1e6
# Most dimensions of PaDiM's Gaussians: a factor holds the square of them for every position and group. 256 of them are
# 38 MB a group at 144 positions; all 1,536 of a ResNet-50's patches would be 1.4 GB.
MOST_PROJECTED = 256
# Standard deviation of the map's smoothing, in patches: 4 pixels at stride 16. Hides the seams of the upsampling only.
SMOOTHING_PATCHES = 0.25


def projected_dim(patch_dim: int) -> int:
    """Dimensions R of the projected patches of the padim head."""
    return min(patch_dim, MOST_PROJECTED)


def covariance_dim(inputs: Sequence[TensorSpec]) -> int | None:
    """Dimensions of the Gaussians that a graph with these inputs takes, as many as a full factor has columns; None for a
    head without Gaussians."""
    return next((int(tensor.shape[2]) for tensor in inputs if tensor.name == "patch_factors"), None)


def head_inputs(head: str, encoder: EncoderSpec) -> tuple[TensorSpec, ...]:
    """The inputs of a head, `frames` not among them. All are float32."""
    positions, dim = encoder.grid[0] * encoder.grid[1], encoder.patch_dim
    shapes: dict[str, tuple[int | str, ...]] = {
        "group_mean": (encoder.embedding_dim,),
        "group_projection": (encoder.embedding_dim, "groups"),
        "group_bias": ("groups",),
        "score_offset": ("groups",),
        "score_scale": ("groups",),
    }
    if head not in DISTANCES:
        raise ValueError(f"unknown head {head!r}")
    if DISTANCES[head] == "patchcore":
        shapes |= {"patch_mean": (dim,), "patch_projection": (dim, dim), "bank": (f"{dim + 1}+groups", "bank_rows")}
    else:
        kept = projected_dim(dim)
        shapes |= {
            "patch_projection": (dim, kept),
            "patch_means": ("groups", positions, kept),
            "patch_factors": ("groups", positions, kept, "factor_columns"),
            "patch_scales": ("groups", positions),
        }
    return tuple(TensorSpec(name, "float32", shape) for name, shape in shapes.items())


def neutral_inputs(head: str, encoder: EncoderSpec) -> dict[str, NDArray[np.float32]]:
    """Head inputs of the smallest shape, all zero but a scale of one: they run a graph that has no recipe yet."""
    return neutral_arrays(head_inputs(head, encoder))


def neutral_arrays(inputs: Sequence[TensorSpec]) -> dict[str, NDArray[np.float32]]:
    """As `neutral_inputs`, for the inputs of a graph at hand, `frames` not among them: older ones lack some."""
    arrays = {spec.name: np.zeros([_smallest(d) for d in spec.shape], np.float32) for spec in inputs}
    arrays["score_scale"][:] = 1.0
    return arrays


def _smallest(dimension: int | str) -> int:
    """Of a dimension: a number, or a free one, such as `groups` or `153+groups`."""
    return dimension if isinstance(dimension, int) else int(dimension.rpartition("+")[0] or 0) + 1


def axis_filter(patches: int, pixels: int) -> NDArray[np.float32]:
    """Upsampling and smoothing along one axis as one matrix, float32 [pixels, patches], rows summing to 1.

    Linear interpolation between the patches' centres, then a Gaussian with the edge pixels repeated outwards. Both act
    on each axis by itself, so map = rows @ grid @ columns.T: no resize, padding or convolution is left in the graph.
    """
    place = np.clip((np.arange(pixels) + 0.5) * patches / pixels - 0.5, 0, patches - 1)
    low = np.minimum(place.astype(int), max(patches - 2, 0))
    high, share = np.minimum(low + 1, patches - 1), place - low
    linear = np.zeros((pixels, patches))
    np.add.at(linear, (np.arange(pixels), low), 1 - share)
    np.add.at(linear, (np.arange(pixels), high), share)
    sigma = SMOOTHING_PATCHES * pixels / patches
    reach = max(1, int(np.ceil(3 * sigma)))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(linear, ((reach, reach), (0, 0)), mode="edge")
    smooth = sum(w * padded[k : k + pixels] for k, w in enumerate(kernel / kernel.sum()))
    return np.asarray(smooth, np.float32)
