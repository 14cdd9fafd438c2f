"""`interp run --sae`: an SAE that is there in place of a training."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from interp.pipeline.workflow.bring import bring_sae
from interp.report.labels import read_labels
from sae.core.errors import FAILURES, OK, USAGE
from sae.data.store import EmbeddingStore
from sae.model.identity import sae_identity
from sae.model.sae import SAE
from tests.interp.pipeline.workflow.conftest import SETTINGS
from tests.support.commands import interp, sae
from tests.support.paths import DATA
from tests.support.servers.fake_hub import FakeHub

LOCAL = ("--model", "local")


@pytest.fixture
def store(walk) -> EmbeddingStore:
    return EmbeddingStore.open(walk.store)


def test_another_labs_sae_is_labelled_by_one_command(words, walk, tmp_path, capsys) -> None:
    theirs, out = tmp_path / "theirs", tmp_path / "run"
    assert sae("export", walk.sae, "--to", "saelens", "--out", theirs) == OK
    settings = tmp_path / "run.toml"  # without a CLIP: the SAE's own files tell it
    settings.write_text(SETTINGS.replace('clip = "tiny"\n', ""))
    words = (*words[:-1], settings)
    asked = (*words, *LOCAL, "--sae", theirs, "--out", out)
    assert interp("run", *asked, "--estimate") == OK
    said = capsys.readouterr().out
    assert "import" in said
    assert f"{theirs}, 16 latents" in said
    assert "train " not in said
    assert interp("run", *asked) == OK
    said = capsys.readouterr().out
    assert "16 latents brought here\n  saelens" in said
    assert len(read_labels(out)) == 16
    assert not (out / "sae-trained").exists()
    known, imported = SAE.load(walk.sae), SAE.load(out / "sae-imported")
    assert imported.n_latents == known.n_latents
    assert interp("run", *asked, "--estimate") == OK
    assert "  import   done" in capsys.readouterr().out


def test_an_sae_of_ours_says_itself_which_clip_it_is_of(words, walk, tmp_path, capsys) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[run]\ncausal = false\n")
    given = ("--domain", *words[1:3], "--config", file, *LOCAL)
    assert interp("run", *given, "--sae", walk.sae, "--out", tmp_path / "o", "--estimate") == OK
    assert "by tiny, projected" in capsys.readouterr().out
    theirs = tmp_path / "theirs"
    assert sae("export", walk.sae, "--to", "saelens", "--out", theirs) == OK
    capsys.readouterr()
    assert interp("run", *given, "--sae", theirs, "--out", tmp_path / "o", "--estimate") == OK
    assert "trained on: clip tiny, layer projected" in capsys.readouterr().out
    (theirs / "cfg.json").write_text(
        json.dumps(json.loads((theirs / "cfg.json").read_text()) | {"metadata": {}})
    )
    assert interp("run", *given, "--sae", theirs, "--out", tmp_path / "o", "--estimate") == USAGE
    assert "does not tell which CLIP it was trained on" in capsys.readouterr().err


def _of_the_hub(hub: FakeHub, walk, folder) -> tuple[object, ...]:
    """An SAE on the hub that tells nothing of where it was trained, and the words that name it."""
    assert sae("export", walk.sae, "--to", "sparsify", "--out", folder / "theirs") == OK
    files = {path.name: path.read_bytes() for path in (folder / "theirs").iterdir()}
    hub.add("lab/drawings", {f"last/{name}": data for name, data in files.items()})
    registry = folder / "registry.toml"
    registry.write_text('[[sae]]\nrepo = "lab/*"\nclip = "tiny"\nlayer = "projected"\n')
    settings = folder / "run.toml"
    settings.write_text("[run]\ncausal = false\n[run.embed]\nworkers = 0\n")
    return ("--config", settings, *LOCAL, "--sae", "hf:lab/drawings/last", "--registry", registry)


def test_the_registry_picks_clip_and_layer_and_a_look_ahead_fetches_nothing(
    words, walk, hub: FakeHub, tmp_path, capsys
) -> None:
    asked = (*words[:3], *_of_the_hub(hub, walk, tmp_path), "--out", tmp_path / "run")
    assert interp("run", *asked, "--estimate") == OK
    said = capsys.readouterr().out
    assert "by tiny, projected" in said
    assert "trained on: clip tiny, layer projected, tokens cls (registry: repo lab/*)" in said
    assert not hub.asked


def test_a_clip_that_is_not_the_one_of_the_sae_is_told_with_a_figure(
    words, walk, hub: FakeHub, tmp_path, capsys
) -> None:
    asked = (*words[:3], *_of_the_hub(hub, walk, tmp_path), "--out", tmp_path / "run")
    block = ("--layer", "2", "--tokens", "cls")
    assert interp("run", *asked, *block, "--estimate") == OK
    said = capsys.readouterr()
    assert "layer 2 (as named) is taken, not projected (registry: repo lab/*)" in said.err
    assert interp("run", *asked, *block) == USAGE
    error = "is for embeddings of width 256, and layer 2 of tiny has 128"
    assert error in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert interp("run", *asked, "--clip", "tiny-conv") == FAILURES
    said = capsys.readouterr().err
    assert "worse than their mean does (FVU" in said
    assert "tokens than tiny-conv, layer projected, tokens cls" in said
    assert "Known of it: clip tiny-conv (as named); layer projected" in said


def test_an_sae_whose_clip_nobody_tells_is_refused_with_what_is_missing(
    words, tmp_path, capsys
) -> None:
    settings = tmp_path / "run.toml"
    settings.write_text("[run]\ncausal = false\n")
    asked = (*words[:3], "--config", settings, *LOCAL, "--out", tmp_path / "run")
    place = DATA / "sparsify_topk" / "checkpoint"
    assert interp("run", *asked, "--sae", place) == USAGE
    said = capsys.readouterr().err
    assert "known: layer 10 (its own files); not known: clip, tokens" in said
    assert "name it (--clip NAME --tokens cls|patch|all)" in said
    assert interp("run", *asked, "--sae", place, "--clip", "ViT-B-32/openai", "--estimate") == OK
    assert "tokens of the SAE: nobody tells; cls is taken" in capsys.readouterr().err


def test_ours_is_copied_and_another_one_in_its_place_is_refused(walk, store, tmp_path) -> None:
    out = tmp_path / "sae-imported"
    model, notes = bring_sae(str(walk.sae), out, store)
    assert (sae_identity(model), notes) == (sae_identity(SAE.load(walk.sae)), ())
    assert sae_identity(SAE.load(out)) == sae_identity(model)
    assert bring_sae(str(walk.sae), out, store)[1] == ()
    changed = SAE.load(walk.sae)
    changed.config = replace(changed.config, k=1)
    changed.save(tmp_path / "other")
    with pytest.raises(Exception, match="is another SAE than"):
        bring_sae(str(tmp_path / "other"), out, store)


def test_ours_on_the_hub_is_pulled(walk, store, hub: FakeHub, tmp_path) -> None:
    names = ("config.json", "sae.safetensors")
    hub.add("me/sae", {name: (walk.sae / name).read_bytes() for name in names})
    model, _ = bring_sae("hf:me/sae", tmp_path / "brought", store)
    assert sae_identity(model) == sae_identity(SAE.load(walk.sae))


def test_an_sae_that_does_not_fit_ends_before_anything_is_asked(
    words, finished, walk, tmp_path, capsys
) -> None:
    misfit = SAE.load(walk.sae)
    misfit.b_dec.data += 30.0
    misfit.save(tmp_path / "misfit")
    out = finished.out.with_name("misfit-run")
    out.mkdir()
    shutil.copy(finished.out / "run.json", out / "run.unfinished.json")
    shutil.copytree(finished.out / "store", out / "store")
    asked = (*words, *LOCAL, "--sae", tmp_path / "misfit", "--out", out)
    assert interp("run", *asked) == FAILURES
    assert "rebuilds held-out images worse than their mean does" in capsys.readouterr().err
    assert not (out / "collect").exists()
    assert interp("run", *asked) == FAILURES  # also when it was measured before
    shutil.rmtree(out)


def test_where_no_image_is_held_out_nothing_tells_whether_another_sae_fits(
    words, walk, tmp_path, capsys
) -> None:
    theirs, out = SAE.load(walk.sae), tmp_path / "run"
    theirs.config = replace(theirs.config, holdout=0.0)
    theirs.save(tmp_path / "theirs")
    asked = (*words, *LOCAL, "--sae", tmp_path / "theirs", "--out", out)
    assert interp("run", *asked) == FAILURES
    error = capsys.readouterr().err
    assert "(holdout 0.0, 300 images): how well the SAE rebuilds new images is not meas" in error
    assert "Nothing was asked; --allow-misfit goes on" in error
    assert not (out / "collect").exists()
    assert interp("run", *asked, "--allow-misfit") == OK
    assert len(read_labels(out)) == 16


def test_what_is_no_sae_is_refused_before_any_work(words, walk, tmp_path, capsys) -> None:
    out = tmp_path / "run"
    for place, error in (
        (tmp_path / "no" / "such.pt", "such.pt does not exist"),
        (walk.store, "is an EmbeddingStore, not an SAE"),
        ("hf:one-word", "is no hub id"),
    ):
        assert interp("run", *words, *LOCAL, "--sae", place, "--out", out) == USAGE
        assert error in capsys.readouterr().err
        assert not out.exists()


def test_what_is_on_the_hub_is_not_fetched_for_an_estimate(words, hub, tmp_path, capsys) -> None:
    asked = (*words, "--model", "x/y", "--sae", "me/sae", "--out", tmp_path / "run")
    assert interp("run", *asked, "--estimate") == OK
    said = capsys.readouterr().out
    assert "me/sae, fetched from the hub" in said
    assert said.count("its cost is known once the SAE is here") == 2
