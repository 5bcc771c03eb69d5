"""Bundles on disk: every byte is verified, nothing outside is touched, and a recipe is added whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orinspect_edge_runtime import manifest as manifests
from orinspect_edge_runtime.bundle import GOLDEN, MANIFEST, Bundle
from orinspect_edge_runtime.errors import BundleError, RecipeError
from orinspect_edge_runtime.manifest import FileEntry
from orinspect_edge_runtime.recipe import Recipe

MakeRecipe = Callable[..., Recipe]
MakeBundle = Callable[..., Bundle]
EMPTY = FileEntry("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 0)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def refused(path: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_open_and_read(fake_bundle: Bundle) -> None:
    opened = Bundle.open(str(fake_bundle.path))
    assert opened == fake_bundle
    assert {name: opened.read(name) for name in opened.manifest.files} == {
        name: content for name, content in files_of(fake_bundle.path).items() if name != MANIFEST
    }


def test_every_flipped_byte_of_every_file_is_found(fake_bundle: Bundle, tiny_recipe: MakeRecipe) -> None:
    bundle = fake_bundle.add_recipe(tiny_recipe())
    for name, content in files_of(bundle.path).items():
        for place in range(0, len(content), 1 + len(content) // 40):
            changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
            (bundle.path / name).write_bytes(changed)
            refused(bundle.path, "copy the bundle again")
        (bundle.path / name).write_bytes(content)
    Bundle.open(bundle.path)


@pytest.mark.parametrize("name", [MANIFEST, GOLDEN, "graphs/patchcore-fp32.onnx"])
def test_missing_longer_and_shorter_files_are_found(fake_bundle: Bundle, name: str) -> None:
    file = fake_bundle.path / name
    content = file.read_bytes()
    for changed in (content + b"\0", content[:-1], b""):
        file.write_bytes(changed)
        refused(fake_bundle.path, "copy the bundle again")
    file.unlink()
    refused(fake_bundle.path, "No such file")
    file.mkdir()
    refused(fake_bundle.path, "Is a directory")


def test_what_is_no_bundle(tmp_path: Path) -> None:
    refused(tmp_path / "missing", "no such bundle; make one with  orinspect export")
    refused(tmp_path, "not a bundle .*No such file")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "not a bundle .*Not a directory")
    refused(tmp_path / ("x" * 300), "not a bundle .*File name too long")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused(tmp_path / "loop", "not a bundle .*symbolic links")


def test_files_that_are_not_listed_are_ignored_but_not_read(fake_bundle: Bundle) -> None:
    (fake_bundle.path / ".partial-abc").write_bytes(b"of a process that was killed")
    (fake_bundle.path / "engines").mkdir()
    with pytest.raises(BundleError, match=r"other.bin is not listed"):
        Bundle.open(fake_bundle.path).read("other.bin")


OUTSIDE = ["../outside", "recipes/../../outside", "graphs/link/outside", "link", "{absolute}", "loop", "nul\0byte"]


@pytest.fixture
def trap(tmp_path: Path, make_bundle: MakeBundle) -> Callable[..., Path]:
    """A bundle with links that lead out of it, and a manifest with the given fields and a right digest."""

    def trap(**fields: object) -> Path:
        bundle = make_bundle(tmp_path / "trap", {GOLDEN: b"golden", "graphs/x": b"graph"}, **fields).path
        (bundle / "graphs/link").symlink_to(tmp_path)
        (bundle / "link").symlink_to(tmp_path / "outside")
        (bundle / "loop").symlink_to("loop")
        (tmp_path / "outside").touch()
        return bundle

    return trap


@pytest.mark.parametrize("name", OUTSIDE)
def test_listed_paths_must_lie_inside(trap: Callable[..., Path], tmp_path: Path, name: str) -> None:
    refused(trap(files={name.format(absolute=tmp_path / "outside"): EMPTY}), r"outside|is no file name|symbolic links")


@pytest.mark.parametrize("name", ["../outside", "link", "{absolute}"])
def test_replacing_a_recipe_never_removes_a_file_outside(
    trap: Callable[..., Path], tiny_recipe: MakeRecipe, tmp_path: Path, name: str
) -> None:
    path = trap(recipes={"default": name.format(absolute=tmp_path / "outside")}, files={})
    bundle, before = Bundle.open(path), files_of(path)
    with pytest.raises(BundleError, match="outside of the bundle"):
        bundle.add_recipe(tiny_recipe())
    with pytest.raises(BundleError):
        bundle.recipe()
    assert (tmp_path / "outside").exists()
    assert files_of(path) == before


def test_a_recipe_folder_that_leads_outside_is_not_written_to(
    trap: Callable[..., Path], tiny_recipe: MakeRecipe, tmp_path: Path
) -> None:
    path = trap(files={})
    (tmp_path / "elsewhere").mkdir()
    (path / "recipes").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="outside of the bundle"):
        Bundle.open(path).add_recipe(tiny_recipe())
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_link_that_stays_inside_is_fine(fake_bundle: Bundle) -> None:
    (fake_bundle.path / GOLDEN).rename(fake_bundle.path / "real.npz")
    (fake_bundle.path / GOLDEN).symlink_to("real.npz")
    Bundle.open(fake_bundle.path)


def test_a_bundle_may_be_reached_through_a_link(fake_bundle: Bundle, tmp_path: Path, tiny_recipe: MakeRecipe) -> None:
    (tmp_path / "link").symlink_to(fake_bundle.path)
    Bundle.open(tmp_path / "link").add_recipe(tiny_recipe())
    assert Bundle.open(fake_bundle.path).recipe().name == "default"


def test_recipes_are_added_found_and_replaced(fake_bundle: Bundle, tiny_recipe: MakeRecipe) -> None:
    assert list(fake_bundle.manifest.recipes) == []
    first = fake_bundle.add_recipe(tiny_recipe(threshold=1.0))
    assert first == Bundle.open(fake_bundle.path)
    assert first.recipe().threshold == first.recipe("default").threshold == 1.0
    second = first.add_recipe(tiny_recipe(threshold=2.0))
    assert Bundle.open(fake_bundle.path).recipe().threshold == 2.0
    again = second.add_recipe(tiny_recipe(threshold=2.0))
    assert again == second, "the same recipe once more is no change"
    both = again.add_recipe(tiny_recipe("other"))
    assert sorted(both.manifest.recipes) == ["default", "other"]
    on_disk = {name for name in files_of(fake_bundle.path) if name.startswith("recipes/")}
    assert on_disk == set(both.manifest.recipes.values()), "the replaced file is gone"
    Bundle.open(fake_bundle.path)


def test_a_stale_bundle_does_not_undo_what_others_added(fake_bundle: Bundle, tiny_recipe: MakeRecipe) -> None:
    fake_bundle.add_recipe(tiny_recipe("one"))
    fake_bundle.add_recipe(tiny_recipe("two"))
    assert sorted(Bundle.open(fake_bundle.path).manifest.recipes) == ["one", "two"]


def test_a_recipe_must_be_named_when_there_are_several(fake_bundle: Bundle, tiny_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match="has 0 recipes: run  orinspect fit  first"):
        fake_bundle.recipe()
    with pytest.raises(RecipeError, match=r"no recipe 'x' \(it has: none\)"):
        fake_bundle.recipe("x")
    bundle = fake_bundle.add_recipe(tiny_recipe("one")).add_recipe(tiny_recipe("two"))
    with pytest.raises(RecipeError, match="has 2 recipes: name one of one, two with --recipe"):
        bundle.recipe()
    with pytest.raises(RecipeError, match=r"no recipe 'x' \(it has: one, two\)"):
        bundle.recipe("x")


def test_a_recipe_that_is_listed_but_no_recipe(tmp_path: Path, make_bundle: MakeBundle) -> None:
    bundle = make_bundle(tmp_path / "b", {"recipes/x.npz": b"text"}, recipes={"x": "recipes/x.npz"})
    with pytest.raises(RecipeError, match="damaged or not a recipe"):
        Bundle.open(bundle.path).recipe()
    dangling = make_bundle(tmp_path / "c", {GOLDEN: b""}, recipes={"x": "recipes/x.npz"})
    with pytest.raises(BundleError, match="not listed"):
        Bundle.open(dangling.path).recipe()


def test_with_a_recipe_only_what_is_read_must_be_whole(fake_bundle: Bundle, tiny_recipe: MakeRecipe) -> None:
    bundle = fake_bundle.add_recipe(tiny_recipe("one")).add_recipe(tiny_recipe("two"))
    damaged = bundle.path / bundle.recipe_file("two")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    refused(bundle.path, "copy the bundle again")
    opened, recipe = Bundle.with_recipe(bundle.path, "one")
    assert (opened, recipe.name) == (bundle, "one")
    for read in (lambda: Bundle.with_recipe(bundle.path, "two"), lambda: opened.read(bundle.recipe_file("two"))):
        with pytest.raises(BundleError, match="copy the bundle again"):
            read()


ADD = """
import dataclasses, os, sys
from pathlib import Path
from orinspect_edge_runtime import recipe as recipes
from orinspect_edge_runtime.bundle import Bundle
bundle, recipe = Bundle.open(sys.argv[1]), recipes.from_bytes(Path(sys.argv[2]).read_bytes(), "recipe")
names, count = sys.argv[3].split(","), int(sys.argv[4])

def add():
    for number in range(count):
        bundle.add_recipe(dataclasses.replace(recipe, name=names[number % len(names)], threshold=float(number)))

print("ready", flush=True)
if sys.argv[5:] != ["forks"]:
    add()
    sys.exit()
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        add()
    print(child, flush=True)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


@pytest.fixture
def start_adding(
    fake_bundle: Bundle, tiny_recipe: MakeRecipe, tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a process that adds recipes `names` in turn, with thresholds 0, 1, 2, ...; returns when it begins.

    With "forks" the process only waits; each line on its stdin makes a child do the work, until that is killed.
    """
    from orinspect_edge_runtime.recipe import to_bytes

    (tmp_path / "recipe.npz").write_bytes(to_bytes(tiny_recipe()))
    started: list[subprocess.Popen[bytes]] = []

    def start(names: str, count: int = 10**6, *how: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", ADD, str(fake_bundle.path), str(tmp_path / "recipe.npz"), names, str(count)]
        process = subprocess.Popen([*command, *how], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_two_processes_at_once_both_keep_their_recipes(
    fake_bundle: Bundle, start_adding: Callable[..., subprocess.Popen[bytes]]
) -> None:
    processes = [start_adding(",".join(f"{which}{n}" for n in range(12)), 12) for which in "ab"]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert len(Bundle.open(fake_bundle.path).manifest.recipes) == 24


def test_a_reader_never_meets_a_half_replaced_recipe(
    fake_bundle: Bundle, start_adding: Callable[..., subprocess.Popen[bytes]]
) -> None:
    writer, seen, end = start_adding("default"), set[str | None](), time.monotonic() + 60
    while len(seen) < 20 and time.monotonic() < end:
        seen.add(Bundle.open(fake_bundle.path).manifest.recipes.get("default"))
    assert writer.poll() is None, "the writer was at work all the time"
    assert len(seen) == 20, "each opening may meet another recipe"


def await_changes(file: Path, count: int) -> None:
    """Wait until a file was replaced `count` times: how long that takes is the machine's business."""
    for _ in range(count):
        before, end = file.stat().st_ino, time.monotonic() + 20
        while file.stat().st_ino == before and time.monotonic() < end:
            time.sleep(0.0005)


def test_killed_at_any_moment_the_bundle_opens_with_the_old_or_the_new_recipe(
    fake_bundle: Bundle, tiny_recipe: MakeRecipe, start_adding: Callable[..., subprocess.Popen[bytes]]
) -> None:
    rng = random.Random(1)
    fake_bundle.add_recipe(tiny_recipe("untouched", threshold=-1.0))
    writer, seen = start_adding("default", 10**6, "forks"), set()
    assert writer.stdin is not None
    assert writer.stdout is not None
    for _ in range(30):
        writer.stdin.write(b"\n")
        writer.stdin.flush()
        child = int(writer.stdout.readline())
        await_changes(fake_bundle.path / MANIFEST, rng.randrange(3))
        time.sleep(rng.uniform(0, 0.004))
        os.kill(child, signal.SIGKILL)
        assert writer.stdout.readline() == b"gone\n"
        bundle = Bundle.open(fake_bundle.path)
        assert set(bundle.manifest.recipes) <= {"untouched", "default"}
        assert bundle.recipe("untouched").threshold == -1.0
        if "default" in bundle.manifest.recipes:
            seen.add(bundle.recipe("default").threshold)
    assert len(seen) > 1, "some recipes were written before the kill"
    # The lock of a killed process does not stay.
    assert Bundle.open(fake_bundle.path).add_recipe(tiny_recipe(threshold=0.5)).recipe("default").threshold == 0.5


def test_a_full_disk_keeps_the_old_recipe(
    fake_bundle: Bundle, tiny_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each flush in turn: either an error and the old recipe, or the new one."""
    bundle = fake_bundle.add_recipe(tiny_recipe(threshold=1.0))
    fsync = os.fsync
    for number in range(6):
        calls = iter(range(1000))

        def failing(handle: int, calls: Iterator[int] = calls, number: int = number) -> None:
            if next(calls) == number:
                raise OSError(28, "No space left on device")
            fsync(handle)

        monkeypatch.setattr(os, "fsync", failing)
        try:
            bundle.add_recipe(tiny_recipe(threshold=2.0 + number))
            failed = False
        except Exception as error:
            failed = "No space left" in str(error)
            assert failed, error
        monkeypatch.setattr(os, "fsync", fsync)
        opened = Bundle.open(bundle.path)
        assert opened.recipe().threshold in ({1.0 + number, 2.0 + number, 1.0} if failed else {2.0 + number})
        assert not [name for name in files_of(bundle.path) if ".partial-" in name]
        bundle = opened


@pytest.mark.usefixtures("as_plain_user")
def test_a_read_only_bundle_says_so(tiny_recipe: MakeRecipe) -> None:
    # Every user may read this folder, nobody but root may write to it.
    with pytest.raises(BundleError, match=r"/usr: cannot be written \(Permission denied|Read-only"):
        Bundle(Path("/usr"), None).add_recipe(tiny_recipe())  # type: ignore[arg-type]


def test_a_read_only_disk_says_so_and_still_opens(
    fake_bundle: Bundle, tiny_recipe: MakeRecipe, small_disk: Path
) -> None:
    shutil.copytree(fake_bundle.path, small_disk / "bundle")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    opened = Bundle.open(small_disk / "bundle")
    with pytest.raises(BundleError, match=r"cannot be written \(Read-only file system\)"):
        opened.add_recipe(tiny_recipe())
    assert Bundle.open(small_disk / "bundle") == opened


def test_a_newer_bundle_asks_for_an_upgrade(fake_bundle: Bundle) -> None:
    newer = dataclasses.replace(fake_bundle.manifest, format_version=manifests.FORMAT_VERSION + 1)
    (fake_bundle.path / MANIFEST).write_bytes(manifests.to_bytes(newer))
    refused(fake_bundle.path, "pip install --upgrade orinspect")
