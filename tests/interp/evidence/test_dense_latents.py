"""Latents that were written down are collected from without an SAE."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from interp.evidence.dense_latents import WrittenLatents
from interp.evidence.reader import EvidenceReader
from sae.core.errors import OK, USAGE
from sae.data.store import EmbeddingStore
from tests.support.commands import interp
from tests.support.sae.foreign_stores import DATA, LATENTS, SAEV, image_names, write_images

EXPECTED = load_file(LATENTS.parent / "expected.safetensors")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> EvidenceReader:
    run = tmp_path_factory.mktemp("runs") / "run"
    assert interp("collect", LATENTS, "--run", run) == OK
    return EvidenceReader(run)


def test_written_latents_come_out_of_encode_as_they_are() -> None:
    store = EmbeddingStore.open(LATENTS)
    codes = WrittenLatents(store).encode(store.read(np.arange(70))[:, 0])
    assert torch.equal(codes.dense(128), EXPECTED["latents"])
    negative = WrittenLatents(store).encode(torch.tensor([[-3.0, 0, 2]]))
    assert negative.dense(3).tolist() == [[0, 0, 2]]


def test_top_images_are_the_peers_strongest_and_dead_latents_have_none(
    reader: EvidenceReader,
) -> None:
    examples = reader.examples
    dead = ~EXPECTED["alive"]
    assert reader.info.n_dead == int(dead.sum()) == 25
    for latent in range(128):
        mine = examples[examples["latent"] == latent]
        if dead[latent]:
            assert len(mine) == 0
            continue
        top = mine[mine["kind"] == "top"].sort_values("act", ascending=False)
        values = EXPECTED["top8_values"][latent]
        values = values[values > 0].numpy()
        np.testing.assert_array_equal(top["act"].to_numpy()[: len(values)], values)
        column = EXPECTED["latents"][:, latent].numpy()
        np.testing.assert_array_equal(column[top["row"]], top["act"])
    active = (EXPECTED["latents"] > 0).sum(0)
    assert reader.latents["n_active"].tolist() == active.tolist()


def test_negatives_are_silent_and_classes_come_from_the_captions(reader: EvidenceReader) -> None:
    examples = reader.examples
    negative = examples[examples["kind"].isin(["silent", "hard"])]
    assert set(negative["kind"]) == {"silent", "hard"}
    latents = EXPECTED["latents"].numpy()
    assert (latents[negative["row"], negative["latent"]] == 0).all()
    captions = json.loads((LATENTS / "captions.json").read_text())
    for example in examples.head(50).itertuples():
        assert captions[str(example.row)] == f"a sketch of a {example.label}"


def test_with_the_folder_of_images_the_examples_can_be_shown(tmp_path: Path) -> None:
    labels = EmbeddingStore.open(LATENTS).images["label"].tolist()
    folders = {label: f"n{place:03d}" for place, label in enumerate(dict.fromkeys(labels))}
    names = image_names([folders[label] for label in labels])
    images = write_images(tmp_path / "sketches", names)
    words = ("--run", tmp_path / "run", "--images", images, "--domain", "sketch")
    assert interp("collect", LATENTS, *words) == OK
    reader = EvidenceReader(tmp_path / "run")
    example = reader.of(int(EXPECTED["alive"].nonzero()[0])).examples[0]
    assert (example.path, example.domain) == (names[example.row], "sketch")
    assert example.label == labels[example.row]
    assert reader.image(example).getpixel((0, 0)) == (example.row, 50, 200 - example.row)
    assert interp("collect", LATENTS, *words) == OK  # once more: nothing has changed
    turned = write_images(tmp_path / "turned", [*names[:-1], "n000/x.png"])
    assert interp("collect", LATENTS, "--run", tmp_path / "b", "--images", turned) == USAGE


def test_what_the_latents_do_not_say_is_asked_for(
    reader: EvidenceReader, capsys: pytest.CaptureFixture[str]
) -> None:
    assert interp("explain", "--model", "local", "--run", reader.run_dir) == USAGE
    assert "--clip tiny" in capsys.readouterr().err
    assert interp("cards", "--run", reader.run_dir) == USAGE
    assert "--images FOLDER" in capsys.readouterr().err


def test_without_a_store_only_written_latents_are_collected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = DATA / "ttt_topk_pt" / "checkpoint.pt"
    for source, message in ((model, "has no latents.npy"), (SAEV, "has no latents.npy")):
        assert interp("collect", source, "--run", tmp_path / "run") == USAGE
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
