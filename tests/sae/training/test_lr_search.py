from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from sae.core.errors import UserError
from sae.core.files import read_config
from sae.data.store import EmbeddingStore
from sae.model.init import start
from sae.model.sae import SAE, SAEConfig
from sae.training import folder, jobs, lr_search
from sae.training.config import AUTO_LR, TrainConfig
from sae.training.context import TrainContext
from sae.training.loop import Trainer
from sae.training.lr_search import LrChoice, best_between, choose
from sae.training.settings.schedule import resolve
from sae.training.train import train
from tests.support.commands import sae
from tests.support.sae.stores import oracle
from tests.support.sae.trainings import SMALL, files, poison, small_store, stop_at

AUTO = dataclasses.replace(SMALL, lr=AUTO_LR)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    return small_store(tmp_path_factory.mktemp("lr") / "store")


class Parts(NamedTuple):
    """What is needed to choose a rate without files: 100 steps on 48 directions."""

    model: SAE
    config: TrainConfig
    batches: Callable[[], Generator[Tensor, None, None]]


@pytest.fixture
def parts() -> Parts:
    x, _ = oracle(2000, 32, 48, n_active=(2, 4))
    config = TrainConfig(lr=AUTO_LR, k=4, batch_size=128, n_tokens=128 * 100, n_latents=96)
    model = start(SAEConfig(d=32, n_latents=96, k=4), x)
    return Parts(model, resolve(config, len(x)), lambda: stream(x, 128))


def stream(x: Tensor, batch_size: int) -> Generator[Tensor, None, None]:
    generator = torch.Generator().manual_seed(0)
    while True:
        yield x[torch.randint(len(x), (batch_size,), generator=generator)]


def test_the_parabola_goes_through_the_three_best() -> None:
    def loss(rate: float) -> float:
        return 0.1 + (math.log2(rate) + 8.3) ** 2

    losses = {2.0**power: loss(2.0**power) for power in range(-11, -5)}
    assert best_between(losses) == pytest.approx(2**-8.3)
    assert best_between({1e-3: 0.3, 2e-3: 0.2, 4e-3: math.inf}) == 2e-3
    assert best_between({1e-3: 0.1, 2e-3: 0.2, 4e-3: 0.3}) == 1e-3
    assert best_between({1e-3: 0.2, 2e-3: 0.2, 4e-3: 0.2}) == 1e-3  # of equals the lowest


def test_auto_tries_until_the_best_rate_is_not_at_an_edge(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first three rates are far too low here: it goes on upwards."""
    monkeypatch.setattr(lr_search, "first_guess", lambda d, batch_size: 5e-4)
    before = {name: value.clone() for name, value in parts.model.state_dict().items()}
    choice = choose(*parts)
    finite = [loss for loss in choice.losses if loss is not None]
    assert choice.lrs == [2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2][: len(choice.lrs)]
    assert len(choice.lrs) > 4
    assert choice.best == pytest.approx(choice.lrs[finite.index(min(finite))], rel=0.5)
    assert all(torch.equal(value, before[name]) for name, value in parts.model.state_dict().items())


def test_auto_picks_what_a_full_training_finds_best(parts: Parts) -> None:
    """An eighth of it, and eight times it, are worse after the whole training."""
    choice = choose(*parts)
    ends = {}
    for rate in (choice.lr / 8, choice.lr, choice.lr * 8):
        trainer = Trainer(copy.deepcopy(parts.model), dataclasses.replace(parts.config, lr=rate))
        batches = parts.batches()
        for _ in range(trainer.n_steps):
            result = trainer.step(next(batches))
        ends[rate] = float(result.fvu)
    assert min(ends, key=lambda rate: ends[rate]) == choice.lr


def test_a_longer_training_gets_a_lower_rate(parts: Parts) -> None:
    short = choose(*parts)
    longer = dataclasses.replace(parts.config, n_tokens=parts.config.n_tokens * 10)
    assert choose(*parts._replace(config=longer)).lr < 0.9 * short.lr


def test_rates_that_are_not_finite_are_said_so_and_never_chosen(
    parts: Parts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    top = 2 * lr_search.first_guess(32, 128)
    poison(monkeypatch, top, at_step=5)
    choice = choose(*parts)
    assert choice.losses[choice.lrs.index(top)] is None
    assert choice.best < top
    assert f"{top:.3g} (not finite)" in choice.why()
    with pytest.raises(UserError, match=r"no learning rate from .* gives a finite loss"):
        choose(*parts._replace(batches=lambda: stream(torch.full((2000, 32), torch.nan), 128)))


def test_auto_trains_as_the_chosen_rate_would_and_writes_it_down(
    store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = train(store, tmp_path / "auto", AUTO)
    assert result.choice == read_config(tmp_path / "auto" / "lr.json", LrChoice)
    assert result.choice is not None
    train(store, tmp_path / "given", dataclasses.replace(SMALL, lr=result.choice.lr))
    assert SAE.load(tmp_path / "auto").W_dec.equal(SAE.load(tmp_path / "given").W_dec)
    assert not (tmp_path / "given" / "lr.json").exists()

    monkeypatch.setattr(jobs, "choose", None)  # it is not asked again
    assert train(store, tmp_path / "auto", AUTO).choice == result.choice
    with pytest.raises(UserError, match=r"trained with lr auto, not 0\.004"):
        train(store, tmp_path / "auto", SMALL)


def test_a_stopped_training_goes_on_with_the_rate_that_was_chosen(
    store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(store, tmp_path / "whole", AUTO)

    monkeypatch.setattr("sae.training.loop.SHOW_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        train(store, tmp_path / "sae", AUTO, TrainContext(progress=stop_at(20)))
    monkeypatch.setattr(jobs, "choose", None)
    assert train(store, tmp_path / "sae", AUTO).n_before == 20
    assert files(tmp_path / "sae") == files(tmp_path / "whole")


def test_the_command_line_says_what_auto_chose_and_why(
    store: EmbeddingStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--n-latents", 48, "--k", 3, "--n-tokens", 64 * 20, "--device", "cpu")
    words = ("train", store.path, "--out", tmp_path / "sae", *small, "--lr", "auto")
    assert sae(*words) == 0
    choice = read_config(tmp_path / "sae" / folder.LR, LrChoice)
    assert choice.why() in capsys.readouterr().out
    assert sae(*words[:-1], "quick") == 2
    assert "lr is 'quick'; it must be a number such as 4e-3, or auto" in capsys.readouterr().err
    toml = tmp_path / "settings.toml"
    toml.write_text('[train]\nlr = "auto"\n')
    assert sae(*words[:-2], "--config", toml) == 0
    assert "already trained" in capsys.readouterr().out
