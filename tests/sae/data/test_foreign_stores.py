"""Other labs' embeddings are stores: the peers' own vectors come out, where they lie."""

from __future__ import annotations

import contextlib
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

from interp.evidence.reader import EvidenceReader
from sae.core.errors import FAILURES, OK, USAGE, Notice, UserError
from sae.data import store as room
from sae.data.adopt import adopt
from sae.data.formats.layout import Choice
from sae.data.image_folder import in_order
from sae.data.store import EmbeddingStore
from sae.interchange.load import load
from tests.support.commands import interp, sae
from tests.support.sae.foreign_stores import (
    CHUNKS,
    DATA,
    LATENTS,
    SAEV,
    image_names,
    values,
    write_chunks,
    write_images,
    write_saev,
)


def _all(store: EmbeddingStore) -> torch.Tensor:
    return store.read(np.arange(store.info.n_images))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(SAEV, tmp_path / "shards"))


@pytest.mark.parametrize("layer", [6, 9, 10])
def test_saev_shards_give_the_peers_own_vectors(layer: int) -> None:
    expected = load_file(SAEV.parents[3] / "expected.safetensors")
    cls, patches = (expected[f"{kind}_layer_{layer}"] for kind in ("cls", "patches"))
    stored = EmbeddingStore.open(f"{SAEV}@{layer},cls")
    assert torch.equal(_all(stored)[:, 0], cls)
    assert (stored.info.tokens_per_image, stored.info.grid) == (1, [])
    stored = EmbeddingStore.open(f"{SAEV}@{layer}")
    assert torch.equal(_all(stored).flatten(0, 1), patches)
    assert (stored.info.tokens, stored.info.grid, stored.info.shard_rows) == (
        *("patch", [2, 2]),
        [4, 4, 2],
    )
    both = torch.cat([cls[:, None], patches.view(10, 4, 16)], dim=1)
    assert torch.equal(_all(EmbeddingStore.open(f"{SAEV}@all,{layer}")), both)


def test_by_default_the_last_layers_patches_are_meant_also_of_a_folder_above() -> None:
    store = EmbeddingStore.open(SAEV.parents[2])
    assert (store.info.layer, store.info.tokens, store.info.clip) == (
        *("10", "patch"),
        "ViT-B-16/openai",
    )
    assert torch.equal(_all(store), _all(EmbeddingStore.open(f"{SAEV}@10,patch")))


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
    patches = _all(EmbeddingStore.open(f"{folder}@-2"))
    assert torch.equal(patches, torch.from_numpy(x[:, 0, int(cls) :]))
    assert torch.equal(_all(EmbeddingStore.open(f"{folder}@3,all")), torch.from_numpy(x[:, 1]))


def test_the_legacy_form_that_kept_cls_though_told_not_to_is_known_by_its_size(
    tmp_path: Path,
) -> None:
    x = values(5, 1, 5, 3)
    folder = write_saev(tmp_path / "s", x, [10], told_cls=False, protocol="")
    assert torch.equal(_all(EmbeddingStore.open(folder)), torch.from_numpy(x[:, 0, 1:]))
    assert torch.equal(_all(EmbeddingStore.open(f"{folder}@cls")), torch.from_numpy(x[:, 0, :1]))


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
    flat = _all(store).flatten(0, 1)
    draw = random.Random(0)
    for n in (0, 1, 7, len(flat)):
        tokens = np.array(sorted(draw.sample(range(len(flat)), n)), np.int64)
        out = torch.empty(n, 4)
        store.read_tokens(tokens, out)
        assert torch.equal(out, flat[torch.from_numpy(tokens)])
    rows = np.array([22, 0, 5, 5])
    assert torch.equal(store.read(rows), _all(store)[torch.from_numpy(rows)])


def test_only_so_many_shards_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_OPEN", 2)
    folder = write_saev(tmp_path / "s", values(9, 1, 3, 2), [1], per_shard=1)
    store = EmbeddingStore.open(folder)
    x = _all(store)
    assert list(store._shards) == [7, 8]
    assert torch.equal(_all(store), x)
    monkeypatch.setattr(room, "MAX_HELD", 300)
    chunks = EmbeddingStore.open(write_chunks(tmp_path / "c", [5] * 4))
    assert len(_all(chunks)) == 20
    assert list(chunks._shards) == [2, 3]


def test_the_pickle_in_the_metadata_is_never_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = DATA / "evil" / "store"
    store = EmbeddingStore.open(place / "checkpoint")
    assert _all(store)[0, 0].tolist() == [4, 5, 6, 7]
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
    with pytest.raises(UserError, match=r"store.json is missing"):
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


def test_embedding_chunks_are_the_peers_own() -> None:
    expected = load_file(CHUNKS.parent / "expected.safetensors")
    store = EmbeddingStore.open(CHUNKS)
    assert torch.equal(_all(store)[:, 0], expected["embeddings"])
    assert store.images["label"].astype(int).tolist() == expected["labels"].tolist()
    assert (store.info.layer, store.info.tokens) == ("projected", "cls")


@pytest.mark.parametrize("old", [False, True])
def test_chunks_of_any_sizes_follow_by_number(tmp_path: Path, old: bool) -> None:
    sizes = [4, 4, 1, 4, 2]
    form = {"_use_new_zipfile_serialization": not old}
    folder = write_chunks(tmp_path / "c", sizes, first=3, **form)
    (folder / "training_data.pt").write_bytes(b"another file")
    store = EmbeddingStore.open(folder)
    assert store.info.shard_rows == sizes
    assert _all(store)[:, 0, 0].tolist() == list(range(15))


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        (torch.float16, "float16"),
        (torch.bfloat16, "float32"),
        (torch.float64, "float32"),
    ],
)
def test_one_file_of_any_float_type_is_a_store(
    tmp_path: Path, dtype: torch.dtype, kept: str
) -> None:
    x = torch.arange(12.0).view(4, 3)
    path = tmp_path / "training_data.pt"
    torch.save({"embeddings": x.to(dtype), "labels": torch.tensor([3, 1, 2, 0])}, path)
    store = EmbeddingStore.open(path)
    assert store.info.dtype == kept
    assert torch.equal(_all(store)[:, 0].float(), x)


def test_damaged_chunks_are_refused(tmp_path: Path) -> None:
    folder = write_chunks(tmp_path / "c", [4, 4, 4, 4])
    os.truncate(folder / "batch_00003.pt", 300)
    with pytest.raises(UserError, match=r"batch_00003.pt is truncated or damaged"):
        EmbeddingStore.open(folder)
    torch.save({"embeddings": torch.zeros(4)}, folder / "batch_00003.pt")
    with pytest.raises(UserError, match=r"not \(images, d\) floats"):
        EmbeddingStore.open(folder)
    write_chunks(folder, [4, 4, 4, 4])
    wider = (folder / "batch_00001.pt", write_chunks(tmp_path / "w", [3], d=8) / "batch_00000.pt")
    shutil.copy(wider[1], wider[0])
    with pytest.raises(UserError, match=r"batch_00001.pt holds"):
        _all(EmbeddingStore.open(folder))
    wider[0].unlink()
    with pytest.raises(UserError, match=r"batch_00001.pt is missing"):
        EmbeddingStore.open(folder)


def test_adopting_copies_nothing_and_both_folders_may_move_together(tmp_path: Path) -> None:
    folder = write_saev(tmp_path / "a" / "s", values(10, 2, 5, 64), [1, 2])
    adopt(f"{folder}@1", tmp_path / "a" / "store", Choice(tokens="all"))
    names = sorted(p.name for p in (tmp_path / "a" / "store").iterdir())
    assert names == ["images.parquet", "store.json"]
    assert str(tmp_path) not in (tmp_path / "a" / "store" / "store.json").read_text()
    direct = EmbeddingStore.open(f"{folder}@1,all")
    (tmp_path / "a").rename(tmp_path / "b")
    store = EmbeddingStore.open(tmp_path / "b" / "store")
    assert torch.equal(_all(store), torch.from_numpy(values(10, 2, 5, 64)[:, 0]))
    assert store.info.identity == direct.info.identity
    (tmp_path / "b" / "s").rename(tmp_path / "b" / "gone")
    with pytest.raises(UserError, match="no longer at"):
        EmbeddingStore.open(tmp_path / "b" / "store")
    write_saev(tmp_path / "b" / "s", values(10, 2, 5, 64), [1, 3])
    with pytest.raises(UserError, match=r"no layer '1'|no longer holds"):
        EmbeddingStore.open(tmp_path / "b" / "store")


def test_other_embeddings_of_the_same_shape_are_not_taken_for_the_adopted_ones(
    tmp_path: Path,
) -> None:
    write_chunks(tmp_path / "c", [3, 3])
    adopt(tmp_path / "c", tmp_path / "store")
    torch.save({"embeddings": torch.randn(3, 6)}, tmp_path / "c" / "batch_00001.pt")
    with pytest.raises(UserError, match="no longer holds"):
        EmbeddingStore.open(tmp_path / "store")


def test_no_other_store_is_overwritten(tmp_path: Path, shards: Path) -> None:
    adopt(shards, tmp_path / "store")
    adopt(shards, tmp_path / "store", Choice(tokens="cls"))
    with pytest.raises(UserError, match="other embeddings are there"):
        adopt(CHUNKS, tmp_path / "store")
    with pytest.raises(UserError, match="other embeddings are there"):
        adopt(shards, shards)
    with pytest.raises(UserError, match="is none of"):
        adopt(tmp_path / "store", tmp_path / "twice")


def test_images_come_in_the_order_of_torchvision(tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    names = ["b/2.png", "b/10.png", "B/x/1.png", "B/x.png", "a/z/1.png", "a/z.JPG", "a/y/2.png"]
    folder = write_images(tmp_path / "i", [*names, "a/.hidden.png"])
    (folder / "a" / "notes.txt").write_text("no image")
    (folder / "readme.png").write_bytes(b"in no class")
    found = in_order(folder, len(names) + 1)
    peer = datasets.ImageFolder(folder)
    assert [str(folder / path) for path, _ in found] == [path for path, _ in peer.samples]
    assert [label for _, label in found] == [peer.classes[c] for _, c in peer.samples]


def test_with_its_images_a_store_knows_them_as_embed_does(tmp_path: Path) -> None:
    folder = write_saev(tmp_path / "s", values(5, 1, 5, 4), [1])
    names = ["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png", "dog/3.png"]
    images = write_images(tmp_path / "photos", names)
    words = ("--images", images, "--domain", "photo")
    assert sae("adopt", folder, "--out", tmp_path / "store", *words) == 0
    store = EmbeddingStore.open(tmp_path / "store")
    world = tmp_path / "own"
    domain = f"photo={images}"
    assert sae("embed", "--domain", domain, "--out", world, "--workers", 0) == 0
    ours, theirs = store.images, EmbeddingStore.open(world).images
    assert ours.to_dict("list") == theirs.to_dict("list")
    assert store.image_path(3) == images / "dog" / "2.png"
    assert store.domains == ["photo"]


def test_images_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = write_chunks(tmp_path / "c", [4, 3])  # classes 0 0 0 1 1 1 2
    good = image_names(["a", "a", "a", "b", "b", "b", "c"])
    adopted = adopt(folder, tmp_path / "s", images=write_images(tmp_path / "good", good))
    assert adopted.images["label"].tolist() == ["a", "a", "a", "b", "b", "b", "c"]
    for number, names in enumerate((good[:-1], image_names(list("aabbbbc")))):
        images = write_images(tmp_path / str(number), names)
        with pytest.raises(UserError, match=r"6 images in|do not follow each other"):
            adopt(folder, tmp_path / "t", images=images)
    assert not (tmp_path / "t").exists()


def test_images_nobody_has_shown_are_told_apart_and_asked_for(tmp_path: Path) -> None:
    store = EmbeddingStore.open(SAEV)
    assert store.images["image_id"].nunique() == 10
    assert store.images["image_id"].str.fullmatch("[0-9a-f]{64}").all()
    again = EmbeddingStore.open(shutil.copytree(SAEV, tmp_path / "copy"))
    assert again.images["image_id"].tolist() == store.images["image_id"].tolist()
    other = EmbeddingStore.open(CHUNKS).images["image_id"]
    assert not set(other) & set(store.images["image_id"])
    with pytest.raises(UserError, match=r"sae adopt .*--images FOLDER"):
        store.image_path(0)


def test_dense_latents_with_their_captions_are_a_store() -> None:
    expected = load_file(LATENTS.parent / "expected.safetensors")
    for place in (LATENTS, LATENTS / "latents.npy"):
        store = EmbeddingStore.open(place)
        assert torch.equal(_all(store)[:, 0], expected["latents"])
        assert store.info.layer == "latents"
    assert store.images["label"][0] == "tench"


def test_hostile_and_damaged_latents_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (("collect", DATA / "evil" / "npy"), ("collect", DATA / "evil/npy/latents.npy")):
        assert interp(*words, "--run", tmp_path / "run") == USAGE
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / "latents.npy"
    for array in (
        np.zeros(3),
        np.zeros((0, 4), "f4"),
        np.zeros((3, 4), "i4"),
        np.zeros((3, 4), "c8"),
    ):
        np.save(path, array)
        with pytest.raises(UserError, match="latents are"):
            EmbeddingStore.open(path)
    np.save(path, np.zeros((3, 4), "f4"))
    whole = path.read_bytes()
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999, 999999999), }"
    for data in (
        *(whole[:-4], whole[:60], whole[:7], b"\x93NUMPY\x01\x00", b"PK\x03\x04rest"),
        b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header,
        b"\x93NUMPY\x02\x00" + (1 << 31).to_bytes(4, "little") + b"{" * 20_000,
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match="no array of numbers"):
            EmbeddingStore.open(path)


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ({"0": "x"}, "1 captions for the 3"),
        ({"0": "x", "1": "y", "3": "z"}, 'no caption "2"'),
        (["x", "y", "z"], "JSON object"),
    ],
)
def test_captions_of_other_images_are_refused(
    tmp_path: Path, captions: object, message: str
) -> None:
    np.save(tmp_path / "latents.npy", np.ones((3, 4), "f4"))
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    with pytest.raises(UserError, match=message):
        EmbeddingStore.open(tmp_path)


def test_latents_in_any_order_of_memory_and_type_are_read(tmp_path: Path) -> None:
    x = np.arange(12.0).reshape(4, 3)
    for array in (np.asfortranarray(x, "f4"), x, x.astype("f2"), x.astype(">f4")):
        np.save(tmp_path / "latents.npy", array)
        store = EmbeddingStore.open(tmp_path)
        assert torch.equal(_all(store)[:, 0].float(), torch.from_numpy(x).float())


def test_commands_take_the_foreign_folder_itself(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2, 5, 8)).astype(np.float32)
    folder = write_saev(tmp_path / "s", x, [3, 4], per_shard=16)
    np.tile(np.arange(60, dtype=np.uint8)[:, None] % 3, 4).tofile(folder / "labels.bin")
    model, place = tmp_path / "sae", f"{folder}@3"
    small = ("--n-latents", 8, "--k", 2, "--epochs", 2, "--device", "cpu")
    assert sae("train", place, "--out", model, *small) == OK
    config = json.loads((model / "config.json").read_text())
    assert (config["clip"], config["layer"], config["tokens"]) == ("ViT-B-16/openai", "3", "patch")
    assert sae("eval", model, place, "--device", "cpu") == OK
    assert interp("collect", model, place, "--run", tmp_path / "run", "--device", "cpu") == OK
    assert sae("eval", model, f"{folder}@4") == USAGE  # another layer
    info = json.loads((tmp_path / "run" / "collect" / "collect.json").read_text())
    assert (info["n_images"], info["grid"]) == (60, [2, 2])
    assert EvidenceReader(tmp_path / "run").store.info.layer == "3"
    out = tmp_path / "imported"
    checkpoint = DATA / "ttt_topk_pt" / "checkpoint.pt"
    assert sae("import", checkpoint, "--out", out, "--store", CHUNKS) in (OK, FAILURES)


def test_a_foreign_sae_and_a_foreign_store_make_a_run_that_keeps_the_sae(tmp_path: Path) -> None:
    checkpoint = DATA / "ttt_topk_pt" / "checkpoint.pt"
    assert interp("collect", checkpoint, CHUNKS, "--run", tmp_path / "run") == OK
    x = _all(EmbeddingStore.open(CHUNKS))[:, 0]
    kept = load(tmp_path / "run" / "sae")
    with pytest.warns(Notice, match="normalise yours"):
        given = load(checkpoint).encode(x)
    assert torch.equal(kept.encode(x).acts, given.acts)
    active = (given.dense(kept.n_latents) > 0).sum(0)
    assert EvidenceReader(tmp_path / "run").latents["n_active"].tolist() == active.tolist()


@pytest.mark.parametrize("source", [SAEV, CHUNKS, LATENTS], ids=["saev", "chunks", "latents"])
def test_of_any_mutated_file_only_our_own_error_comes_out(source: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    for number in range(150):
        folder = Path(shutil.copytree(source, tmp_path / str(number)))
        path = draw.choice(sorted(folder.iterdir()))
        path.write_bytes(_mutated(path.read_bytes(), draw))
        with contextlib.suppress(UserError):
            store = EmbeddingStore.open(folder)
            _all(store)
            assert len(store.images) == store.info.n_images
        shutil.rmtree(folder)


def _mutated(data: bytes, draw: random.Random) -> bytes:
    """A few bytes changed near the start, where headers are, or a piece cut out or repeated."""
    changed = bytearray(data)
    span = min(len(data), draw.choice([64, 400, len(data)]))
    first = draw.randrange(span)
    match draw.randrange(4):
        case 0:
            for _ in range(draw.randint(1, 4)):
                changed[draw.randrange(span)] = draw.randrange(256)
        case 1:
            del changed[first : first + draw.randint(1, 40)]
        case 2:
            changed[first:first] = changed[first : first + draw.randint(1, 40)]
        case _:
            words = (b"-1", b"1e999", b"null", b"99999999999999999999", b"[]", b'"a"', b"NaN")
            changed[first : first + 2] = draw.choice(words)
    return bytes(changed)
