"""interp/evidence.py: what collect wrote is read back latent by latent."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from interp.evidence.collect import collect
from interp.evidence.config import CollectConfig
from interp.evidence.reader import EvidenceReader
from interp.records.types import Evidence, Example, HeldOut, LatentStats
from sae.core.errors import UserError
from sae.core.files import sha256_of
from sae.data.images import BadImage
from tests.support.interp.collected import DEAD, D, make_sae, make_store


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


@pytest.mark.parametrize("grid", [None, [3, 3]], ids=["cls", "patches"])
@pytest.mark.parametrize("group", [None, 7], ids=["one group of rows", "many"])
def test_evidence_by_slices_of_columns_equals_evidence_by_rows(
    tmp_path: Path, grid: list[int] | None, group: int | None
) -> None:
    store = make_store(tmp_path / "store", 90, t=9 if grid else 1, grid=grid)
    collect(store, make_sae(), tmp_path / "run", CollectConfig(n_top=4, n_sample=10))
    path = tmp_path / "run/collect/examples.parquet"
    pq.write_table(pq.read_table(path), path, row_group_size=group)  # each with its own dictionary
    reader = EvidenceReader(tmp_path / "run")
    slowly = list(map(repr, by_rows(tmp_path / "run")))
    assert len(slowly) == D
    assert [repr(reader.of(latent)) for latent in reversed(range(D))] == slowly[::-1]
    assert ("heat=b" in slowly[11]) == (grid is not None)


def by_rows(run_dir: Path) -> list[Evidence]:
    """The evidence as Arrow gives it, a dictionary a row."""
    examples = [Example(**row) for row in rows_of(run_dir, "examples")]
    return [
        Evidence(stats_of(row), tuple(e for e in examples if e.latent == row["latent"]))
        for row in rows_of(run_dir, "latents")
    ]


def rows_of(run_dir: Path, table: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(run_dir / f"collect/{table}.parquet").to_pylist()
    return rows


def stats_of(row: dict[str, Any]) -> LatentStats:
    classes = tuple((one["label"], one["n"]) for one in row["top_classes"])
    held_out = tuple(HeldOut(**one) for one in row["held_out"])
    lists = {"hist": tuple(row["hist"]), "top_classes": classes, "held_out": held_out}
    return LatentStats(**{**row, **lists})


def test_evidence_is_read_without_torch_and_without_pandas(reader) -> None:
    code = (
        "import sys\n"
        "from interp.evidence.reader import EvidenceReader\n"
        f"reader = EvidenceReader({str(reader.run_dir)!r})\n"
        "assert reader.of(reader.live()[0]).examples\n"
        "print([name for name in ('torch', 'pandas', 'open_clip') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_examples_are_not_read_for_the_status_alone(reader, monkeypatch) -> None:
    fresh = EvidenceReader(reader.run_dir)
    monkeypatch.setattr("interp.evidence.reader.EXAMPLES", "gone.parquet")
    status = reader.latents["status"].tolist()
    assert list(fresh.status) == status
    assert fresh.live() == [latent for latent, s in enumerate(status) if s == "live"]
    with pytest.raises(UserError, match="gone"):
        fresh.of(0)


def test_statistics_alone_are_those_of_the_evidence(reader) -> None:
    assert [repr(reader.stats(n)) for n in range(D)] == [repr(reader.of(n).stats) for n in range(D)]


def test_evidence_holds_plain_python_values(reader) -> None:
    evidence = reader.of(11)
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
    for read in (reader.of, reader.stats):
        with pytest.raises(UserError, match=f"no latent {latent} .* 0 to {D - 1}"):
            read(latent)


def test_the_image_of_an_example_comes_from_the_stores_roots(reader) -> None:
    example = reader.of(11).examples[0]
    path = reader.run_dir.parent / example.domain / example.path
    (reader.run_dir.parent / example.domain).mkdir()
    with pytest.raises(BadImage, match="gone"):
        reader.image(example)
    path.parent.mkdir(parents=True)
    Image.new("RGB", (5, 3), (200, 10, 10)).save(path)
    embedded = dataclasses.replace(example, image_id=sha256_of(path))
    assert reader.image(embedded).size == (5, 3)
    assert reader.image(embedded).getpixel((0, 0)) == (200, 10, 10)
    assert reader.looked_at[embedded.image_id] == ""
    Image.new("RGB", (5, 3), (10, 200, 10)).save(path)
    for read in (reader.image, reader.check_image):
        with pytest.raises(BadImage, match="has changed since it was embedded"):
            read(embedded)
    assert example.path in reader.looked_at[embedded.image_id]


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
    with pytest.raises(UserError, match=r"examples\.parquet is (missing|damaged)"):
        EvidenceReader(tmp_path / "run")


def test_a_table_that_is_damaged_within_is_named_when_it_is_read(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", 60)
    collect(store, make_sae(), tmp_path / "run", CollectConfig())
    path = tmp_path / "run/collect/examples.parquet"
    data = path.read_bytes()
    path.write_bytes(data[:4] + b"\xff" * 400 + data[404:])
    reader = EvidenceReader(tmp_path / "run")
    with pytest.raises(UserError, match=r"examples\.parquet is (missing|damaged)"):
        reader.of(0)


def test_a_run_without_evidence_names_the_next_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="interp collect"):
        EvidenceReader(tmp_path)
