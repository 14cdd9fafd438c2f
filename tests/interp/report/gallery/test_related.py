"""Latents that are like each other, and the map of all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from interp.report.gallery import build_gallery, related
from interp.report.gallery.map import SIDE, find_places, place
from interp.report.gallery.related import nearest_rows, nearest_sets, same_labels
from interp.run.decoder import read_decoder
from interp.run.run import Run
from sae.core.errors import UserError
from tests.support.interp.galleries import cards_of, small_run


def test_the_nearest_rows_of_blocks_are_those_of_all_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(related, "BLOCK", 7)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(150, 5)).astype(np.float32) * rng.uniform(0.1, 9, (150, 1))
    alive = rng.random(150) > 0.2
    found = nearest_rows(rows.astype(np.float32), alive)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = unit @ unit.T
    cosines[:, ~alive] = -9
    np.fill_diagonal(cosines, -9)
    for latent in range(150):
        if not alive[latent]:
            assert found[latent] == []
            continue
        wanted = np.argsort(-cosines[latent], kind="stable")[: related.N_NEAREST]
        assert [near for near, _ in found[latent]] == wanted.tolist()
        shown = [cosine for _, cosine in found[latent]]
        assert shown == pytest.approx(cosines[latent, wanted], abs=1e-2)


def test_of_equally_near_rows_the_first_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(related, "BLOCK", 10)
    found = nearest_rows(np.ones((30, 1), np.float32), np.ones(30, bool))
    assert [near for near, _ in found[3]] == [0, 1, 2, 4, 5, 6]
    assert [near for near, _ in found[15]] == [0, 1, 2, 3, 4, 5]


def test_sets_are_near_by_the_share_of_members_that_both_have() -> None:
    members = {0: {1, 2, 3, 4}, 1: {2, 3, 4, 5}, 2: {1, 2}, 3: {1}, 4: set()}
    pairs = np.array([(owner, one) for owner, of in members.items() for one in of])
    found = nearest_sets(pairs, 5)
    assert found[0] == [[1, 0.6], [2, 0.5]]  # 3 of 5, 2 of 4; one image in common is not enough
    assert found[3] == found[4] == []


def test_labels_are_the_same_but_for_case_and_blanks() -> None:
    found = same_labels({0: "Red  wheel", 1: "red wheel", 2: "wheel", 3: None}, 4)
    assert found == [[1], [0], [], []]


def planted(tmp_path: Path, n: int = 2) -> Path:
    run = small_run(tmp_path)
    rows = np.random.default_rng(1).normal(size=(n, 8)).astype(np.float32)
    (run / "sae").mkdir()
    save_file({"W_dec": rows}, run / "sae" / "sae.safetensors")
    return run


def test_a_run_without_its_sae_has_neither_cosines_nor_map(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    build_gallery(Run(run))
    assert "cosine" not in cards_of(run)[0]["related"]
    assert not (run / "gallery/map.parquet").exists()
    assert not (run / "gallery/data/map.js").exists()


def test_cards_name_the_nearest_directions(tmp_path: Path) -> None:
    run = planted(tmp_path)
    build_gallery(Run(run))
    assert [near for near, _ in cards_of(run)[0]["related"]["cosine"]] == [1]


def test_a_decoder_of_another_sae_is_refused_in_one_line(tmp_path: Path) -> None:
    run = planted(tmp_path, n=3)
    with pytest.raises(UserError, match=r"W_dec has shape \(3, 8\), the run 2 latents"):
        read_decoder(Run(run))
    (run / "sae/sae.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="is damaged"):
        build_gallery(Run(run))


def test_like_directions_lie_together_and_dead_latents_nowhere() -> None:
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(3, 16)) * 4
    group = np.arange(90) % 3
    rows = (centres[group] + rng.normal(size=(90, 16)) * 0.3).astype(np.float32)
    alive = np.arange(90) != 5
    found = place(rows, alive)
    assert np.isnan(found.x[5])
    assert found.cluster[5] == -1
    points = np.stack([found.x, found.y], 1)
    assert points[alive].min() == 0
    assert points[alive].max() == 1
    far = np.linalg.norm(points[:, None] - points, axis=2)
    far[:, 5] = far[5] = np.inf
    np.fill_diagonal(far, np.inf)
    near = far.argmin(1)
    assert (group[near] == group)[alive].mean() > 0.95


def test_a_map_is_kept_for_the_same_sae_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = planted(tmp_path)
    monkeypatch.setattr("interp.report.gallery.map.LEAST", 2)
    monkeypatch.setattr(
        "interp.report.gallery.map._flatten", lambda points: np.ones((len(points), 2))
    )
    build_gallery(Run(run))
    path = run / "gallery/map.parquet"
    table = pq.read_table(path).to_pydict()
    assert table["latent"] == [0, 1]
    assert table["label"] == ["label 0", "label 1"]
    assert all((run / "gallery" / name).exists() for name in table["thumbnail"])
    decoder, alive = read_decoder(Run(run)), np.array([True, True])
    monkeypatch.setattr("interp.report.gallery.map.place", lambda *_: None)
    kept = find_places(decoder, alive, path, "sae")
    assert kept is not None
    assert kept.x.tolist() == table["x"] == [1.0, 1.0]
    assert find_places(decoder, alive, path, "another sae") is None
    assert SIDE == 10_000
