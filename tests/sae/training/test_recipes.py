"""Other labs' trainings by name: step by step what plain loops do, and as an option."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sae.core.errors import Notice, UserError
from sae.data.store import EmbeddingStore
from sae.model.init import start
from sae.model.sae import SAE, SAEConfig
from sae.training.config import TrainConfig
from sae.training.engines.objective import Draws
from sae.training.loop import Trainer
from sae.training.settings.recipes import RECIPES, read_recipe
from sae.training.settings.schedule import resolve
from sae.training.train import train
from tests.support.commands import sae
from tests.support.sae.trainings import small_store

N, D, L, N_STEPS = 40, 12, 30, 8
WARMUP = 4
SMALLER: dict[str, dict[str, object]] = {
    "ttt": {"k": 3, "k_start": 9, "k_warmup_steps": 5, "warmup_steps": WARMUP, "dead_below": 0.06},
    "sketch": {},
    "patchsae": {"warmup_steps": WARMUP, "dead_after": 2 * N, "cls_weight": 3.0, "l1": 0.05},
    "sparsify": {"k": 3, "k_aux": 7, "warmup_steps": WARMUP, "dead_after": 2 * N},
}
"""What eight small batches need to show what is in a recipe."""
SPAN = {"epochs": 0, "n_tokens": N * N_STEPS, "batch_size": N, "n_latents": L}


def recipe(name: str, **changes: object) -> TrainConfig:
    settings = read_recipe(name) | SMALLER[name] | SPAN | changes
    return TrainConfig(**settings)  # type: ignore[arg-type]


def data() -> Tensor:
    """Batches (N_STEPS, N, D) whose mean is not 0."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N_STEPS, N, D, generator=generator, dtype=torch.float64)
    return x * torch.linspace(0.2, 2, D, dtype=torch.float64) + 1


def begun(config: TrainConfig) -> SAE:
    """An untrained SAE in float64, of which a third of the latents fires seldom."""
    k = config.k if config.has_k else 0
    shape = SAEConfig(d=D, n_latents=L, k=k, activation=config.activation)
    model = start(shape, data().flatten(0, 1).float(), config.init, config.scale_input).double()
    with torch.no_grad():
        model.normalise_decoder()  # to float64
        model.b_enc[::3] -= 3.0
    return model


class Peer:
    """Parameters of a peer's own, in its own form, and the optimizer that it has."""

    def __init__(self, model: SAE, lr: float, weight_decay: float = 0.0) -> None:
        self.W_enc, self.b_enc = model.W_enc.detach().clone(), model.b_enc.detach().clone()
        self.W_dec, self.b_dec = model.W_dec.detach().clone(), model.b_dec.detach().clone()
        self.lr = lr
        self.parameters = [self.W_enc, self.b_enc, self.W_dec, self.b_dec]
        for parameter in self.parameters:
            parameter.requires_grad_()
        self.adam = torch.optim.AdamW(self.parameters, lr=lr, weight_decay=weight_decay)
        self.silent = torch.zeros(L)
        self.n_fired = torch.zeros(L)

    def move(self, loss: Tensor, rate: float, clip: float = 0.0, unit: bool = False) -> None:
        self.adam.zero_grad()
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, clip)
        with torch.no_grad():
            if unit:
                along = (self.W_dec.grad * self.W_dec).sum(1, keepdim=True)
                self.W_dec.grad -= along * self.W_dec
            self.adam.param_groups[0]["lr"] = rate * self.lr
            self.adam.step()
            if unit:
                self.W_dec /= self.W_dec.norm(dim=1, keepdim=True)


def kept(pre: Tensor, k: int) -> Tensor:
    values, latents = pre.topk(k, dim=1)
    return torch.zeros_like(pre).scatter(1, latents, values)


def step_ttt(peer: Peer, x: Tensor, step: int) -> None:
    pre = x @ peer.W_enc.T + peer.b_enc
    pre = pre * Draws(0, step).dropped(torch.ones_like(pre), 0.5)  # which ones, is ours to draw
    acts = kept(pre, round(9 + (3 - 9) * min(1, step / 5)))
    unit = F.normalize(peer.W_dec, dim=1)
    x_hat = acts @ unit + peer.b_dec
    peer.n_fired += (acts > 0).sum(0)
    dead = peer.n_fired / (N * (step + 1)) < 0.06
    assert 0 < dead.sum() < L
    ghost = (pre * dead) @ unit + peer.b_dec
    loss = F.mse_loss(x_hat, x) + 1e6 * F.mse_loss(ghost, (x - x_hat).detach())
    peer.move(loss, min(1, (step + 1) / WARMUP), clip=1.0)


def step_sketch(peer: Peer, x: Tensor, step: int) -> None:
    acts = (x @ peer.W_enc.T + peer.b_enc).relu()
    x_hat = acts @ peer.W_dec + peer.b_dec
    loss = F.mse_loss(x_hat, x) + 1e-3 * acts.abs().sum(1).mean()
    peer.W_dec.requires_grad_(False)
    peer.move(loss, 1, clip=1.0)


def step_patchsae(peer: Peer, x: Tensor, step: int) -> None:
    pre = (x - peer.b_dec) @ peer.W_enc.T + peer.b_enc
    acts = pre.relu()
    x_hat = acts @ peer.W_dec + peer.b_dec
    mse = (x_hat - x) ** 2 / x.norm(dim=1, keepdim=True)
    dead, ghost_loss = peer.silent >= 2 * N, 0 * mse
    if dead.any():
        residual = (x - x_hat).detach()
        ghost = pre[:, dead].exp() @ peer.W_dec[dead]
        ghost = ghost * (residual.norm(dim=1) / (2 * ghost.norm(dim=1) + 1e-6)).detach()[:, None]
        error = (ghost - residual) ** 2 / residual.norm(dim=1, keepdim=True)
        ghost_loss = (mse / (error + 1e-6)).detach() * error
    weights = torch.where(cls_mask(), 3.0, 1.0)[:, None]
    loss = (weights * mse).mean() + 0.05 * acts.sum(1).mean() + ghost_loss.mean()
    peer.move(loss, min(1, (step + 1) / WARMUP), unit=True)
    peer.silent = torch.where((acts > 0).any(0), 0, peer.silent + N)


def step_sparsify(peer: Peer, x: Tensor, step: int, k_aux: int = 7) -> None:
    pre = ((x - peer.b_dec) @ peer.W_enc.T + peer.b_enc).relu()
    acts = kept(pre, 3)
    error = x - (acts @ peer.W_dec + peer.b_dec)
    variance = ((x - x.mean(0)) ** 2).sum()
    loss = (error**2).sum() / variance
    dead = peer.silent >= 2 * N
    if n_dead := int(dead.sum()):
        rebuilt = kept(pre[:, dead], min(k_aux, n_dead)) @ peer.W_dec[dead]
        auxk = ((rebuilt - error.detach()) ** 2).sum() / variance
        loss = loss + 0.03125 * min(n_dead / k_aux, 1) * auxk
    rate = min((step + 1) / WARMUP, (N_STEPS - step) / (N_STEPS - WARMUP))
    peer.move(loss, rate, clip=1.0, unit=True)
    peer.silent = torch.where((acts > 0).any(0), 0, peer.silent + N)


def cls_mask() -> Tensor:
    return torch.arange(N) % 5 == 0


STEPS: dict[str, Callable[..., None]] = {
    "ttt": step_ttt,
    "sketch": step_sketch,
    "patchsae": step_patchsae,
    "sparsify": step_sparsify,
}
MANY_AUX = ("sparsify", {"k_aux": 25})
"""More than there are dead latents: AuxK then weighs less."""


@pytest.mark.parametrize(("name", "more"), [*((name, {}) for name in RECIPES), MANY_AUX])
def test_a_recipe_takes_the_steps_of_a_plain_loop_of_that_lab(
    name: str, more: dict[str, int]
) -> None:
    config = recipe(name, **more)
    model = begun(config)
    peer = Peer(model, config.lr, config.weight_decay)
    before = model.W_dec.detach().clone()
    trainer = Trainer(model, resolve(config, N))
    assert trainer.engine.name == "plain"
    for step, x in enumerate(data()):
        trainer.step(x, cls_mask())
        STEPS[name](peer, x, step, **more)
    b_enc = peer.b_enc
    if name in ("ttt", "sketch"):  # their encoders leave b_dec in
        b_enc = b_enc + peer.W_enc @ peer.b_dec
    wanted = [peer.W_enc, b_enc, F.normalize(peer.W_dec, dim=1), peer.b_dec]
    found = [model.W_enc, model.b_enc, model.W_dec, model.b_dec]
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    assert torch.equal(model.W_dec, before) == (name == "sketch")
    if name != "sketch":
        assert 0 < int(trainer.dead.sum()) < L  # the losses of dead latents took part


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_that_was_stopped_goes_on_bit_for_bit(name: str) -> None:
    config = resolve(recipe(name), N)
    first = Trainer(begun(config), config)
    for x in data()[:4]:
        first.step(x, cls_mask())
    state = {key: value.clone() for key, value in first.state().items()}
    second = Trainer(begun(config), config)
    second.model.load_state_dict(first.model.state_dict())
    second.restore(state)
    for trainer in (first, second):
        for x in data()[4:]:
            trainer.step(x, cls_mask())
    for key, value in first.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[key], value)
    assert torch.equal(first.dead, second.dead)


def test_the_settings_of_the_recipes_are_those_that_their_authors_give() -> None:
    ttt, sketch, patchsae, sparsify = (TrainConfig(**read_recipe(name)) for name in RECIPES)
    assert (ttt.k, ttt.k_start, ttt.k_warmup_steps, ttt.warmup_steps) == (16, 128, 10_000, 5000)
    assert (ttt.dead_below, ttt.ghost_weight, ttt.grad_clip, ttt.lr) == (1e-4, 1e6, 1.0, 1e-3)
    assert (sketch.l1, sketch.lr, sketch.weight_decay, sketch.batch_size) == (1e-3, 3e-4, 0.01, 64)
    assert (patchsae.l1, patchsae.lr, patchsae.warmup_steps) == (8e-5, 4e-4, 500)
    assert patchsae.dead_after == 64 * patchsae.batch_size == 64 * 128 * 197
    assert sparsify.lr == pytest.approx(2e-4 / math.sqrt(32 * 768 / 2**14), rel=2e-3)
    assert (sparsify.grad_clip, sparsify.warmup_steps, sparsify.alpha) == (1.0, 1000, 1 / 32)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    return small_store(tmp_path_factory.mktemp("recipes") / "store")


def settings_of(store: EmbeddingStore, out: Path, *words: str) -> dict[str, object]:
    short = () if "--n-tokens" in words else ("--epochs", "1")
    given = ["train", str(store.path), "--out", str(out), "--n-latents", "64", *short, *words]
    assert sae(*given) == 0
    found: dict[str, object] = json.loads((out / "train.json").read_text())
    return found


def test_flags_win_over_a_file_and_a_file_over_the_recipe(
    store: EmbeddingStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[train]\nlr = 0.002\ngrad_clip = 3.0\nbatch_size = 32\nrecipe = "sketch"\n')
    words = ("--config", str(mine), "--lr", "0.003")
    found = settings_of(store, tmp_path / "a", *words)
    assert [found[name] for name in ("lr", "grad_clip", "weight_decay")] == [0.003, 3.0, 0.01]
    assert [found[name] for name in ("decoder", "pre_bias", "epochs")] == ["frozen", False, 1]
    assert "sketch.toml" in capsys.readouterr().out
    for order in (("--recipe", "ttt", *words), (*words, "--recipe", "ttt")):
        found = settings_of(store, tmp_path / order[0], *order, "--k", "4", "--k-start", "8")
        assert [found[name] for name in ("lr", "grad_clip", "decoder")] == [0.003, 3.0, "at_use"]


def test_a_budget_in_tokens_takes_the_place_of_a_recipes_epochs(
    store: EmbeddingStore, tmp_path: Path
) -> None:
    found = settings_of(store, tmp_path / "a", "--recipe", "sketch", "--n-tokens", "256")
    assert (found["epochs"], found["n_tokens"]) == (0, 256)
    mine = tmp_path / "mine.toml"
    mine.write_text("[train]\nn_tokens = 256\n")
    words = ["train", str(store.path), "--out", str(tmp_path / "b"), "--n-latents", "64"]
    assert sae(*words, "--config", str(mine), "--recipe", "sketch") == 0
    assert json.loads((tmp_path / "b" / "train.json").read_text())["epochs"] == 0


def test_a_recipe_that_is_none_is_named_with_the_nearest(
    store: EmbeddingStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sae("train", str(store.path), "--out", str(tmp_path / "a"), "--recipe", "scetch") == 2
    said = "--recipe 'scetch' is none of ttt, sketch, patchsae, sparsify; did you mean 'sketch'?"
    assert capsys.readouterr().err == f"sae: {said}\n"


def test_a_training_too_short_for_its_warm_ups_says_so(
    store: EmbeddingStore, tmp_path: Path
) -> None:
    config = TrainConfig(**read_recipe("ttt") | {"n_latents": 64, "k": 4, "k_start": 40})
    config = dataclasses.replace(config, epochs=1, batch_size=32)
    with pytest.warns(Notice) as said:
        train(store, tmp_path / "a", config)
    words = [str(one.message) for one in said]
    assert any("lr still rises at the last of" in one for one in words)
    assert any("k is still 40, not 4, at the last of" in one for one in words)


@pytest.mark.parametrize(("k", "is_told"), [(6, False), (7, True)])
def test_an_sae_whose_latents_will_be_dense_says_so(
    store: EmbeddingStore, tmp_path: Path, k: int, is_told: bool
) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train(store, tmp_path / "a", TrainConfig(n_latents=64, k=k, epochs=1))
    told = [str(one.message) for one in said if issubclass(one.category, Notice)]
    assert any(f"k {k} of 64 latents" in one and "a smaller --k" in one for one in told) == is_told


def test_the_cls_token_weighs_more_where_the_store_has_all_tokens_alone(
    store: EmbeddingStore, tmp_path: Path
) -> None:
    config = TrainConfig(n_latents=64, k=4, cls_weight=2.0)
    with pytest.raises(UserError, match=r"cls_weight needs a store of all tokens, .* 'patch'"):
        train(store, tmp_path / "a", config)
    assert not (tmp_path / "a" / "train.json").exists()


@pytest.mark.parametrize("backend", ["sparse", "triton"])
def test_an_engine_that_cannot_do_a_setting_names_it(
    store: EmbeddingStore, tmp_path: Path, backend: str
) -> None:
    for change in ({"loss": "mse"}, {"grad_clip": 1.0}, {"auxk": "total"}, {"dead_below": 0.1}):
        config = TrainConfig(n_latents=64, k=4, backend=backend, **change)  # type: ignore[arg-type]
        named = (
            "it needs a CUDA GPU" if backend == "triton" else f"does not know {next(iter(change))}"
        )
        with pytest.raises(UserError, match=f"backend '{backend}' cannot do this: .*{named}"):
            train(store, tmp_path / "a", config)


def test_what_needs_scaled_embeddings_is_refused_without() -> None:
    with pytest.raises(UserError, match="scale_input is False; it must be true with AuxK over"):
        TrainConfig(scale_input=False)
    with pytest.raises(UserError, match="scale_input is False; it must be true with jumprelu"):
        TrainConfig(scale_input=False, activation="jumprelu", l0=0.1, alpha=0)
    TrainConfig(scale_input=False, alpha=0)
