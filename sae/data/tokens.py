"""A word for the tokens of an image -> which they are: ours, or what saev calls them."""

from __future__ import annotations

from typing import Literal, cast, get_args

from sae.core.errors import UserError

Tokens = Literal["cls", "patch", "all"]
OF_SAEV: dict[str, Tokens] = {"content": "patch", "special": "cls"}
"""saev's words for tokens, as they are called here."""


def tokens_named(word: str) -> Tokens:
    """The kind of tokens that a word means, ours or saev's. Raises `UserError` for another."""
    word = OF_SAEV.get(word, word)
    for kind in get_args(Tokens):
        if word == kind:
            return cast("Tokens", kind)
    words = f"{', '.join(get_args(Tokens))} (saev's content is patch, its special cls)"
    raise UserError(f"tokens {word!r} is none of {words}")
