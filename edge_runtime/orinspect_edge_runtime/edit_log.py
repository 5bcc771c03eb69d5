"""The log of a recipe's edits: how a change is published, and what is written down of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from orinspect_edge_runtime.bundle import Bundle
from orinspect_edge_runtime.errors import InputError, RecipeError
from orinspect_edge_runtime.recipe import Edit, Recipe

NOTE_LENGTH = 500


@dataclass(frozen=True)
class Change:
    """What an edit did. scores: of the added image before and after."""

    image: str
    rows_added: int
    rows_removed: int
    message: str
    scores: tuple[float | None, float | None] = (None, None)


def edited(
    bundle: Bundle, name: str | None, kind: str, change: Callable[[Recipe], tuple[Recipe, Change]], note: str
) -> Edit:
    """Publish what `change` makes of a recipe (None: the only one), with the entry of the log that it returns.

    Under the bundle's lock from reading to writing. Raises InputError for a note over NOTE_LENGTH.
    """
    made: list[Edit] = []

    def publish(now: Bundle, recipe: Recipe, file: str) -> Recipe:
        changed, done = change(recipe)
        made.append(logged(recipe, changed, kind, done, note, file))
        return dataclasses.replace(changed, edits=(*recipe.edits, made[0]))

    if len(note) > NOTE_LENGTH:
        raise InputError(f"a note of {len(note)} characters: at most {NOTE_LENGTH}")
    bundle.change_recipe(name, publish)
    return made[0]


def logged(old: Recipe, new: Recipe, kind: str, done: Change, note: str, file: str) -> Edit:
    """The entry that says what turned `old` into `new`. file: the bundle's file of the old one."""
    return Edit(
        number=len(old.edits) + 1,
        kind=kind,
        image=done.image,
        at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        note=note,
        rows_added=done.rows_added,
        rows_removed=done.rows_removed,
        score_before=done.scores[0],
        score_after=done.scores[1],
        threshold_before=old.threshold,
        threshold_after=new.threshold,
        message=done.message,
        before=file,
    )


def require_same_fit(now: Recipe, seen: Recipe) -> None:
    """Raises RecipeError when a recipe's features are no longer those of the one that was `seen`."""
    if (now.precision, now.graph_sha256, now.scorer) != (seen.precision, seen.graph_sha256, seen.scorer):
        raise RecipeError(f"recipe {now.name!r} was fitted anew meanwhile: give the image again")


def opened(bundle: Bundle | Path | str) -> Bundle:
    """A bundle as it is now; one that was opened before is not verified a second time."""
    return bundle.now() if isinstance(bundle, Bundle) else Bundle.open(bundle)
