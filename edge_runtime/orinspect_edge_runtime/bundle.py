"""A bundle on disk: open it verified, read its parts, add recipes to it.

    BUNDLE/manifest.json   see manifest.py
    BUNDLE/graphs/         one ONNX file a head and precision
    BUNDLE/golden.npz      inputs and outputs that every build must reproduce
    BUNDLE/recipes/        one .npz a recipe, named NAME-DIGEST.npz
    BUNDLE/engines/        TensorRT engines of this device, not part of the manifest (each has a passport)

Replacing manifest.json is the one step that publishes a change: whatever is interrupted before it did not happen.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from orinspect_edge_runtime import durable
from orinspect_edge_runtime import manifest as manifests
from orinspect_edge_runtime import recipe as recipes
from orinspect_edge_runtime.errors import BundleError, RecipeError
from orinspect_edge_runtime.manifest import FileEntry, Manifest
from orinspect_edge_runtime.recipe import Recipe

MANIFEST = "manifest.json"
GOLDEN = "golden.npz"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every listed file was hashed when it was opened."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path | str) -> Bundle:
        """Open and verify. Raises BundleError: not a bundle, newer format, a missing file, a changed byte."""
        folder = Path(path)
        bundle = cls(folder, _read_manifest(folder))
        while True:
            try:
                for name in bundle.manifest.files:
                    bundle.read(name)
                return bundle
            except BundleError:
                # A fit that ended just now has published another manifest and removed the recipe it replaced.
                now = cls(folder, _read_manifest(folder))
                if now == bundle:
                    raise
                bundle = now

    def read(self, name: str) -> bytes:
        """Content of a listed file, verified against its sha256 as it is read."""
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleError(f"{self.path}: {name} is not listed in {MANIFEST}; copy the bundle again")
        try:
            content = _inside(self.path, name).read_bytes()
        except OSError as error:
            raise BundleError(f"{self.path / name}: {error.strerror}; copy the bundle again") from error
        if len(content) != entry.bytes or hashlib.sha256(content).hexdigest() != entry.sha256:
            raise BundleError(
                f"{self.path / name}: its bytes differ from what {MANIFEST} promises; copy the bundle again"
            )
        return content

    def recipe(self, name: str | None = None) -> Recipe:
        """The recipe of that name; without a name the only one. Raises RecipeError naming what there is."""
        have = self.manifest.recipes
        if name is None:
            if len(have) != 1:
                known = f"name one of {', '.join(have)} with --recipe" if have else "run  orinspect fit  first"
                raise RecipeError(f"{self.path} has {len(have)} recipes: {known}")
            name = next(iter(have))
        if name not in have:
            raise RecipeError(f"{self.path} has no recipe {name!r} (it has: {', '.join(have) or 'none'})")
        return recipes.from_bytes(self.read(have[name]), str(self.path / have[name]))

    def add_recipe(self, recipe: Recipe) -> Bundle:
        """Store a recipe, replacing one of the same name, and return the bundle as it is then."""
        content = recipes.to_bytes(recipe)
        digest = hashlib.sha256(content).hexdigest()
        name = f"recipes/{recipe.name}-{digest[:12]}.npz"
        with _locked(self.path):
            now = _read_manifest(self.path)
            old = now.recipes.get(recipe.name)
            files = {n: e for n, e in now.files.items() if n != old} | {name: FileEntry(digest, len(content))}
            new = dataclasses.replace(now, files=files, recipes=now.recipes | {recipe.name: name})
            file, replaced = _inside(self.path, name), None if old in (None, name) else _inside(self.path, str(old))
            durable.write_bytes(file, content)
            durable.write_bytes(self.path / MANIFEST, manifests.to_bytes(new))
            if replaced is not None:
                replaced.unlink(missing_ok=True)
        return Bundle(self.path, new)


def _read_manifest(folder: Path) -> Manifest:
    file = folder / MANIFEST
    try:
        content = file.read_bytes()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not folder.exists():
            raise BundleError(
                f"{folder}: no such bundle; make one with  orinspect export RUN --out {folder}"
            ) from error
        raise BundleError(f"{folder}: not a bundle ({file.name}: {error.strerror})") from error
    return manifests.from_bytes(content, str(file))


def _inside(folder: Path, name: str) -> Path:
    """Path of a listed file; links and `..` must not lead out of the bundle."""
    path = folder / name
    parts = PurePosixPath(name)
    try:
        is_inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:
        raise BundleError(f"{folder / MANIFEST}: lists {name!r}, which is no file name") from error
    if parts.is_absolute() or ".." in parts.parts or not is_inside:
        raise BundleError(f"{folder / MANIFEST}: lists {name!r}, which lies outside of the bundle")
    return path


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the bundle against other writers (a second `orinspect fit` waits here)."""
    try:
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise BundleError(f"{folder}: cannot be written ({error.strerror})") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
