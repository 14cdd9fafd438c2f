"""Which latents each word of the vocabulary means, and when that can be said at all."""

from __future__ import annotations

import dataclasses
import shutil

import pytest

from interp.pipeline.clip.search import LatentSearch
from interp.pipeline.clip.words import N_LATENTS, find_words
from interp.run.run import Run
from sae.core.errors import Notice
from sae.core.files import write_json


def test_a_word_has_the_latents_that_say_or_are_it_and_others_none(run: Run) -> None:
    words = find_words(run, "cpu")
    assert words["wheel"][0] == 3
    assert "horse" not in words
    assert all(0 < len(latents) <= N_LATENTS for latents in words.values())
    [ranked] = LatentSearch(run, "cpu").rank(["wheel"], 16)
    order = [one.latent for one in ranked]
    assert words["wheel"] == [n for n in order if n in words["wheel"]]


def test_a_clip_that_would_have_to_be_fetched_is_left_alone(run: Run) -> None:
    write_json(run.path / "run.json", dataclasses.replace(run.info, clip="ViT-B-32/openai"))
    assert find_words(run, "cpu") == {}


def test_what_stands_in_the_way_is_said_and_ends_nothing(run: Run) -> None:
    shutil.rmtree(run.path.parent / "store")
    with pytest.warns(Notice, match="finds labels alone, not meanings"):
        assert find_words(run, "cpu") == {}
