"""Class names and templates -> one unit vector a class, for zero-shot classification."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from sae.core.errors import UserError

if TYPE_CHECKING:
    from sae.clip.model import Clip

_SOUNDS_LIKE_VOWEL = re.compile(r"(?!uni|use|usu|eu|one\b|once)[aeiou]|hour|honest|heir", re.I)


def class_vectors(clip: Clip, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """(n_classes, d_embed) unit rows: the mean over the templates for each class."""
    texts = [fill_template(template, name) for name in names for template in templates]
    vectors = clip.embed_texts(texts).view(len(names), len(templates), -1)
    return F.normalize(vectors.mean(1), dim=-1)


def fill_template(template: str, name: str) -> str:
    """Put a class into a template, with the right article: "a {}", "apple" -> "an apple"."""
    if template.count("{}") != 1:
        raise UserError(f"the template {template!r} must hold {{}} once, e.g. 'a photo of a {{}}'")
    if _SOUNDS_LIKE_VOWEL.match(name):
        template = re.sub(r"\b([aA]) \{\}", r"\1n {}", template)
    return template.replace("{}", name)
