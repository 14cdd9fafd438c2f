"""Ours written for another library, and read again: by us, and by that library where installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sae import interchange
from sae.core.errors import UserError
from sae.interchange.formats import saelens, sparsify
from sae.model.sae import SAE, SAEConfig
from tests.support.commands import sae as run_sae
from tests.support.sae.peer_fixtures import require_same

D, N, K = 12, 48, 5
FOR_SPARSIFY = {
    "topk": SAEConfig(d=D, n_latents=N, k=K),
    "matryoshka": SAEConfig(d=D, n_latents=N, k=K, prefixes=(8, 24, N)),
}
FOR_SAELENS = FOR_SPARSIFY | {
    "patches": SAEConfig(d=D, n_latents=N, k=0, activation="relu", layer="10", tokens="patch"),
    "abs_topk": SAEConfig(d=D, n_latents=N, k=K, activation="abs_topk"),
    "relu": SAEConfig(d=D, n_latents=N, k=0, activation="relu"),
    "jumprelu": SAEConfig(d=D, n_latents=N, k=0, activation="jumprelu"),
    "batch_topk": SAEConfig(d=D, n_latents=N, k=K, activation="batch_topk"),
    "layer_norm": SAEConfig(d=D, n_latents=N, k=K, input_norm="layer_norm"),
    "constant_norm": SAEConfig(
        d=D, n_latents=N, k=0, activation="relu", input_norm="constant_norm"
    ),
}


def _sae(config: SAEConfig) -> SAE:
    """With all its numbers drawn, mean and scale too; its embeddings have a mean to take out."""
    torch.manual_seed(3)
    model = SAE(config)
    with torch.no_grad():
        for value in (*model.parameters(), model.mean):
            value.copy_(torch.randn_like(value))
        model.mean.mul_(4)
        model.scale.fill_(0.3 if config.input_norm else 3.0)
        if config.activation == "batch_topk":
            model.threshold.fill_(4)
    return model.eval()


def _x() -> Tensor:
    return 5 * torch.randn(64, D, generator=torch.Generator().manual_seed(9)) + 2


@torch.no_grad()
def _ours(model: SAE) -> tuple[Tensor, Tensor]:
    x_hat, codes = model(_x())
    return codes.dense(N), x_hat


@pytest.mark.parametrize("name", FOR_SPARSIFY)
def test_ours_by_way_of_sparsify_is_ours(tmp_path: Path, name: str) -> None:
    model = _sae(FOR_SPARSIFY[name])
    back = interchange.read(sparsify.write(model, tmp_path / "out")).model
    require_same(back, _x(), *_ours(model))


@pytest.mark.parametrize("name", FOR_SAELENS)
def test_ours_by_way_of_saelens_is_ours(tmp_path: Path, name: str) -> None:
    model = _sae(FOR_SAELENS[name])
    back = interchange.read(saelens.write(model, tmp_path / "out")).model
    require_same(back, _x(), *_ours(model))
    assert back.config.prefixes == model.config.prefixes


def test_what_just_reaches_the_threshold_is_kept_by_way_of_saelens(tmp_path: Path) -> None:
    model = SAE(FOR_SAELENS["batch_topk"])
    with torch.no_grad():
        model.b_enc[:3] = torch.tensor([0.7, 0.7, 0.6999])
        model.threshold.fill_(0.7)
    back = interchange.read(saelens.write(model, tmp_path / "out")).model
    for sae in (model, back):
        assert (sae.encode(_x()).dense(N) > 0).sum(1).tolist() == [2] * len(_x())


def test_where_it_was_trained_travels_with_it_by_way_of_saelens(tmp_path: Path) -> None:
    place = {"clip": "local-dir:/somewhere/mine", "layer": "10", "tokens": "patch", "rows": "raw"}
    config = SAEConfig(d=D, n_latents=N, k=K, **place)  # type: ignore[arg-type]
    folder = saelens.write(_sae(config), tmp_path / "out")
    back = interchange.read(folder).model.config
    assert (back.clip, back.layer, back.tokens, back.rows) == (
        "local-dir:mine",
        "10",
        "patch",
        "raw",
    )
    cfg = folder / "cfg.json"
    assert "somewhere" not in cfg.read_text()
    cfg.write_text(cfg.read_text().replace('"patch"', '"heads"').replace('"raw"', "3"))
    back = interchange.read(folder).model.config
    assert (back.tokens, back.rows) == ("", "")  # of a stranger's file no other word is taken


@pytest.mark.parametrize("name", sorted(set(FOR_SAELENS) - set(FOR_SPARSIFY)))
def test_what_sparsify_has_not_is_sent_to_saelens(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"TopK alone.*export it to saelens"):
        sparsify.write(_sae(FOR_SAELENS[name]), tmp_path / "out")


@pytest.mark.parametrize("to", ["sparsify", "saelens"])
def test_a_signed_topk_is_sent_nowhere(
    tmp_path: Path, to: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _sae(SAEConfig(d=D, n_latents=N, k=K, activation="signed_topk")).save(tmp_path / "sae")
    words = ["export", str(tmp_path / "sae"), "--to", to, "--out", str(tmp_path / "out")]
    assert run_sae(*words) == 2
    assert not (tmp_path / "out").exists()
    said = capsys.readouterr().err
    assert "signed_topk" in said
    assert "no other library has that" in said


@pytest.mark.parametrize("name", FOR_SPARSIFY)
def test_sparsifys_own_loader_gives_our_latents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("SPARSIFY_DISABLE_TRITON", "1")  # which needs a GPU
    library = pytest.importorskip("sparsify")
    model = _sae(FOR_SPARSIFY[name])
    peer = library.SparseCoder.load_from_disk(sparsify.write(model, tmp_path / "out"))
    with torch.no_grad():
        kept = peer.encode(_x())
        latents = torch.zeros(len(_x()), N).scatter(1, kept.top_indices, kept.top_acts)
        x_hat = peer.decode(kept.top_acts, kept.top_indices)
    require_same(model, _x(), latents, x_hat)


@pytest.mark.parametrize("name", FOR_SAELENS)
def test_saelens_own_loader_gives_our_latents(tmp_path: Path, name: str) -> None:
    library = pytest.importorskip("sae_lens")
    model = _sae(FOR_SAELENS[name])
    peer = library.SAE.load_from_disk(saelens.write(model, tmp_path / "out"))
    with torch.no_grad():
        latents = peer.encode(_x())
        x_hat = peer.decode(latents)
        images = _x().view(4, 16, D)  # of 16 tokens each
        assert torch.equal(peer.encode(images).view(-1, N), latents)
        torch.testing.assert_close(peer(images).view(-1, D), x_hat)
    require_same(model, _x(), latents, x_hat)


NORMS = ["none", "layer_norm", "constant_norm_rescale", "expected_average_only_in"]


@pytest.mark.parametrize("pre_bias", [True, False])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", ["Standard", "TopK", "TopK rescaled", "JumpReLU", "Gated"])
def test_what_saelens_saves_gives_its_own_latents_here(
    tmp_path: Path, kind: str, norm: str, pre_bias: bool
) -> None:
    library = pytest.importorskip("sae_lens")
    name, more = kind.split()[0], {"k": K} if "TopK" in kind else {}
    more |= {"rescale_acts_by_decoder_norm": True} if "rescaled" in kind else {}
    config = getattr(library, f"{name}SAEConfig")(
        d_in=D, d_sae=N, apply_b_dec_to_input=pre_bias, normalize_activations=norm, **more
    )
    peer = getattr(library, f"{name}SAE")(config)
    torch.manual_seed(1)
    with torch.no_grad():
        for value in peer.parameters():
            value.copy_(torch.randn_like(value))
        latents = peer.encode(_x())
        x_hat = peer.decode(latents)
    peer.save_model(tmp_path)
    require_same(interchange.read(tmp_path).model, _x(), latents, x_hat)


@pytest.mark.parametrize("kind", ["BatchTopK", "MatryoshkaBatchTopK"])
def test_a_training_file_of_saelens_gives_the_latents_of_its_inference_file(
    tmp_path: Path, kind: str
) -> None:
    library = pytest.importorskip("sae_lens")
    more = {"matryoshka_widths": [8, 24, N]} if "Matryoshka" in kind else {}
    config = getattr(library, f"{kind}TrainingSAEConfig")(d_in=D, d_sae=N, k=K, **more)
    peer = getattr(library, f"{kind}TrainingSAE")(config)
    torch.manual_seed(1)
    with torch.no_grad():
        for value in peer.parameters():
            value.copy_(torch.randn_like(value))
        peer.topk_threshold.fill_(6.0)
    peer.save_model(tmp_path / "training")
    peer.save_inference_model(tmp_path / "inference")
    inference = library.SAE.load_from_disk(tmp_path / "inference")
    with torch.no_grad():
        latents = inference.encode(_x())
        x_hat = inference.decode(latents)
    for folder in ("training", "inference"):
        model = interchange.read(tmp_path / folder).model
        require_same(model, _x(), latents, x_hat)
        assert model.config.prefixes == ((8, 24, N) if more else ())
