"""Jinja file + values -> text, and the fingerprint that says which prompt made a result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from sae.core.files import sha256_hex

FOLDER = Path(__file__).resolve().parents[2] / "prompts"
"""Right in a checkout, an editable install and a wheel alike: `prompts` lies beside `interp`."""

_SIGNS = str.maketrans("", "", "<>")


def render(name: str, **values: Any) -> str:
    """Fill `prompts/<name>.jinja`. A variable that the template wants and does not get is an error.

    In a template, `{{ text | quoted }}` marks text of others as data.
    """
    return _environment().get_template(f"{name}.jinja").render(**values).strip()


def fingerprint(
    names: Sequence[str], schema: Mapping[str, Any], settings: Mapping[str, Any] | None = None
) -> str:
    """sha256 (64 hex digits) over the templates' text, the schema and the settings behind them.

    Schemas differ from call to call in their letters: give the one with all letters here, so that
    one version of a prompt has one fingerprint.
    """
    canonical = {
        "templates": {name: _source(name) for name in sorted(names)},
        "schema": schema,
        "settings": settings or {},
    }
    text = json.dumps(canonical, sort_keys=True, ensure_ascii=False)
    return sha256_hex(text.encode())


def mark_data(text: str) -> str:
    """`<<<text>>>` on one line: a label is data, and cannot close the quotation by itself."""
    return "<<<" + " ".join(text.translate(_SIGNS).split()) + ">>>"


def list_letters(letters: Sequence[str]) -> str:
    """`A, B and C`."""
    if len(letters) < 2:
        return "".join(letters)
    return ", ".join(letters[:-1]) + " and " + letters[-1]


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # plain text for a model; HTML has an environment of its own
    )
    environment.filters["quoted"] = mark_data
    environment.filters["listed"] = list_letters
    return environment


def _source(name: str) -> str:
    # Line ends differ between checkouts, and must not change the fingerprint.
    return (FOLDER / f"{name}.jinja").read_text(encoding="utf-8").replace("\r\n", "\n")
