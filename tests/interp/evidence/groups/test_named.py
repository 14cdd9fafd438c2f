"""Groups that a user names: in a CSV file, or in a column of images.parquet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.evidence.collect import collect
from interp.evidence.config import CollectConfig
from interp.evidence.groups.named import read_named
from interp.evidence.reader import EvidenceReader
from interp.records.split import name_group, split_of
from interp.score.sampling import SampleConfig, draw_sample
from sae.core.errors import UserError
from sae.data.store import EmbeddingStore
from tests.support.interp.collected import DENSE, make_sae, make_store
from tests.support.interp.one_pass import SMALL


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    """90 images; paths are `<class>/<number>.png`, of two domains."""
    return make_store(tmp_path_factory.mktemp("named") / "store", 90)


def _file(tmp_path: Path, *lines: str, head: str = "path,group") -> Path:
    path = tmp_path / "groups.csv"
    path.write_text("\n".join((head, *lines)) + "\n", encoding="utf-8-sig")
    return path


def _paths(store: EmbeddingStore, *rows: int) -> list[str]:
    return [str(store.images["path"][row]) for row in rows]


def test_named_images_are_on_the_side_of_their_group(store, tmp_path) -> None:
    one, two, three, four = (_paths(store, *rows) for rows in ((3, 4), (4, 5), (10,), (11,)))
    lines = [f"{path},a" for path in one] + [f"{path},b" for path in two]
    domain = store.images["domain"][10]
    lines += [f"./{domain}/{three[0]},c", f"{four[0]},", f'"{_paths(store, 12)[0]}",c']
    info = collect(store, make_sae(), tmp_path / "run", SMALL, groups=_file(tmp_path, *lines))
    assert (info.n_groups, info.largest_group) == (2, 3)
    assert info.grouped_share == 5 / 90
    reader, ids = EvidenceReader(tmp_path / "run"), store.images["image_id"].tolist()
    bridged, pair = name_group([ids[3], ids[4], ids[5]]), name_group([ids[10], ids[12]])
    assert reader.groups == {
        ids[row]: name for rows, name in (((3, 4, 5), bridged), ((10, 12), pair)) for row in rows
    }
    for latent in range(24):
        for e in reader.of(latent).examples:
            assert e.side == split_of(reader.groups.get(e.image_id, e.image_id))


def test_a_column_of_the_store_counts_like_a_file_and_its_own_words_are_others(store, tmp_path):
    path = store.path / "images.parquet"
    before = path.read_bytes()
    try:
        images = store.images.assign(group=[""] * 88 + ["a", "a"])
        images.to_parquet(path, index=False)
        opened = EmbeddingStore.open(store.path)
        file = _file(tmp_path, f"{_paths(store, 0)[0]},a", f"{_paths(store, 1)[0]},a")
        named = read_named(opened, file)
        assert set(zip(named.first, named.second, strict=True)) >= {(88, 89), (0, 1)}
        assert (named.first != 88).sum() == 2  # "a" of the file is not the column's
        images.assign(group=pd.Series([None] * 88 + ["a", "a"])).to_parquet(path, index=False)
        assert read_named(EmbeddingStore.open(store.path), None).first.tolist() == [88, 88]
    finally:
        path.write_bytes(before)
    assert "group" not in EmbeddingStore.open(store.path).images


def test_a_duplicate_that_was_skipped_stands_for_its_twin(store, tmp_path) -> None:
    twin = f"{store.images['domain'][7]}/{store.images['path'][7]}"
    skipped = store.path / "skipped.csv"
    before = skipped.read_text()
    skipped.write_text(
        f"path,domain,reason\nx/again.png,photo,duplicate of {twin}\nx/bad.png,photo,damaged\n"
    )
    try:
        lines = ["x/again.png,a", f"{_paths(store, 8)[0]},a", "x/bad.png,a"]
        named = read_named(store, _file(tmp_path, *lines))
    finally:
        skipped.write_text(before)
    assert (named.first.tolist(), named.second.tolist()) == ([7, 7], [7, 8])


@pytest.mark.parametrize(
    ("lines", "head", "said"),
    [
        (["cat/99.png,a"], "path,group", r"names 1 images that .*'cat/99.png'.*did you mean"),
        (["u,a", "v,a", "w,a", "x,"], "path,group", r"names 4 images .*'u', 'v', 'w', and 1 more"),
        (["cat/0.png,a"], "file,group", r"has the columns file, group; it must have path,group"),
        ([], "", r"has the columns \(none\)"),
    ],
)
def test_what_a_file_lacks_is_named(store, tmp_path, lines, head, said) -> None:
    with pytest.raises(UserError, match=said):
        read_named(store, _file(tmp_path, *lines, head=head))
    with pytest.raises(UserError, match="there is no such file"):
        read_named(store, tmp_path / "missing.csv")


def test_other_groups_are_another_collect(store, tmp_path) -> None:
    file = _file(tmp_path, *(f"{path},a" for path in _paths(store, 1, 2)))
    collect(store, make_sae(), tmp_path / "run", SMALL, groups=file)
    assert collect(store, make_sae(), tmp_path / "run", SMALL, groups=file).n_groups == 1
    with pytest.raises(UserError, match=r"groups_sha256 .*--overwrite"):
        collect(store, make_sae(), tmp_path / "run", SMALL)
    with pytest.raises(UserError, match="exclude each other"):
        collect(store, make_sae(), tmp_path / "run", replace(SMALL, no_groups=True), groups=file)


def test_without_reachable_images_the_split_is_by_image_and_says_so(store, tmp_path) -> None:
    with pytest.warns(UserWarning, match=r"near-duplicates were not looked for .*--images"):
        info = collect(store, make_sae(), tmp_path / "run", SMALL)
    assert info.ungrouped == "no image of the store can be read here"
    skipped = collect(store, make_sae(), tmp_path / "off", replace(SMALL, no_groups=True))
    assert skipped.ungrouped == "--no-groups"
    one, other = (EvidenceReader(tmp_path / run).examples for run in ("run", "off"))
    pd.testing.assert_frame_equal(one, other)


def test_the_side_select_is_a_part_of_the_explain_side_and_the_score_side_stays(store, tmp_path):
    config = CollectConfig(n_top=200, n_sample=90, n_silent=60, n_hard=8, no_groups=True)
    collect(store, make_sae(), tmp_path / "two", config)
    collect(store, make_sae(), tmp_path / "three", replace(config, select=True))
    two, three = (EvidenceReader(tmp_path / run) for run in ("two", "three"))
    for latent in range(24):
        before, after = two.of(latent), three.of(latent)
        rows = {side: {e.row for e in after.of(side, "top")} for side in ("explain", "select")}
        assert {e.row for e in before.of("explain", "top")} == rows["explain"] | rows["select"]
        assert not rows["explain"] & rows["select"]
        score = [(e.row, e.kind, e.rank) for e in after.examples if e.side == "score"]
        assert score == [(e.row, e.kind, e.rank) for e in before.examples if e.side == "score"]
        assert all(e.side == split_of(e.image_id, select=True) for e in after.examples)
    few = SampleConfig(n_positive=5, n_negative=5, n_least=1)
    chosen = draw_sample(three.of(DENSE), replace(few, side="select"))
    assert len(chosen.positives) == len(chosen.negatives) == 5
    assert {e.side for e in (*chosen.positives, *chosen.negatives)} == {"select"}
    ids = store.images["image_id"]
    share = np.mean([split_of(i, select=True) == "select" for i in ids])
    assert 0.1 < share < 0.3
