"""interp/evidence.py: what collect wrote is read back latent by latent."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from collected import DEAD, D, make_sae, make_store
from PIL import Image

from interp.collect import CollectConfig, collect
from interp.evidence import EvidenceReader
from interp.records import from_json, to_json
from sae.errors import UserError
from sae.images import BadImage


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> EvidenceReader:
    folder = tmp_path_factory.mktemp("evidence")
    store = make_store(folder / "store", 400)
    collect(store, make_sae(), folder / "run", CollectConfig(n_top=4, n_sample=10))
    return EvidenceReader(folder / "run")


def test_evidence_of_each_latent_is_its_part_of_the_tables(reader) -> None:
    n_seen = 0
    for latent in (*range(D), 11, 2):
        evidence = reader.of(latent)
        frame = reader.examples[reader.examples["latent"] == latent]
        assert [e.row for e in evidence.examples] == frame["row"].tolist()
        assert [e.kind for e in evidence.examples] == frame["kind"].tolist()
        assert evidence.stats.latent == latent
        assert evidence.stats.n_active == reader.latents["n_active"][latent]
        n_seen += len(evidence.examples)
    assert n_seen > reader.info.n_examples > 0


def test_evidence_holds_plain_python_values_and_survives_json(reader) -> None:
    evidence = reader.of(11)
    assert repr(from_json(type(evidence), to_json(evidence))) == repr(evidence)
    assert type(evidence.stats.hist) is tuple
    assert len(evidence.stats.hist) == 32
    assert sum(evidence.stats.hist) == evidence.stats.n_active
    assert list(evidence.stats.domain_rate) == reader.info.domains == ["sketch", "photo"]


def test_a_dead_latent_has_statistics_and_no_examples(reader) -> None:
    evidence = reader.of(DEAD)
    assert evidence.examples == ()
    assert evidence.stats.status == "dead"
    assert math.isnan(evidence.stats.mean_act)
    assert math.isnan(evidence.stats.sketch_share)
    assert math.isnan(evidence.stats.class_entropy)
    assert evidence.stats.top_classes == ()


@pytest.mark.parametrize("latent", [-1, D])
def test_a_latent_that_does_not_exist_is_refused(reader, latent: int) -> None:
    with pytest.raises(UserError, match=f"no latent {latent} .* 0 to {D - 1}"):
        reader.of(latent)


def test_the_image_of_an_example_comes_from_the_stores_roots(reader) -> None:
    example = reader.of(11).examples[0]
    path = reader.run_dir.parent / example.domain / example.path
    (reader.run_dir.parent / example.domain).mkdir()
    with pytest.raises(BadImage):
        reader.image(example)
    path.parent.mkdir(parents=True)
    Image.new("RGB", (5, 3), (200, 10, 10)).save(path)
    assert reader.image(example).size == (5, 3)
    assert reader.image(example).getpixel((0, 0)) == (200, 10, 10)


def test_evidence_needs_no_store_until_an_image_is_asked_for(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", 60)
    collect(store, make_sae(), tmp_path / "run", CollectConfig())
    (tmp_path / "store").rename(tmp_path / "gone")
    reader = EvidenceReader(tmp_path / "run")
    example = reader.of(reader.live()[0]).examples[0]
    with pytest.raises(UserError, match="sae embed"):
        reader.image(example)


def test_a_store_that_was_made_anew_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", 60)
    collect(store, make_sae(), tmp_path / "run", CollectConfig())
    (tmp_path / "store").rename(tmp_path / "old")
    make_store(tmp_path / "store", 61)
    with pytest.raises(UserError, match="--overwrite"):
        _ = EvidenceReader(tmp_path / "run").store


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", 60)
    collect(store, make_sae(), tmp_path / "run", CollectConfig())
    (tmp_path / "run/collect/examples.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"examples\.parquet is missing or damaged"):
        EvidenceReader(tmp_path / "run")


def test_a_run_without_evidence_names_the_next_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="interp collect"):
        EvidenceReader(tmp_path)
