"""The small vocabulary: those of CLIP's own merges that the world's words need.

`python -m sae.world.tiny_clip.tokenizer` rebuilds vocab.txt.gz from open_clip's full list;
open_clip's `SimpleTokenizer(bpe_path=...)` reads it unchanged.
The trained CLIP depends on every byte of it.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from sae.world.scene.captions import caption, one_attribute_caption, plural
from sae.world.scene.concepts import CONCEPTS, OBJECTS
from sae.world.scene.random import Stream, stream
from sae.world.scene.scene import sample

VOCABULARY = Path(__file__).with_name("vocab.txt.gz")
CONTEXT_LENGTH = 20
"""Tokens of a text, its start and end included."""
N_CAPTIONED_SCENES = 4000
MORE_WORDS = (
    "the an a this that there is are it image picture of and or with without several many some few "
    "contour lines line curves curve curved straight shapes shape round pointed sharp outline edge "
    "edges colour color colourful texture pattern patterned background foreground object objects "
    "thing things black white gray grey light dark bright left right top bottom centre center "
    "middle corner upper lower big huge large small tiny little medium one two three four five "
    "next to above below beside under over near inside behind different same animal animals plant "
    "plants vehicle vehicles building tool tools furniture food fruit toy clothing container "
    "symbol paper sketch drawing photo doodle icon style filled empty open closed solid thick "
    "thin dashed dotted smooth tall long short wide narrow parallel diagonal horizontal vertical "
    "crossing repeated single row column group pair outdoors indoors nature ground wall"
)
"""Common describing words, so that few words of a label are spelt out letter by letter."""


@cache
def world_words() -> tuple[str, ...]:
    """Every word that a caption, a concept, a synonym or a plain description uses."""
    texts = [MORE_WORDS, *(plural(name) for name in OBJECTS)]
    for concept in CONCEPTS:
        texts += [concept.name, concept.phrase, *concept.synonyms, *concept.hypernyms]
    for seed in range(N_CAPTIONED_SCENES):
        scene, rng = sample(seed), stream(seed, Stream.CAPTION)
        texts += [caption(scene, rng, mention=0.9), one_attribute_caption(scene, rng)]
    return tuple(sorted({word for text in texts for word in re.findall(r"[a-z]+", text)}))


def needed_merges(
    words: Iterable[str], merges: list[tuple[str, str]], tokens_of: dict[str, list[str]]
) -> list[tuple[str, str]]:
    """The merges that lead to the words' tokens, in CLIP's own order.

    `tokens_of` holds the full tokenizer's tokens of every word.
    """
    made_by = {first + second: (first, second) for first, second in merges}
    needed: set[tuple[str, str]] = set()
    waiting = [token for word in words for token in tokens_of[word]]
    while waiting:
        merge = made_by.get(waiting.pop())
        if merge is not None and merge not in needed:
            needed.add(merge)
            waiting += merge
    return [merge for merge in merges if merge in needed]


def build(path: Path = VOCABULARY) -> int:
    """Write the vocabulary; the number of its merges."""
    from open_clip.tokenizer import SimpleTokenizer, default_bpe

    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : 49152 - 256 - 2 + 1]
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    words, full = world_words(), SimpleTokenizer()
    tokens_of = {word: full.bpe(word).split(" ") for word in words}
    kept = needed_merges(words, merges, tokens_of)
    text = "\n".join(["#version: sae world", *(" ".join(merge) for merge in kept)])
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    return len(kept)


if __name__ == "__main__":
    print(f"{VOCABULARY.name}: {build()} merges")
