"""A wrong path is told apart, and each line names the command that fits."""

import shutil
from pathlib import Path

import pytest
import torch

from sae.core.places import kind_of
from tests.support.commands import Walk, interp, sae
from tests.support.sae.small_clip import write_images


@pytest.fixture(scope="module")
def places(walk: Walk, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One place of every kind, called by its kind."""
    folder = tmp_path_factory.mktemp("places")
    write_images(folder / "images", 3)
    (folder / "empty").mkdir()
    (folder / "other").mkdir()
    (folder / "other" / "notes.txt").touch()
    (folder / "file").touch()
    (folder / "part of a store").mkdir()
    shutil.copy(walk.store / "store.json", folder / "part of a store" / "plan.json")
    (folder / "stores" / "layer-0").mkdir(parents=True)
    shutil.copy(walk.store / "plan.json", folder / "stores" / "layer-0")
    (folder / "sweep" / "lr0.1").mkdir(parents=True)
    (folder / "sweep" / "sweep.csv").touch()
    (folder / "sweep" / "lr0.1" / "sae.safetensors").touch()
    named = {path.name: path for path in folder.iterdir()} | {"missing": folder / "missing"}
    return named | {"run": walk.run, "store": walk.store, "SAE": walk.sae, "world": walk.world}


def test_every_kind_of_place_is_known(places: dict[str, Path], tmp_path: Path) -> None:
    assert {kind: kind_of(path) for kind, path in places.items()} == {k: k for k in places}
    torch.save({}, tmp_path / "sae.pt")  # another lab's, with a plot
    (tmp_path / "loss.png").touch()
    assert kind_of(tmp_path) == "other"


STORE = {
    "missing": "does not exist; `sae embed --domain photo=IMAGES --out {}`",
    "images": "is a folder of images, not an EmbeddingStore; `sae embed --domain photo={} --",
    "world": "is a drawn world, not an EmbeddingStore; `sae embed --domain sketch={}/sketch photo=",
    "stores": "is a folder of several stores, not an EmbeddingStore; name one of them: {}/layer-0",
    "SAE": "is an SAE, not an EmbeddingStore; it goes with a store: `sae eval {} STORE`",
    "run": "is a run, not an EmbeddingStore; its SAE is {}/sae, its store ",
    "file": "is a file, not an EmbeddingStore; `sae embed --domain photo=IMAGES --out DIR`",
    "empty": "is an empty folder, not an EmbeddingStore; `sae embed",
    "other": "holds nothing that is known here, not an EmbeddingStore; `sae embed",
}
SAES = {
    "missing": "does not exist; `sae train STORE --out {}`",
    "images": "is a folder of images, not an SAE; `sae embed --domain photo={} --out work/store`",
    "store": "is an EmbeddingStore, not an SAE; `sae train {} --out work/sae`",
    "run": "is a run, not an SAE; its SAE is {}/sae",
    "sweep": "is a folder of several SAEs, not an SAE; name one of them, such as {}/lr0.1",
    "empty": "is an empty folder, not an SAE; `sae train STORE --out {}`",
}
RUNS = {
    "store": "is an EmbeddingStore, not a run; `interp collect SAE {}`",
    "SAE": "is an SAE, not a run; it goes with a store: `sae eval {} STORE`, `interp collect",
    "images": "is a folder of images, not a run; `sae embed",
    "empty": "is an empty folder, not a run; `interp collect SAE STORE --run {}`",
}
EMBEDDINGS = {
    "missing": "does not exist; `sae embed --domain photo=IMAGES --out DIR`",
    "images": "is a folder of images, not embeddings of another lab; `sae embed --domain photo={} ",
    "world": "is a drawn world, not embeddings of another lab; `sae embed --domain sketch=",
    "store": "is an EmbeddingStore, not embeddings of another lab; `interp collect SAE {}`",
    "SAE": "is an SAE, not embeddings of another lab; it goes with a store: `sae eval {} STORE`",
    "run": "is a run, not embeddings of another lab; its SAE is {}/sae, its store ",
    "empty": "is an empty folder, not embeddings of another lab; `sae embed",
    "other": "is none of saev shards, embedding chunks",
    "file": "is none of saev shards, embedding chunks",
}
GALLERIES = {
    "missing": "does not exist; `interp collect SAE STORE --run {}`",
    "file": "is a file, not a run; `interp collect SAE STORE --run DIR`",
    "run": "has no labels.csv; `interp cards --run {}` writes it",
}
IMAGES = {
    "missing": "does not exist; name a folder of images",
    "store": "is an EmbeddingStore, not images; `interp collect SAE {}`",
    "SAE": "is an SAE, not images; name a folder of images",
    "run": "is a run, not images; its SAE is",
    "world": "is a drawn world, not images; `sae embed --domain sketch={}/sketch photo=",
}


@pytest.mark.parametrize(
    ("kind", "words", "commands"),
    [
        (kind, words, commands)
        for table, commands in (
            (STORE, ("sae train @ --out new", "sae eval SAE @", "interp collect SAE @ --run new")),
            (SAES, ("sae eval @ store", "sae eval SAE store --against @", "sae push @ me/it")),
            (SAES, ("interp collect @ store --run new", "sae export @ --to saelens --out new")),
            (SAES, ("sae import @ --out new",)),
            (RUNS, ("interp cards --run @", "interp ledger --run @", "interp show --run @")),
            (RUNS, ("interp explain --model local --run @", "interp score --model m --run @")),
            (RUNS | GALLERIES, ("sae push SAE me/it --gallery @ --dry-run",)),
            (EMBEDDINGS, ("sae adopt @ --out new",)),
            (IMAGES, ("sae embed --domain p=@ --out new",)),
        )
        for kind, words in table.items()
    ],
)
def test_a_wrong_path_names_what_it_is_and_the_command_that_fits(
    kind: str,
    words: str,
    commands: tuple[str, ...],
    places: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    place = str(places[kind])
    for command in commands:
        program, *line = command.split()
        known = {"@": place, "SAE": str(places["SAE"]), "store": str(places["store"])}
        typed = [known.get(word, word.replace("@", place)) for word in line]
        assert {"sae": sae, "interp": interp}[program](*typed) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"{place} {words.format(place)}" in said, command
    assert not (tmp_path / "new").exists()


def test_a_gallery_named_without_its_run_is_told_where_the_run_is(
    walk: Walk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run" / "gallery").mkdir(parents=True)
    (tmp_path / "run" / "gallery" / "index.html").touch()
    words = ("push", walk.sae, "me/it", "--dry-run", "--gallery", tmp_path / "run" / "gallery")
    assert sae(*words) == 2
    assert f"a gallery lies in its run: {tmp_path / 'run'}\n" in capsys.readouterr().err
