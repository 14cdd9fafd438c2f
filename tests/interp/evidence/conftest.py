"""A synthetic store, what one pass over it found, and all its activations at once."""

from __future__ import annotations

import numpy as np
import pytest

from interp.evidence.collect import collect
from interp.evidence.reader import EvidenceReader
from sae.data.store import EmbeddingStore
from tests.support.interp.collected import (
    image_acts_at_once,
    make_sae,
    make_store,
)
from tests.support.interp.one_pass import SMALL, N


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    return make_store(tmp_path_factory.mktemp("cls") / "store", N)


@pytest.fixture(scope="module")
def reader(store: EmbeddingStore, tmp_path_factory: pytest.TempPathFactory) -> EvidenceReader:
    run = tmp_path_factory.mktemp("run")
    collect(store, make_sae(), run, SMALL, n_images=64)
    return EvidenceReader(run)


@pytest.fixture(scope="module")
def acts(store: EmbeddingStore) -> np.ndarray:
    return image_acts_at_once(store)
