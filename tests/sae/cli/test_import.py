"""`sae import` and `sae export`: what is found is said, proved on a store, and works everywhere."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import huggingface_hub.constants as hf
import pytest
import torch
from safetensors.torch import load_file

import sae
from sae import interchange
from sae.core.errors import FAILURES, OK, USAGE, UserError
from sae.data.store import EmbeddingStore
from sae.evaluation.evaluate import held_out_rows
from sae.interchange import measure
from sae.interchange.export import WRITERS
from sae.interchange.locate import hub_place
from sae.model.intervene import error_kept
from tests.support.commands import interp
from tests.support.commands import sae as run
from tests.support.paths import DATA
from tests.support.sae.stores import write_store
from tests.support.servers.fake_hub import TOKEN, FakeHub

TTT = DATA / "ttt_topk_pt" / "checkpoint.pt"
LAYER_NORM = DATA / "saelens_topk_layernorm" / "checkpoint"
OVERCOMPLETE = DATA / "overcomplete_topk" / "checkpoint.pt"


def _expected(name: str) -> dict[str, torch.Tensor]:
    return load_file(DATA / name / "expected.safetensors")


def _store(folder: Path, name: str, shift: float = 0.0) -> EmbeddingStore:
    """A store of a fixture's own embeddings."""
    return write_store(folder / "store", _expected(name)["x"][:, None] + shift)


def _fvu(name: str) -> float:
    found = _expected(name)
    x = found["x"]
    error = (x - found["reconstruction"]).square().sum()
    return float(error / (x - x.mean(0)).square().sum())


@pytest.mark.parametrize("name", ["ttt_topk_pt", "saelens_topk_layernorm", "msae_topk"])
def test_the_fvu_on_a_store_is_that_of_the_peers_own_reconstruction(
    name: str, tmp_path: Path
) -> None:
    store = _store(tmp_path, name)
    path = DATA / name
    path = next(p for p in (path / "checkpoint", *path.glob("*.pt*")) if p.exists())
    imported = interchange.read(path, store.path)
    assert imported.fvu == pytest.approx(_fvu(name), rel=1e-4)
    assert imported.n_tokens == 64


def test_a_sample_of_a_store_is_drawn_from_all_of_it_and_not_in_its_order(tmp_path: Path) -> None:
    x = torch.arange(3000.0)[:, None, None].expand(3000, 1, 2)
    store = write_store(tmp_path / "store", x)
    drawn = measure.sample(store.path, 2, 600)[:, 0]
    assert len(set(drawn.tolist())) == 600
    for part in (drawn[:300], drawn[300:]):
        assert part.mean() == pytest.approx(1500, abs=200)
    assert sorted(measure.sample(store.path, 2, 9999)[:, 0].tolist()) == list(range(3000))


def test_it_says_what_it_found_and_writes_an_sae_of_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, figures = tmp_path / "ours", tmp_path / "figures.json"
    assert run("import", TTT, "--out", out, "--json", figures) == OK
    said = capsys.readouterr().out
    assert "ttt TopK: k 4: the largest of W_enc x + b_enc, negative ones too (no pre-bias)" in said
    assert f"FVU not checked, without --store; `sae eval {out} STORE` does it" in said
    told = json.loads(figures.read_text())
    assert (told["format"], told["k"], told["pre_bias"], told["fvu"]) == (
        "ttt TopK",
        4,
        False,
        None,
    )
    x = _expected("ttt_topk_pt")
    dense = sae.load(out).encode(x["x"]).dense(128)
    torch.testing.assert_close(dense, x["latents"], atol=1e-5, rtol=1e-5)


def test_its_config_tells_the_format_and_the_files_sha256_and_no_place(tmp_path: Path) -> None:
    assert run("import", LAYER_NORM, "--out", tmp_path / "ours") == OK
    text = (tmp_path / "ours" / "config.json").read_text()
    config = json.loads(text)
    weights = (LAYER_NORM / "sae_weights.safetensors").read_bytes()
    assert config["source"] == "saelens"
    assert config["source_sha256"] == hashlib.sha256(weights).hexdigest()
    assert "/" not in text
    assert sorted(p.name for p in (tmp_path / "ours").iterdir()) == [
        "config.json",
        "sae.safetensors",
    ]


def test_an_fvu_above_1_is_said_on_stderr_and_by_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = _store(tmp_path, "ttt_topk_pt")
    assert run("import", TTT, "--out", tmp_path / "a", "--store", good.path) == OK
    streams = capsys.readouterr()
    assert f"FVU {_fvu('ttt_topk_pt'):.3f} on 64 tokens" in streams.out
    assert streams.err == ""
    scaled = 9 * torch.randn(64, 1, 32) + 30
    bad = write_store(tmp_path / "bad", scaled)
    assert run("import", TTT, "--out", tmp_path / "b", "--store", bad.path) == FAILURES
    error = capsys.readouterr().err
    assert "is above 1" in error
    assert "layer" in error
    assert sae.load(tmp_path / "b").d == 32


def test_a_store_of_another_width_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_store(tmp_path / "store", torch.randn(5, 1, 16))
    assert run("import", TTT, "--out", tmp_path / "ours", "--store", store.path) == USAGE
    assert "width 32" in capsys.readouterr().err
    assert not (tmp_path / "ours").exists()


def test_k_is_taken_where_the_file_does_not_tell(tmp_path: Path) -> None:
    assert run("import", OVERCOMPLETE, "--out", tmp_path / "ours", "--k", 3) == OK
    x = _expected("overcomplete_topk")["x"]
    assert sae.load(tmp_path / "ours").encode(x).acts.shape == (64, 3)


def test_k_is_refused_where_a_threshold_decides_or_latents_are_fewer(tmp_path: Path) -> None:
    batch = DATA / "saelens_batchtopk" / "checkpoint"
    with pytest.raises(UserError, match="leave --k out"):
        interchange.read(batch, k=3)
    with pytest.raises(UserError, match=r"not in 1\.\.128"):
        interchange.read(TTT, k=129)


def test_a_format_can_be_forced_and_is_refused_where_it_does_not_fit(tmp_path: Path) -> None:
    assert interchange.read(TTT, form="ttt").format == "ttt TopK"
    with pytest.raises(UserError, match="cannot be read as sparsify"):
        interchange.read(TTT, form="sparsify")
    with pytest.raises(UserError, match="did you mean 'sparsify'"):
        interchange.read(TTT, form="sparsfy")


def test_an_unknown_file_ends_in_one_line_that_lists_what_was_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("no SAE")
    assert run("import", tmp_path / "notes.txt", "--out", tmp_path / "ours") == USAGE
    error = capsys.readouterr().err
    assert all(name in error for name in interchange.FORMATS)
    assert error.count("\n") == 1


def test_our_own_is_known_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("import", TTT, "--out", tmp_path / "ours") == OK
    for path in (tmp_path / "ours", tmp_path / "ours" / "sae.safetensors"):
        assert run("import", path, "--out", tmp_path / "again") == USAGE
        assert "one of our own SAEs already" in capsys.readouterr().err


def test_an_sae_is_replaced_only_when_asked_and_its_figures_go_with_it(tmp_path: Path) -> None:
    out = tmp_path / "ours"
    assert run("import", TTT, "--out", out) == OK
    (out / "eval.json").write_text("{}")
    assert run("import", OVERCOMPLETE, "--out", out) == USAGE
    assert sae.load(out).config.source == "ttt TopK"
    assert run("import", OVERCOMPLETE, "--out", out, "--overwrite") == OK
    assert sae.load(out).config.source == "overcomplete"
    assert not (out / "eval.json").exists()


def test_what_cannot_be_read_leaves_the_sae_that_is_there(tmp_path: Path) -> None:
    out = tmp_path / "ours"
    assert run("import", TTT, "--out", out) == OK
    (out / "eval.json").write_text("{}")
    evil = DATA / "evil" / "bad_nan_weights" / "checkpoint"
    assert run("import", evil, "--out", out, "--overwrite") == USAGE
    assert sae.load(out).config.source == "ttt TopK"
    assert (out / "eval.json").exists()


def test_the_source_is_never_written_over(tmp_path: Path) -> None:
    shutil.copytree(DATA / "ttt_topk_hf" / "checkpoint", tmp_path / "peer")
    before = {p.name: p.read_bytes() for p in (tmp_path / "peer").iterdir()}
    assert run("import", tmp_path / "peer", "--out", tmp_path / "peer", "--overwrite") == USAGE
    assert {p.name: p.read_bytes() for p in (tmp_path / "peer").iterdir()} == before


def test_eval_and_collect_work_on_an_sae_that_normalises_rows(tmp_path: Path) -> None:
    store = _store(tmp_path, "saelens_topk_layernorm")
    assert run("import", LAYER_NORM, "--out", tmp_path / "ours") == OK
    assert run("eval", tmp_path / "ours", store.path, "--no-zeroshot") == OK
    report = json.loads((tmp_path / "ours" / "eval.json").read_text())
    expected = _expected("saelens_topk_layernorm")
    rows = torch.from_numpy(held_out_rows(sae.load(tmp_path / "ours"), store))
    x, x_hat = expected["x"][rows], expected["reconstruction"][rows]
    variance = (x - x.mean(0)).square().sum()
    assert report["fvu"] == pytest.approx(float((x - x_hat).square().sum() / variance), rel=1e-4)
    assert report["nmse"] == pytest.approx(
        float((x - x_hat).square().sum() / x.square().sum()), rel=1e-4
    )
    assert interp("collect", tmp_path / "ours", store.path, "--run", tmp_path / "run") == OK


def test_an_intervention_on_normalised_rows_is_made_in_their_own_scale() -> None:
    model, x = sae.load(LAYER_NORM), 7 * _expected("saelens_topk_layernorm")["x"] + 2
    doubled = error_kept(model, x, lambda codes: codes._replace(acts=2 * codes.acts))
    without = error_kept(model, x, lambda codes: codes._replace(acts=0 * codes.acts))
    # Activations act linearly: what doubling adds is what taking them away removes.
    torch.testing.assert_close(doubled - x, x - without, atol=1e-3, rtol=1e-4)
    kept = model.decode_centred(model.encode(x)) - model.b_dec
    deviation = x.std(1, keepdim=True)
    torch.testing.assert_close(doubled - x, kept * deviation, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("to", WRITERS)
def test_export_writes_what_import_reads_with_the_same_latents(to: str, tmp_path: Path) -> None:
    path = DATA / "sparsify_topk" / "checkpoint"
    assert run("import", path, "--out", tmp_path / "ours") == OK
    assert run("export", tmp_path / "ours", "--to", to, "--out", tmp_path / "theirs") == OK
    assert run("export", tmp_path / "ours", "--to", to, "--out", tmp_path / "theirs") == USAGE
    assert run("import", tmp_path / "theirs", "--out", tmp_path / "back") == OK
    x = _expected("sparsify_topk")["x"]
    first, last = (sae.load(tmp_path / name).encode(x).dense(128) for name in ("ours", "back"))
    torch.testing.assert_close(last, first, atol=1e-5, rtol=1e-5)


def test_export_to_an_unknown_library_names_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", TTT, "--to", "delphi", "--out", tmp_path / "out") == USAGE
    assert "sparsify, saelens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("hf:a/b", ("a/b", None, "")),
        ("hf:a/b@v1.0", ("a/b", "v1.0", "")),
        ("hf:a/b/layers.3", ("a/b", None, "layers.3")),
        ("hf:a/b@main/x/y", ("a/b", "main", "x/y")),
        ("EleutherAI/sae-x", ("EleutherAI/sae-x", None, "")),
        ("a/b/c", None),
        ("tests/nowhere", None),
        ("/a/b", None),
        ("../a", None),
    ],
)
def test_a_hub_id_is_told_from_a_path(
    text: str, place: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tests").mkdir()
    monkeypatch.chdir(tmp_path)
    assert hub_place(text) == place


@pytest.mark.parametrize("text", ["hf:a", "hf:a/b/../../c", "hf:/a/b", "hf:a b/c"])
def test_what_is_marked_as_a_hub_id_and_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="no hub id"):
        hub_place(text)


def test_one_of_several_saes_on_the_hub_is_imported_by_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hf, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hf, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    root = DATA / "sparsify_topk" / "checkpoint"
    one = {p.name: p.read_bytes() for p in (root / "layers.10").iterdir()}
    files = {f"{place}/{name}": one[name] for place in ("layers.1", "layers.2") for name in one}
    with FakeHub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.add("ann/saes", files)
        assert run("import", "ann/saes", "--out", tmp_path / "both") == USAGE
        assert "2 SAEs (layers.1, layers.2)" in capsys.readouterr().err
        assert run("import", "hf:ann/saes/layers.2", "--out", tmp_path / "ours") == OK
        assert run("import", "ann/missing", "--out", tmp_path / "none") != OK
        assert "is no file or folder here; on the hub:" in capsys.readouterr().err
    assert sae.load(tmp_path / "ours").config.source == "sparsify"
    assert str(tmp_path) not in (tmp_path / "ours" / "config.json").read_text()


def test_a_foreign_file_is_evaluated_where_it_lies_and_nothing_is_written_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_store(tmp_path / "store", torch.randn(60, 1, 32))
    for place in (tmp_path / "file.pt", tmp_path / "repo" / "checkpoint.pt"):
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(TTT, place)
    for place in (tmp_path / "file.pt", tmp_path / "repo"):
        assert run("eval", place, store.path, "--device", "cpu") == OK
        printed = capsys.readouterr()
        assert "fvu" in printed.out
        note = "trained on embeddings of length 1: each of yours is brought to it first"
        assert printed.err.splitlines()[0] == f"sae: {place}: {note}"
        assert run("eval", place, store.path, "--plots") == USAGE
        assert "`sae import" in capsys.readouterr().err
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} - _names(store.path) == {
        "file.pt",
        "checkpoint.pt",
    }


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}
