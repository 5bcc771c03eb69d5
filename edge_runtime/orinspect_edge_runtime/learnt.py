"""The good images that a bundle's student has learnt from. Their residuals are smaller than those of unseen good images,
so no threshold may rest on them; `fit` knows them again by their pixels at the model's size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import BundleError

FILE = "student.json"
DIGITS = 16


def fingerprint(pixels: NDArray[np.uint8]) -> str:
    """The first DIGITS hex digits of the sha256 of a frame at the model's size, uint8 [height, width, 3]."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()[:DIGITS]


def to_bytes(fingerprints: Iterable[str]) -> bytes:
    """The file of a bundle that lists them."""
    return (json.dumps({"learnt": sorted(fingerprints)}, indent=1) + "\n").encode()


def learnt_images(bundle: Bundle) -> frozenset[str]:
    """Fingerprints of the images that the bundle's student has learnt from; none without a student.

    Raises BundleError when the file is none, though its bytes are those that the manifest lists.
    """
    if FILE not in bundle.manifest.files:
        return frozenset()
    try:
        listed: Any = json.loads(bundle.read(FILE))["learnt"]
        return frozenset(map(str.lower, listed))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{bundle.path / FILE}: not the list that an export writes; export again") from error
