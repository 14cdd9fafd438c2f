"""Near-duplicates of a store: what is joined, what is not, and that none is on the other side."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from interp.evidence.collect import collect
from interp.evidence.config import CollectConfig
from interp.evidence.groups.hashes import Hashes, perceptual_hash, read_hashes
from interp.evidence.groups.twins import Rule, find_twins, unit_vectors
from interp.evidence.reader import EvidenceReader
from interp.records.split import split_of
from interp.score.sampling import SampleConfig, draw_sample
from sae.data.images import content_id
from sae.data.store import EmbeddingStore
from sae.data.store_format import ImageRow
from tests.support.interp.collected import make_store
from tests.support.interp.copies import (
    D_IMAGE,
    Copies,
    SetLatents,
    draw_pictures,
    jpeg_of,
    make_copies,
    set_activations,
    write_vectors,
)


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Copies:
    return make_copies(tmp_path_factory.mktemp("copies"), n_pictures=70)


@pytest.fixture(scope="module")
def reader(copies: Copies, tmp_path_factory: pytest.TempPathFactory) -> EvidenceReader:
    run = tmp_path_factory.mktemp("run")
    collect(copies.store, SetLatents(copies.store.info.d, 4), run)  # type: ignore[arg-type]
    return EvidenceReader(run)


def _twin_pairs(store: EmbeddingStore, rule: Rule) -> np.ndarray:
    """(n, n): all pairs by the issue's rule, with imagehash and plain numpy."""
    folder = store.path.parent / "photo"
    opened = [Image.open(folder / path).convert("RGB") for path in store.images["path"]]
    bits = np.stack([imagehash.phash(image).hash.ravel() for image in opened])
    distance = (bits[:, None] ^ bits[None]).sum(2)
    x = store.read(np.arange(len(opened)))[:, 0].float().numpy()
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    alike = (x @ x.T > rule.cosine_above) & (distance <= 8)
    return np.triu(alike | (distance <= 4), 1)


def test_no_copy_is_on_the_other_side_of_its_picture(copies: Copies, reader) -> None:
    ids = copies.store.images["image_id"].tolist()
    groups = [reader.groups.get(image_id, image_id) for image_id in ids]
    sides = np.array([split_of(group) for group in groups])
    twins = np.argwhere(_twin_pairs(copies.store, Rule()))
    assert len(twins) > 150
    assert (sides[twins[:, 0]] == sides[twins[:, 1]]).all()
    # The least id of a group begins with small digits: by itself it would favour one side.
    assert 0.35 < (sides == "explain").mean() < 0.65
    # What the split was before groups: it parts many.
    before = np.array([split_of(image_id) for image_id in ids])
    assert (before[twins[:, 0]] != before[twins[:, 1]]).mean() > 0.3


@pytest.mark.parametrize(("kind", "least"), [("saved again", 1.0), ("thumbnail", 0.98)])
def test_copies_are_found_and_different_pictures_are_not_joined(copies, reader, kind, least):
    ids = copies.store.images["image_id"].to_numpy()
    group = np.array([reader.groups.get(image_id, image_id) for image_id in ids])
    drawn = group[copies.kind == "drawn"]
    assert (group[copies.kind == kind] == drawn).mean() >= least
    assert len(set(drawn)) >= 0.97 * len(drawn)
    assert reader.info.n_groups == pytest.approx(70, abs=2)
    assert reader.info.grouped_share == pytest.approx(1, abs=0.02)
    assert reader.info.largest_group <= 6
    assert reader.info.ungrouped == ""


def test_a_group_has_a_side_of_its_own_and_an_image_alone_stays_where_it_was(reader) -> None:
    members: dict[str, set[str]] = {}
    for image_id, group in reader.groups.items():
        members.setdefault(group, set()).add(image_id)
    assert all(sha256(min(ids).encode()).hexdigest() == group for group, ids in members.items())
    assert all(len(ids) > 1 for ids in members.values())
    for example in reader.of(0).examples:
        assert example.group == reader.groups.get(example.image_id, "")
        assert example.side == split_of(example.group or example.image_id)


def test_the_hash_is_that_of_imagehash_and_a_plain_image_has_one_of_its_colour() -> None:
    [picture] = draw_pictures(1, size=96)
    assert perceptual_hash(picture) == int(str(imagehash.phash(picture)), 16)
    red, other, blue = (
        perceptual_hash(Image.new("RGB", size, colour))
        for size, colour in (((64, 64), "red"), ((32, 48), "red"), ((64, 64), "blue"))
    )
    assert red == other
    assert (red ^ blue).bit_count() > 8
    assert perceptual_hash(jpeg_of(Image.new("RGB", (64, 64), (200, 44, 100)), 60)) == (
        perceptual_hash(Image.new("RGB", (64, 64), (200, 44, 100)))
    )


def _vector_store(tmp_path: Path, x: np.ndarray) -> EmbeddingStore:
    ids = [content_id(b"%d" % number) for number in range(len(x))]
    rows = [ImageRow(name, f"{k}.png", "photo", "", 8, 8) for k, name in enumerate(ids)]
    return write_vectors(tmp_path / "store", x, rows)


def _hashes(values: np.ndarray) -> Hashes:
    return Hashes(values.astype(np.uint64), np.ones(len(values), bool))


def _flip(value: int, *bits: int) -> int:
    return value ^ sum(1 << bit for bit in bits)


def test_both_halves_of_the_rule_count_and_twins_of_twins_belong_together(tmp_path) -> None:
    a, b = 0x0123456789ABCDEF, 0xF0E1D2C3B4A59687
    values = [a, _flip(a, 1, 20, 40, 60), _flip(a, *range(0, 12, 2)), b, _flip(b, *range(0, 12, 2))]
    x = np.eye(5)[[0, 1, 2, 3, 3]] + 0.01  # the last two look alike, the third like no other
    twins = find_twins(_vector_store(tmp_path, x), _hashes(np.array(values, np.uint64)))
    labels = twins.labels
    assert labels[0] == labels[1] != labels[2]
    assert labels[3] == labels[4]
    # A bridge joins the third: two bits from it, four from the first.
    values.append(_flip(a, 0, 2, 4, 6))
    x = np.eye(6)[[0, 1, 2, 3, 3, 5]] + 0.01
    twins = find_twins(_vector_store(tmp_path / "b", x), _hashes(np.array(values, np.uint64)))
    assert len({twins.labels[k] for k in (0, 1, 2, 5)}) == 1


def test_an_image_without_a_hash_or_a_vector_is_alone(tmp_path) -> None:
    a = 0x0123456789ABCDEF
    hashes = Hashes(np.array([a, a, a, 0, 0], np.uint64), np.array([1, 1, 1, 0, 0], bool))
    x = np.ones((5, 4))
    x[2] = 0  # no direction, though the hash alone is enough
    labels = find_twins(_vector_store(tmp_path, x), hashes).labels
    assert labels[0] == labels[1] == labels[2]
    assert len({labels[2], labels[3], labels[4]}) == 3


def test_vectors_that_are_all_alike_do_not_join_what_the_hash_only_half_joins(tmp_path) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**63, 300, dtype=np.uint64)
    values[1::2] = values[::2] ^ np.uint64(0b111111)  # six bits: only a cosine may join them
    x = np.concatenate([np.ones((300, 1)) * 8, rng.normal(size=(300, 12)) * 0.3], 1)
    x[20:40:2] = x[21:40:2]
    twins = find_twins(_vector_store(tmp_path, x), _hashes(values))
    assert twins.rule.cosine_above > 0.97  # nearly all cosines are above .95 here
    joined = twins.labels[1::2] == twins.labels[::2]
    assert joined[10:20].all()
    assert joined.mean() < 0.15
    assert (twins.n_pairs, twins.n_joined) == (300 * 299 // 2, joined.sum())


def test_a_chain_through_many_pictures_is_taken_apart_and_many_copies_are_not(tmp_path) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**63, 400, dtype=np.uint64)
    for k in range(1, 100):  # each four bits from the one before
        flips = sum(1 << int(bit) for bit in rng.choice(64, 4, replace=False))
        values[k] = values[k - 1] ^ np.uint64(flips)
    values[100:200] = values[100] ^ (np.uint64(1) << rng.integers(0, 64, 100).astype(np.uint64))
    x = rng.normal(size=(400, 16))
    twins = find_twins(_vector_store(tmp_path, x), _hashes(values))
    assert twins.rule.hash_alone == 2
    assert np.bincount(twins.labels[:100]).max() == 1
    assert len(set(twins.labels[100:200])) == 1


def test_hashes_are_read_once_and_kept_with_the_store(copies, tmp_path, monkeypatch) -> None:
    first = read_hashes(copies.store, tmp_path)
    assert first.known.all()
    assert (copies.store.path / "hashes.parquet").exists()
    monkeypatch.setattr("interp.evidence.groups.hashes._hash_row", lambda *_: 1 / 0)
    again = read_hashes(copies.store, tmp_path)
    assert (again.values == first.values).all()


def test_a_stopped_command_goes_on_with_the_hashes_that_it_has(copies, tmp_path, monkeypatch):
    (copies.store.path / "hashes.parquet").unlink(missing_ok=True)
    monkeypatch.setattr("interp.evidence.groups.hashes._AT_ONCE", 16)
    monkeypatch.setattr("interp.evidence.groups.hashes._KEEP_EVERY", 32)
    counts: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        counts.append((done, total))
        if done >= 96:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_hashes(copies.store, tmp_path, stop)
    counts.clear()
    found = read_hashes(copies.store, tmp_path, lambda *seen: counts.append(seen))
    assert found.known.all()
    assert counts[-1] == (210 - 96, 210 - 96)


@pytest.mark.parametrize(("t", "first", "last"), [(4, 0, 4), (5, 0, 1), (1, 0, 1)])
def test_an_image_has_the_vector_of_its_cls_token_or_else_the_mean_of_its_patches(
    tmp_path: Path, t: int, first: int, last: int
) -> None:
    store = make_store(tmp_path / "store", 30, t, [2, 2] if t > 1 else None)
    rows = np.array([0, 7, 29])
    x = store.read(rows).float().numpy()[:, first:last].mean(1)
    with np.errstate(invalid="ignore"):
        expected = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(unit_vectors(store, rows), expected, rtol=1e-5)


def test_a_changed_and_a_missing_image_are_alone(tmp_path) -> None:
    made = make_copies(tmp_path, n_pictures=4)
    (tmp_path / "photo" / "0.png").unlink()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "photo" / "1.png")
    known = read_hashes(made.store, tmp_path / "run").known
    paths = made.store.images["path"].tolist()
    assert [path for path, k in zip(paths, known, strict=True) if not k] == ["0.png", "1.png"]


def test_a_memoriser_scores_at_chance_on_latents_without_content(tmp_path) -> None:
    """1,400 pictures in four copies. It grades an image by the nearest one that was shown."""
    rng = np.random.default_rng(0)
    picture = np.repeat(np.arange(1400), 4)
    flips = np.uint64(1) << rng.integers(0, 64, len(picture)).astype(np.uint64)
    hashes = _hashes(rng.integers(0, 2**63, 1400, dtype=np.uint64)[picture] ^ flips)
    x = rng.normal(size=(1400, D_IMAGE))[picture] + 0.05 * rng.normal(size=(5600, D_IMAGE))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    latents = set_activations(picture, 100, share=0.03)
    store = _vector_store(tmp_path, np.concatenate([x, latents], 1))
    model = SetLatents(store.info.d, 100)

    def score(run: Path, config: CollectConfig) -> float:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("interp.evidence.groups.find.read_hashes", lambda *_: hashes)
            collect(store, model, run, config)  # type: ignore[arg-type]
        found = EvidenceReader(run)
        return float(np.mean([_memorise(found, x, latent) for latent in range(100)]))

    assert score(tmp_path / "grouped", CollectConfig()) <= 0.53
    assert score(tmp_path / "split", CollectConfig(no_groups=True)) >= 0.6


def _memorise(reader: EvidenceReader, x: np.ndarray, latent: int) -> float:
    evidence = reader.of(latent)
    shown = x[[e.row for e in evidence.of("explain", "top")[:16]]]
    sample = draw_sample(evidence, SampleConfig())
    tested = x[[e.row for e in (*sample.positives, *sample.negatives)]]
    truth = [1] * len(sample.positives) + [0] * len(sample.negatives)
    return float(roc_auc_score(truth, (tested @ shown.T).max(1)))
