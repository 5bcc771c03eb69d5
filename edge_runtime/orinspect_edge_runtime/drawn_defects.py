"""What defects change in a patch feature: measured by the export, on defects that it draws on its images, and kept.

`fit --likelihood-ratio` counts how far a patch is from the good ones along these directions.
"""

from __future__ import annotations

import struct
import zipfile

import numpy as np
from numpy.typing import NDArray

from orinspect_edge_runtime import array_file
from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import BundleError, InputError

FILE = "drawn_defects.npz"
Floats = NDArray[np.float32]


def to_bytes(changes: Floats) -> bytes:
    """The file of a bundle. changes: float32 [D, D], see `defect_changes`."""
    return array_file.to_bytes({"changes": changes})


def defect_changes(bundle: Bundle) -> Floats:
    """Mean outer product of the changes of patch features that drawn defects touch, float32 [D, D].

    Raises InputError for a bundle that has none or an encoder that sees none of them, BundleError when the file is not what
    an export writes though its bytes are those that the manifest lists.
    """
    if FILE not in bundle.manifest.files:
        raise InputError(f"{bundle.path}: --likelihood-ratio needs what this bundle does not hold yet: export it again")
    dim = bundle.manifest.encoder.patch_dim
    try:
        changes = np.asarray(array_file.from_bytes(bundle.read(FILE))["changes"], np.float32)
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile, struct.error) as error:
        raise BundleError(f"{bundle.path / FILE}: not the matrix that an export writes; export again") from error
    if changes.shape != (dim, dim) or not np.isfinite(changes).all():
        raise BundleError(f"{bundle.path / FILE}: not the matrix that an export writes; export again")
    if not changes.any():
        raise InputError(
            f"{bundle.path}: --likelihood-ratio: this encoder saw none of the defects that the export drew; leave it away"
        )
    return changes
