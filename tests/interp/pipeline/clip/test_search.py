"""Latents by words on a small world, and what the first call keeps for the next."""

from __future__ import annotations

import dataclasses
import os
import shutil

import numpy as np
import pytest

from interp.local.clip_encoder import embed_terms
from interp.local.vocabulary import texts_of
from interp.pipeline.clip.search import LatentSearch, usual_words
from interp.pipeline.clip.vectors import FOLDER, KeptRows
from interp.run.decoder import read_decoder
from interp.run.run import Run
from sae.clip.model import load_clip
from sae.core.errors import Notice, UserError
from sae.core.files import read_config, write_json
from sae.data.store_format import StoreInfo


def test_the_label_brings_its_latent_first_and_the_decoder_the_next(run: Run) -> None:
    [[first, *others]] = LatentSearch(run, "cpu").rank(["wheels"], 16)
    assert (first.latent, first.wording) == (3, 1.0)
    rows, clip = read_decoder(run), load_clip("tiny", "cpu")
    assert rows is not None
    usual = embed_terms(clip, [texts_of(w, "tiny") for w in usual_words("tiny")]).mean(0)
    row = (embed_terms(clip, [texts_of("wheels", "tiny")])[0] - usual).numpy()
    cosines = rows @ row / np.linalg.norm(rows, axis=1) / np.linalg.norm(row)
    for one in others:
        assert one.direction == pytest.approx(cosines[one.latent], abs=2e-3)
        assert one.wording == 0
    positive = [one.direction for one in others if one.direction > 0]
    assert positive == sorted(positive, reverse=True)


def test_the_second_call_loads_no_clip_for_what_is_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = LatentSearch(run, "cpu").rank(["wheel", "red"], 3, keep=True)
    monkeypatch.setattr(LatentSearch, "_clip", property(_fail))
    again = LatentSearch(run, "cpu").rank(["wheel", "red"], 3, keep=True)
    assert again == first
    [kept] = (run.path / FOLDER).iterdir()
    assert kept.name == f"texts-{run.info.clip_sha}.parquet"


def test_without_a_decoder_a_latent_points_where_its_strongest_images_do(run: Run) -> None:
    by_decoder = LatentSearch(run, "cpu").ranking._directions
    shutil.rmtree(run.sae)
    by_images = LatentSearch(run, "cpu")
    alike = (by_images.ranking._directions * by_decoder).sum(1)
    assert np.median(alike) > 0.3
    assert (run.path / FOLDER / f"images-{run.info.clip_sha}.parquet").exists()


def test_images_that_cannot_be_read_end_in_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(run.sae)
    roots = dict.fromkeys(("sketch", "photo"), "gone")
    store = run.path.parent / "store" / "store.json"
    write_json(store, dataclasses.replace(read_config(store, StoreInfo), roots=roots))
    with pytest.raises(UserError, match=r"gone|images"):
        LatentSearch(run, "cpu")


def test_a_folder_that_cannot_be_written_costs_a_notice_alone(run: Run) -> None:
    (run.path / FOLDER).write_text("in the way")
    with pytest.warns(Notice, match="nothing is kept"):
        assert LatentSearch(run, "cpu").rank(["wheel"], 1)[0][0].latent == 3


def test_a_damaged_file_is_named(run: Run) -> None:
    LatentSearch(run, "cpu")
    [kept] = (run.path / FOLDER).iterdir()
    os.truncate(kept, 100)
    with pytest.raises(UserError, match=r"texts-\w+\.parquet is damaged .* remove it"):
        LatentSearch(run, "cpu")


def test_a_store_that_does_not_tell_its_clip_is_refused(run: Run) -> None:
    store = run.path.parent / "store" / "store.json"
    write_json(store, dataclasses.replace(read_config(store, StoreInfo), clip="", clip_sha=""))
    write_json(run.path / "run.json", dataclasses.replace(run.info, clip="", clip_sha=""))
    with pytest.raises(UserError, match="does not say which CLIP"):
        LatentSearch(run, "cpu")


@pytest.mark.parametrize("query", ["", "  "])
def test_blank_words_are_refused(run: Run, query: str) -> None:
    with pytest.raises(UserError, match="blank"):
        LatentSearch(run, "cpu").rank([query], 1)


def test_kept_rows_come_back_to_half_the_digits(run: Run) -> None:
    kept = KeptRows(run, "texts", "0" * 16)
    row = np.arange(1, 9, dtype=np.float32)
    kept.add({"a": row})
    again = KeptRows(run, "texts", "0" * 16).of(["a"])[0]
    np.testing.assert_allclose(again, row / np.linalg.norm(row), rtol=1e-3)


def test_the_usual_words_are_an_even_part_of_the_vocabulary() -> None:
    words = usual_words("tiny")
    assert len(set(words)) == len(words) >= 100


def _fail(_: object) -> None:
    raise AssertionError("the CLIP was loaded")
