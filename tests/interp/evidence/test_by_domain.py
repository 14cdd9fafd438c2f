"""Examples that are drawn from each domain by itself, beside those of the whole."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from interp.evidence.collect import collect
from interp.evidence.config import BY_DOMAIN, FOLDER, CollectConfig
from interp.evidence.reader import EvidenceReader
from interp.evidence.stream.top_k import image_digits, splitmix64
from interp.records.split import check_side
from sae.core.errors import UserError
from tests.support.interp.collected import DEAD, D, image_acts_at_once, make_sae, make_store

N = 6


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> EvidenceReader:
    folder = tmp_path_factory.mktemp("by-domain")
    store = make_store(folder / "store", 900)
    collect(store, make_sae(), folder / "run", CollectConfig(n_by_domain=N))
    return EvidenceReader(folder / "run")


def test_each_domain_has_its_own_even_sample_and_silent_images(reader: EvidenceReader) -> None:
    images, acts = reader.store.images, image_acts_at_once(reader.store)
    digits = image_digits(images["image_id"].tolist())
    for domain in ("sketch", "photo"):
        for latent in range(D):
            evidence = reader.in_domain(domain).of(latent)
            assert {e.domain for e in evidence.examples} <= {domain}
            for side in ("explain", "score"):
                check_side((e for e in evidence.examples if e.side == side), side)
                quantile = evidence.of(side, "quantile")
                # The largest hashes among all its active images of the side and domain.
                here = [
                    row
                    for row in np.flatnonzero(acts[:, latent] > 0)
                    if images["domain"][row] == domain and _side(images, row) == side
                ]
                chance = splitmix64(digits[here] ^ np.uint64(latent)) | np.uint64(1)
                drawn = [here[place] for place in np.argsort(~chance)[:N]]
                assert {e.row for e in quantile} == set(drawn)
                assert [e.act for e in quantile] == sorted((e.act for e in quantile), reverse=True)
                assert {e.stratum for e in quantile} <= set(range(5))
                silent = evidence.of(side, "silent")
                assert len(silent) == (N if here else 0)
                assert all(acts[e.row, latent] == 0 for e in silent)
                assert len(evidence.of(side, "hard")) <= N // 2


def _side(images, row: int) -> str:
    from interp.records.split import split_of

    return split_of(images["image_id"][row])


def test_what_is_kept_of_the_whole_stays_as_it_is(reader: EvidenceReader, tmp_path: Path) -> None:
    collect(reader.store, make_sae(), tmp_path / "run", CollectConfig(n_by_domain=0))
    without = EvidenceReader(tmp_path / "run")
    assert not (tmp_path / "run" / FOLDER / BY_DOMAIN).exists()
    assert without.examples.equals(reader.examples)


def test_older_evidence_gives_what_it_has_of_a_domain(
    reader: EvidenceReader, tmp_path: Path
) -> None:
    shutil.copytree(reader.store.path, tmp_path / "store")
    shutil.copytree(reader.run_dir, tmp_path / "run")
    (tmp_path / "run" / FOLDER / BY_DOMAIN).unlink()
    older = EvidenceReader(tmp_path / "run")
    kept = Counter(e.kind for e in older.in_domain("photo").of(1).examples)
    whole = Counter(e.kind for e in older.of(1).examples if e.domain == "photo")
    assert kept == whole
    assert not older.in_domain("photo").of(DEAD).examples


def test_a_domain_that_is_not_there_is_named(reader: EvidenceReader) -> None:
    with pytest.raises(UserError, match=r"no domain 'skech'.*did you mean 'sketch'"):
        reader.in_domain("skech")
