"""The recipe that somebody chose over HTTP, kept over restarts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from orinspect_edge_runtime import durable
from orinspect_edge_runtime.errors import ConfigError
from orinspect_edge_runtime.recipe import check_name
from orinspect_edge_runtime.watch.config import RecipeConfig, WatchConfig

FILE = "recipe.json"


def chosen_recipe(config: WatchConfig) -> RecipeConfig:
    """The [recipe] to run with the name that was chosen last; a table that was edited since then goes first.

    Raises ConfigError when the note of the choice is damaged: another recipe must not judge in its place unnoticed.
    """
    if config.http is None:
        return config.recipe
    file = Path(config.http.folder) / FILE
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        name, of = check_name(told["name"]), told["instead_of"]
    except FileNotFoundError:
        return config.recipe
    except Exception as error:
        raise ConfigError(f"{file}: damaged; remove it to run the recipe of the configuration") from error
    return dataclasses.replace(config.recipe, name=name) if of == dataclasses.asdict(config.recipe) else config.recipe


def keep_choice(config: WatchConfig, folder: Path, name: str) -> None:
    """Note durably that `name` runs in place of the configuration's recipe. Raises InputError when it cannot."""
    told = {"name": name, "instead_of": dataclasses.asdict(config.recipe)}
    durable.write_bytes(folder / FILE, json.dumps(told, indent=2).encode())
