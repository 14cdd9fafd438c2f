"""The name of another lab's training -> its settings, which lie beside this file as TOML.

Each file has the form of `sae train --config`, so that a copy of it can be changed and used there.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from sae.core.errors import UserError
from sae.core.files import did_you_mean

RECIPES = ("ttt", "sketch", "patchsae", "sparsify")


def recipe_file(name: str) -> Path:
    """Where a recipe lies. Raises `UserError` for a name that is none."""
    if name not in RECIPES:
        near = did_you_mean(name, RECIPES)
        raise UserError(f"--recipe {name!r} is none of {', '.join(RECIPES)}{near}")
    return Path(__file__).with_name(f"{name}.toml")


def read_recipe(name: str) -> dict[str, Any]:
    """Its settings, by the names of `TrainConfig`'s fields."""
    settings: dict[str, Any] = tomllib.loads(recipe_file(name).read_text("utf-8"))["train"]
    return settings
