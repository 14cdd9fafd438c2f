"""saev's shards are a store: the peer's own vectors come out, where they lie."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sae.clip.config import SourceConfig
from sae.core.errors import USAGE, UserError
from sae.data import store as room
from sae.data.store import EmbeddingStore
from tests.support.commands import sae
from tests.support.sae.foreign_stores import (
    DATA,
    SAEV,
    all_vectors,
    values,
    write_chunks,
    write_saev,
)


@pytest.mark.parametrize("layer", [6, 9, 10])
def test_saev_shards_give_the_peers_own_vectors(layer: int) -> None:
    expected = load_file(SAEV.parents[3] / "expected.safetensors")
    cls, patches = (expected[f"{kind}_layer_{layer}"] for kind in ("cls", "patches"))
    stored = EmbeddingStore.open(f"{SAEV}@{layer},cls")
    assert torch.equal(all_vectors(stored)[:, 0], cls)
    assert (stored.info.tokens_per_image, stored.info.grid) == (1, [])
    stored = EmbeddingStore.open(f"{SAEV}@{layer}")
    assert torch.equal(all_vectors(stored).flatten(0, 1), patches)
    assert (stored.info.tokens, stored.info.grid, stored.info.shard_rows) == (
        *("patch", [2, 2]),
        [4, 4, 2],
    )
    both = torch.cat([cls[:, None], patches.view(10, 4, 16)], dim=1)
    assert torch.equal(all_vectors(EmbeddingStore.open(f"{SAEV}@all,{layer}")), both)


@pytest.mark.parametrize(("theirs", "ours"), [("content", "patch"), ("special", "cls")])
def test_saevs_own_words_for_tokens_are_taken(tmp_path: Path, theirs: str, ours: str) -> None:
    stored = EmbeddingStore.open(f"{SAEV}@10,{theirs}")
    assert stored.info == EmbeddingStore.open(f"{SAEV}@10,{ours}").info
    assert stored.info.tokens == ours
    out = tmp_path / "store"
    assert sae("adopt", str(SAEV), "--out", str(out), "--tokens", theirs) == 0
    assert EmbeddingStore.open(out).info.tokens == ours
    assert SourceConfig(tokens=theirs).tokens == ours
    with pytest.raises(
        UserError, match=r"tokens 'patches' is none of cls, patch, all \(saev's con"
    ):
        SourceConfig(tokens="patches")
    assert sae("embed", "--domain", f"a={tmp_path}", "--out", "o", "--tokens", "patches") == 2


def test_by_default_the_last_layers_patches_are_meant_also_of_a_folder_above() -> None:
    store = EmbeddingStore.open(SAEV.parents[2])
    assert (store.info.layer, store.info.tokens, store.info.clip) == (
        *("10", "patch"),
        "ViT-B-16/openai",
    )
    assert torch.equal(all_vectors(store), all_vectors(EmbeddingStore.open(f"{SAEV}@10,patch")))


@pytest.mark.parametrize("cls", [True, False])
@pytest.mark.parametrize("protocol", ["2.1", "2.0", "1.0.0", ""])
@pytest.mark.parametrize(("n", "per_shard"), [(10, 4), (8, 4), (3, 5), (1, 1)])
def test_every_protocol_and_any_shape_is_read(
    tmp_path: Path, n: int, per_shard: int, protocol: str, cls: bool
) -> None:
    x = values(n, 2, 6 + cls, 5)
    folder = write_saev(
        tmp_path / "s", x, [-2, 3], cls=cls, per_shard=per_shard, spare=7, protocol=protocol
    )
    patches = all_vectors(EmbeddingStore.open(f"{folder}@-2"))
    assert torch.equal(patches, torch.from_numpy(x[:, 0, int(cls) :]))
    assert torch.equal(
        all_vectors(EmbeddingStore.open(f"{folder}@3,all")), torch.from_numpy(x[:, 1])
    )


def test_the_legacy_form_that_kept_cls_though_told_not_to_is_known_by_its_size(
    tmp_path: Path,
) -> None:
    x = values(5, 1, 5, 3)
    folder = write_saev(tmp_path / "s", x, [10], told_cls=False, protocol="")
    assert torch.equal(all_vectors(EmbeddingStore.open(folder)), torch.from_numpy(x[:, 0, 1:]))
    assert torch.equal(
        all_vectors(EmbeddingStore.open(f"{folder}@cls")), torch.from_numpy(x[:, 0, :1])
    )


def test_cls_alone_and_patches_alone(tmp_path: Path) -> None:
    alone = write_saev(tmp_path / "cls", values(5, 1, 1, 3), [1])
    assert EmbeddingStore.open(alone).info.tokens == "cls"
    with pytest.raises(UserError, match="CLS tokens alone"):
        EmbeddingStore.open(f"{alone}@patch")
    none = write_saev(tmp_path / "patch", values(5, 1, 4, 3), [1], cls=False)
    assert EmbeddingStore.open(f"{none}@all").info.tokens == "patch"
    with pytest.raises(UserError, match="no CLS"):
        EmbeddingStore.open(f"{none}@cls")


def test_tokens_in_any_stretch_equal_those_of_whole_images(tmp_path: Path) -> None:
    folder = write_saev(tmp_path / "s", values(23, 3, 5, 4), [1, 2, 3], per_shard=3)
    store = EmbeddingStore.open(f"{folder}@2")
    flat = all_vectors(store).flatten(0, 1)
    draw = random.Random(0)
    for n in (0, 1, 7, len(flat)):
        tokens = np.array(sorted(draw.sample(range(len(flat)), n)), np.int64)
        out = torch.empty(n, 4)
        store.read_tokens(tokens, out)
        assert torch.equal(out, flat[torch.from_numpy(tokens)])
    rows = np.array([22, 0, 5, 5])
    assert torch.equal(store.read(rows), all_vectors(store)[torch.from_numpy(rows)])


def test_only_so_many_shards_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_OPEN", 2)
    folder = write_saev(tmp_path / "s", values(9, 1, 3, 2), [1], per_shard=1)
    store = EmbeddingStore.open(folder)
    x = all_vectors(store)
    assert list(store._shards) == [7, 8]
    assert torch.equal(all_vectors(store), x)
    monkeypatch.setattr(room, "MAX_HELD", 300)
    chunks = EmbeddingStore.open(write_chunks(tmp_path / "c", [5] * 4))
    assert len(all_vectors(chunks)) == 20
    assert list(chunks._shards) == [2, 3]


def test_the_pickle_in_the_metadata_is_never_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = DATA / "evil" / "store"
    store = EmbeddingStore.open(place / "checkpoint")
    assert all_vectors(store)[0, 0].tolist() == [4, 5, 6, 7]
    assert len(store.images) == 2
    assert sae("adopt", place / "checkpoint", "--out", tmp_path / "store") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store"]


def _cut(name: str, n: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, n)


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _grown(folder: Path) -> None:
    with (folder / "acts000000.bin").open("ab") as file:
        file.write(b"\0" * 4)


def _told(name: str, **changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**values, **changes}))

    return change


def _listed(entries: object) -> Callable[[Path], None]:
    return lambda folder: (folder / "shards.json").write_text(json.dumps(entries)) and None  # type: ignore[func-returns-value]


def _entries(*counts: int, name: str = "acts{:06d}.bin") -> list[dict[str, object]]:
    return [{"name": name.format(s), "n_examples": n} for s, n in enumerate(counts)]


DAMAGE = {
    "half a last shard": (_cut("acts000002.bin", 1920), "has 1,920 bytes, not 3,840"),
    "a shard too large": (_grown, "has 3,844 bytes, not 3,840"),
    "a shard gone": (_without("acts000001.bin"), "2 files acts.*1 lack"),
    "another name": (lambda f: (f / "acts000001.bin").rename(f / "acts7.bin"), "is missing"),
    "no shards.json": (_without("shards.json"), "shards.json is missing"),
    "unfinished": (_listed(_entries(4, 4)), "8 examples, but metadata.json of 10"),
    "other counts": (_listed(_entries(4, 2, 4)), "4, 2, 4 .*gives 4, 4, 2"),
    "counts below 0": (_listed(_entries(4, -1, 7)), "entry 1"),
    "a way out": (_listed(_entries(4, 4, 2, name="../{}.bin")), "entry 0"),
    "no list": (_listed({"name": 1}), "does not hold a list"),
    "torn JSON": (_cut("shards.json", 30), "not valid JSON"),
    "torn metadata": (_cut("metadata.json", 30), "not valid JSON"),
    "more examples": (_told("metadata.json", n_examples=11), "10 examples, .*of 11"),
    "endless examples": (_told("metadata.json", n_examples=10**18), "3 files acts"),
    "no examples": (_told("metadata.json", n_examples=0), "whole number from 1"),
    "half an example": (_told("metadata.json", n_examples=9.5), "whole number"),
    "infinite": (_told("metadata.json", d_model=float("inf")), "damaged|whole number"),
    "another width": (_told("metadata.json", d_model=17), "bytes, not 4,080"),
    "a small budget": (_told("metadata.json", max_tokens_per_shard=14), "fewer than one example"),
    "no layers": (_told("metadata.json", layers=[]), "layers"),
    "layers of text": (_told("metadata.json", layers=["6"]), "layers"),
    "another type": (_told("metadata.json", dtype="object"), "dtype"),
    "short labels": (_cut("labels.bin", 39), "labels.bin has 39 bytes"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_shards_are_refused_in_one_line_before_anything_is_used(
    shards: Path, what: str
) -> None:
    damage, message = DAMAGE[what]
    damage(shards)
    with pytest.raises(UserError, match=message) as caught:
        assert EmbeddingStore.open(shards).images is None
    assert caught.value.exit_code == USAGE
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_named(shards: Path) -> None:
    for asked, message in (("@7", "no layer '7'; it has 6, 9, 10"), ("@first", "neither a layer")):
        with pytest.raises(UserError, match=message):
            EmbeddingStore.open(f"{shards}{asked}")
    with pytest.raises(UserError, match="nothing does not exist"):
        EmbeddingStore.open(shards.parent / "nothing")
    shutil.copytree(shards, shards / "again")
    shutil.copytree(shards, shards / "more")
    (shards / "metadata.json").unlink()
    with pytest.raises(UserError, match=r"2 sets of shards .again, more"):
        EmbeddingStore.open(shards)


def test_an_image_of_saev_has_the_commonest_class_of_its_patches(tmp_path: Path) -> None:
    folder = write_saev(tmp_path / "s", values(3, 1, 5, 2), [1])
    np.array([[7, 7, 2, 1], [9, 3, 3, 9], [0, 0, 0, 255]], np.uint8).tofile(folder / "labels.bin")
    assert EmbeddingStore.open(folder).images["label"].tolist() == ["7", "3", "0"]
