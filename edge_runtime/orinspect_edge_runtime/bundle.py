"""A bundle on disk: open it verified, read its parts, add recipes to it.

    BUNDLE/manifest.json   see manifest.py
    BUNDLE/graphs/         one ONNX file a head and precision
    BUNDLE/student.json    what a student in the graphs has learnt from (learnt.py); most bundles have none
    BUNDLE/golden.npz      inputs and outputs that every build must reproduce
    BUNDLE/recipes/        one .npz a recipe, named NAME-DIGEST.npz, and the versions before its edits
    BUNDLE/engines/        TensorRT engines of this device, not part of the manifest (each has a passport)

Replacing manifest.json is the one step that publishes a change: whatever is interrupted before it did not happen.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

from orinspect_edge_runtime import durable
from orinspect_edge_runtime import manifest as manifests
from orinspect_edge_runtime import recipe as recipes
from orinspect_edge_runtime.errors import BundleError, RecipeError
from orinspect_edge_runtime.manifest import FileEntry, Manifest
from orinspect_edge_runtime.recipe import Recipe

MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
# Of a recipe's earlier versions so much is kept: twenty and more with a small memory bank.
UNDO_BYTES = 32 << 20
BLOCK_BYTES = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True)
class Bundle:
    """A bundle. `open` hashes every listed file, `with_recipe` what it reads; `read` verifies in any case."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path | str) -> Bundle:
        """Open and verify. Raises BundleError: not a bundle, newer format, a missing file, a changed byte."""
        return _steady(Path(path), Bundle._verify)[0]

    @classmethod
    def with_recipe(cls, path: Path | str, name: str | None = None) -> tuple[Bundle, Recipe]:
        """A bundle and a recipe of it, without hashing files that are not read. Raises as `open` and `recipe`."""
        return _steady(Path(path), lambda bundle: bundle.recipe(name))

    def read(self, name: str) -> bytes:
        """Content of a listed file, verified against its sha256 as it is read."""
        with self._opened(name) as file:
            content = file.read()
        self._compare(name, len(content), hashlib.sha256(content).hexdigest())
        return content

    def _verify(self) -> None:
        """Hash every listed file, without holding one."""
        for name in self.manifest.files:
            digest, size = hashlib.sha256(), 0
            with self._opened(name) as file:
                while block := file.read(BLOCK_BYTES):
                    digest.update(block)
                    size += len(block)
            self._compare(name, size, digest.hexdigest())

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        if name not in self.manifest.files:
            raise BundleError(f"{self.path}: {name} is not listed in {MANIFEST}; copy the bundle again")
        try:
            with _inside(self.path, name).open("rb") as file:
                yield file
        except OSError as error:
            raise BundleError(f"{self.path / name}: {error.strerror}; copy the bundle again") from error

    def _compare(self, name: str, size: int, sha256: str) -> None:
        if FileEntry(sha256, size) != self.manifest.files[name]:
            raise BundleError(
                f"{self.path / name}: its bytes differ from what {MANIFEST} promises; copy the bundle again"
            )

    def recipe(self, name: str | None = None) -> Recipe:
        """The recipe of that name; without a name the only one. Raises RecipeError naming what there is."""
        file = self.recipe_file(name)
        return recipes.from_bytes(self.read(file), str(self.path / file))

    def recipe_file(self, name: str | None = None) -> str:
        """The file of a recipe, a key of manifest.files. Raises RecipeError naming what there is."""
        have = self.manifest.recipes
        if name is None:
            if len(have) != 1:
                known = f"name one of {', '.join(have)} with --recipe" if have else "run  orinspect fit  first"
                raise RecipeError(f"{self.path} has {len(have)} recipes: {known}")
            name = next(iter(have))
        if name not in have:
            raise RecipeError(f"{self.path} has no recipe {name!r} (it has: {', '.join(have) or 'none'})")
        return have[name]

    def now(self) -> Bundle:
        """The bundle as its manifest is at this moment; its files are verified when they are read."""
        return Bundle(self.path, _read_manifest(self.path))

    def add_recipe(self, recipe: Recipe, *, replace: bool = True) -> Bundle:
        """Store a recipe, replacing one of the same name and its history; return the bundle as it is then.

        Raises RecipeError when there is one of that name and `replace` is False.
        """
        with _locked(self.path):
            now = self.now()
            if not replace and recipe.name in now.manifest.recipes:
                raise RecipeError(f"{self.path} has a recipe {recipe.name!r} already: choose another name or remove it")
            return now._publish(recipe)

    def change_recipe(self, name: str | None, change: Callable[[Bundle, Recipe, str], Recipe]) -> Bundle:
        """Replace a recipe by `change(bundle, recipe, its file)`, while no other process can write.

        The versions that the recipe's edits name are kept for undo, the newest UNDO_BYTES of them.
        """
        with _locked(self.path):
            now = self.now()
            return now._publish(change(now, now.recipe(name), now.recipe_file(name)))

    def remove_recipe(self, name: str) -> Bundle:
        """Remove a recipe and its history. Raises RecipeError naming what there is."""
        with _locked(self.path):
            now = self.now()
            file = now.recipe_file(name)
            others = {n: f for n, f in now.manifest.recipes.items() if n != name}
            return now._replace_manifest(now._versions(name) | {file}, {}, others)

    def _publish(self, recipe: Recipe) -> Bundle:
        content = recipes.to_bytes(recipe)
        digest = hashlib.sha256(content).hexdigest()
        name = f"recipes/{recipe.name}-{digest[:12]}.npz"
        old = {self.manifest.recipes[recipe.name]} if recipe.name in self.manifest.recipes else set()
        gone = (self._versions(recipe.name) | old) - self._kept(recipe) - {name}
        file = _inside(self.path, name)
        for other in gone:
            _inside(self.path, other)
        durable.write_bytes(file, content)
        return self._replace_manifest(
            gone, {name: FileEntry(digest, len(content))}, self.manifest.recipes | {recipe.name: name}
        )

    def _replace_manifest(self, gone: set[str], new: dict[str, FileEntry], listed: dict[str, str]) -> Bundle:
        """The step that publishes; only then the files that are not listed any more are removed."""
        files = {name: entry for name, entry in self.manifest.files.items() if name not in gone} | new
        manifest = dataclasses.replace(self.manifest, files=files, recipes=listed)
        paths = [_inside(self.path, name) for name in gone]
        durable.write_bytes(self.path / MANIFEST, manifests.to_bytes(manifest))
        for path in paths:
            path.unlink(missing_ok=True)
        return Bundle(self.path, manifest)

    def _versions(self, recipe: str) -> set[str]:
        """All files of a recipe, the ones kept for undo as well."""
        pattern = re.compile(rf"recipes/{re.escape(recipe)}-[0-9a-f]{{12}}\.npz")
        return {name for name in self.manifest.files if pattern.fullmatch(name)}

    def _kept(self, recipe: Recipe) -> set[str]:
        """The files that undo goes back to, the last one in any case."""
        kept: list[str] = []
        size = 0
        for edit in reversed(recipes.in_force(recipe.edits)):
            if edit.before not in self.manifest.files:
                break
            size += self.manifest.files[edit.before].bytes
            if kept and size > UNDO_BYTES:
                break
            kept.append(edit.before)
        return set(kept)


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


def _steady(folder: Path, read: Callable[[Bundle], T]) -> tuple[Bundle, T]:
    """A bundle and what `read` makes of it."""
    bundle = Bundle(folder, _read_manifest(folder))
    while True:
        try:
            return bundle, read(bundle)
        except BundleError:
            # A fit that ended just now has published another manifest and removed the recipe it replaced.
            now = Bundle(folder, _read_manifest(folder))
            if now == bundle:
                raise
            bundle = now


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
