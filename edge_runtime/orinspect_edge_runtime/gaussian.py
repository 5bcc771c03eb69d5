"""Gaussians fitted to few vectors of many dimensions: Mahalanobis distances that do not blow up."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def precision_factor(covariance: NDArray[Any], shrinkage: float) -> Floats:
    """Factor F, float32 [..., D, D], with F F^T the inverse of the shrunk covariance: |(x - mean) @ F| is the distance.

    covariance: [..., D, D]. It is shrunk to (1 - s) C + s v I, v its mean variance: the form of Ledoit & Wolf (2004,
    doi 10.1016/S0047-259X(03)00096-4) with s in 0..1 given. Vectors that never vary give plain distances.
    """
    dim = covariance.shape[-1]
    variance = np.trace(covariance, axis1=-2, axis2=-1)[..., None, None].astype(np.float64) / dim
    variance = np.where(variance > 0, variance, 1.0)
    # The floor keeps the factorisation possible when s is 0 or rounding made a variance negative.
    shrunk = (1 - shrinkage) * covariance + (shrinkage + 1e-6) * variance * np.eye(dim)
    lower = np.linalg.inv(np.linalg.cholesky(shrunk))
    return np.swapaxes(lower, -1, -2).astype(np.float32)
