"""Other labs' embeddings are stores: the peers' own vectors come out, where they lie."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from interp.evidence.reader import EvidenceReader
from sae.core.errors import FAILURES, OK, USAGE, Notice, UserError
from sae.data.store import EmbeddingStore
from sae.interchange.load import load
from tests.support.commands import interp, sae
from tests.support.sae.foreign_stores import (
    CHUNKS,
    DATA,
    LATENTS,
    SAEV,
    all_vectors,
    write_saev,
)


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
    x = all_vectors(EmbeddingStore.open(CHUNKS))[:, 0]
    kept = load(tmp_path / "run" / "sae")
    with pytest.warns(Notice, match="of length 1: each of yours"):
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
            all_vectors(store)
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
