"""Words such as "lr=1e-3,2e-3" -> the settings of every SAE of a sweep."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import NamedTuple

from sae.core.errors import UserError
from sae.core.files import did_you_mean
from sae.training.config import AUTO_LR, TrainConfig, learning_rate

SHARED = (
    "format",
    "batch_size",
    "epochs",
    "n_tokens",
    "holdout",
    "backend",
    "checkpoint_every",
    "buffer_tokens",
)
"""Settings that all SAEs of a sweep have in common."""
WITH_COMMAS = ("matryoshka",)

Value = int | float | str


class Variant(NamedTuple):
    """One SAE of a sweep."""

    name: str
    """Its folder."""
    values: dict[str, Value]
    """The settings that are swept."""
    config: TrainConfig


def variants_of(words: Sequence[str], base: TrainConfig) -> list[Variant]:
    """Every combination of `words` ("lr=1e-3,2e-3", "k=16,32"), the last one changing fastest.

    Raises `UserError` for a word, a name or a value that is not known, or that comes twice.
    """
    swept: dict[str, list[Value]] = {}
    for word in words:
        name, values = _parsed(word)
        if name in swept:
            raise UserError(f"--sweep has {name} twice; give all its values in one list")
        _require_effect(name, base)
        swept[name] = values
    return [
        _variant(dict(zip(swept, values, strict=True)), base)
        for values in itertools.product(*swept.values())
    ]


def _parsed(word: str) -> tuple[str, list[Value]]:
    """ "n-latents=512,1024" -> ("n_latents", [512, 1024])"""
    name, equals, values = word.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or not values.strip():
        raise UserError(f"--sweep {word!r} is not NAME=VALUE,VALUE,... such as lr=1e-3,2e-3")
    known = _sweepable()
    if name not in known:
        rest = did_you_mean(name, known) or f"; known: {', '.join(known)}"
        raise UserError(f"--sweep has the unknown name {name!r}{rest}")
    found = [_value(name, text.strip(), known[name]) for text in values.split(",")]
    if len(set(found)) < len(found):
        raise UserError(f"--sweep {word!r} has a value twice")
    return name, found


def _require_effect(name: str, base: TrainConfig) -> None:
    if name == "expansion" and base.n_latents:
        raise UserError(f"--sweep expansion changes nothing where n_latents is {base.n_latents}")
    if name == "k" and not base.has_k:
        raise UserError(f"--sweep k changes nothing: {base.activation} has no k")


def _sweepable() -> dict[str, type]:
    """Names and types of the settings that may differ within a sweep."""
    left_out = SHARED + WITH_COMMAS
    return {f.name: type(f.default) for f in fields(TrainConfig) if f.name not in left_out}


def _value(name: str, text: str, kind: type) -> Value:
    if name == "lr":
        return learning_rate(text)
    if kind is bool:
        if text not in ("true", "false"):
            raise UserError(f"--sweep {name} has the value {text!r}, which is not true or false")
        return text == "true"
    try:
        value: Value = kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise UserError(f"--sweep {name} has the value {text!r}, which is not {what}") from None
    return value


def _variant(values: dict[str, Value], base: TrainConfig) -> Variant:
    parts = [_part(name, value) for name, value in values.items()]
    return Variant("-".join(parts), values, replace(base, **values))  # type: ignore[arg-type]


def _part(name: str, value: Value) -> str:
    """Of a folder's name: "k16", "lrauto", "batch_topk", "no_pre_bias"."""
    if isinstance(value, str):
        return value or f"no_{name}"
    if isinstance(value, bool):
        return name if value else f"no_{name}"
    if name == "lr" and value == AUTO_LR:
        return "lrauto"
    return f"{name}{value}" if isinstance(value, int) else f"{name}{value:g}"
