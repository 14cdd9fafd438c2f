from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from sae.core.errors import UserError
from sae.core.files import read_jsonl
from sae.data.split import fraction, holdout_rows
from sae.data.store import EmbeddingStore
from sae.interchange.load import load
from sae.model import init
from sae.model.sae import SAE, SAEConfig
from sae.training.context import TrainContext
from sae.training.engines.interface import Engine, StepResult
from sae.training.loop import NotFinite, Trainer, resolve
from sae.training.train import TrainConfig, start, train
from tests.support.sae.stores import image_ids, oracle, write_store
from tests.support.sae.trainings import fit

SMALL = TrainConfig(n_latents=24, k=4, batch_size=64, n_tokens=64 * 40, holdout=0.2)


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    """150 images x 2 tokens x 8 dimensions; those held out at .2 hold NaN, so a glance shows."""
    x, _ = oracle(300, 8, 12, n_active=(1, 2))
    x = x.view(150, 2, 8).clone()
    out = [fraction(image_id, "holdout") < 0.2 for image_id in image_ids(150)]
    x[torch.tensor(out)] = float("nan")
    return write_store(tmp_path / "store", x)


def stream(x: Tensor, batch_size: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    while True:
        yield x[torch.randint(len(x), (batch_size,), generator=generator)]


def test_planted_directions_are_recovered() -> None:
    x, directions = oracle(5000, 96, 101)
    seen, unseen = x[:4500], x[4500:]
    model = start(SAEConfig(d=96, n_latents=256, k=8), seen)
    config = TrainConfig(k=8, batch_size=256, n_tokens=256 * 150)
    last = fit(model, stream(seen, 256), resolve(config, len(seen)))
    best = (directions @ model.W_dec.T).amax(1)  # (101,)
    assert int((best > 0.9).sum()) >= 95
    assert last.dead < 0.05
    result = model(unseen)
    assert (unseen - result.x_hat).square().sum() / (unseen - unseen.mean(0)).square().sum() < 0.05
    assert (model.W_dec.norm(dim=1) - 1).abs().max() < 1e-6


def test_start_centres_and_scales_and_ties_the_encoder() -> None:
    x = 5 + 0.01 * torch.randn(4000, 6, generator=torch.Generator().manual_seed(0))
    model = start(SAEConfig(d=6, n_latents=9, k=2, seed=3), x)
    centred = model.centre(x)
    assert centred.mean(0).abs().max() < 1e-3
    assert centred.square().mean() == pytest.approx(1, abs=1e-3)
    assert torch.equal(model.W_enc, model.W_dec)
    assert not torch.equal(model.W_dec, start(SAEConfig(d=6, n_latents=9, k=2, seed=4), x).W_dec)


def test_the_median_is_geometric() -> None:
    """Of an equilateral triangle's corners it is the centre; three far points hardly move it."""
    corners = torch.tensor([[0.0, 1.0], [3**0.5 / 2, -0.5], [-(3**0.5) / 2, -0.5]])
    values = init.start_values(corners)
    torch.testing.assert_close(values.median, torch.zeros(2), atol=1e-4, rtol=0)

    crowd = torch.randn(997, 2, generator=torch.Generator().manual_seed(0))
    x = torch.cat([crowd, torch.full((3, 2), 1000.0)])
    values = init.start_values(x)
    median = values.median * values.scale + values.mean
    assert x.mean(0).min() > 2.5
    assert median.abs().max() < 0.15


def test_start_values_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0)).half()
    whole = init.start_values(x)
    monkeypatch.setattr(init, "CHUNK_TOKENS", 7)
    for ours, theirs in zip(init.start_values(x), whole, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.tensor([[1.0, float("inf")], [0.0, 0.0]]), "not finite"),
        (torch.ones(5, 3) * 0.37, "all 5 embeddings are equal"),
    ],
)
def test_data_that_cannot_be_learned_are_refused(x: Tensor, words: str) -> None:
    with pytest.raises(UserError, match=words):
        init.start_values(x)


def test_silent_latents_count_as_dead_until_they_fire() -> None:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    model = start(SAEConfig(d=4, n_latents=6, k=6), x)  # every latent is kept, if only with 0
    with torch.no_grad():
        model.b_enc[2] = -1e6
    trainer = Trainer(
        model, TrainConfig(lr=1e-6, dead_after=128, alpha=0.0, batch_size=64, n_tokens=9000)
    )
    trainer.step(x)
    assert not trainer.dead.any()
    trainer.step(x)
    assert trainer.dead.tolist() == [latent == 2 for latent in range(6)]
    with torch.no_grad():
        model.b_enc[2] = 1e6
    trainer.step(x)
    assert not trainer.dead[2]


def test_auxk_brings_dead_latents_back() -> None:
    """Only 12 latents of 60 fire at first, for 40 concepts."""
    x, _ = oracle(3000, 32, 40, n_active=(2, 4))
    last = {}
    for alpha in (0.0, 1 / 32):
        model = start(SAEConfig(d=32, n_latents=60, k=4), x)
        with torch.no_grad():
            model.b_enc[12:] = -5.0
        config = TrainConfig(
            lr=8e-3, alpha=alpha, dead_after=512, batch_size=256, n_tokens=256 * 200
        )
        last[alpha] = fit(model, stream(x, 256), config)
    assert last[0.0].dead > 0.5
    assert last[1 / 32].dead < 0.3
    assert last[1 / 32].fvu < 0.5 * last[0.0].fvu


def test_a_loss_that_is_not_finite_names_step_and_remedy() -> None:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    model = start(SAEConfig(d=4, n_latents=6, k=1), x)
    poisoned = itertools.chain([x, x, x * float("nan")], itertools.repeat(x))
    with pytest.raises(UserError, match=r"nan at step 3 of 9 with lr 0\.004.*e\.g\. lr 0\.001"):
        fit(model, poisoned, resolve(TrainConfig(batch_size=64, n_tokens=64 * 9), 64))


def test_held_out_images_are_decided_by_content_alone(store: EmbeddingStore) -> None:
    mask = holdout_rows(store.images, 0.2)
    assert mask.tolist() == [fraction(i, "holdout") < 0.2 for i in store.images["image_id"]]
    assert 0.1 < mask.mean() < 0.3
    shuffled = store.images.sample(frac=1, random_state=0)
    assert holdout_rows(shuffled, 0.2).tolist() == mask[shuffled.index].tolist()
    assert not holdout_rows(store.images, 0.0).any()


def test_training_leaves_held_out_images_alone_and_writes_the_folder(
    store: EmbeddingStore, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    out = tmp_path / "sae"

    def progress(done: int, total: int, text: str = "") -> None:
        seen.append((done, total))

    result = train(store, out, SMALL, TrainContext(progress=progress))
    names = ["config.json", "sae.safetensors", "train.json", "train.jsonl"]
    assert sorted(path.name for path in out.iterdir()) == names
    rows = read_jsonl(out / "train.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 41))
    assert rows[-1] == result.last._asdict()
    assert seen[-1] == (40, 40)
    assert result.last.tokens == 64 * 40
    assert rows[-1]["fvu"] < 0.5 * rows[0]["fvu"]
    config = load(out).config
    assert (config.store, config.clip, config.layer, config.tokens, config.holdout) == (
        store.info.identity,
        "fake",
        "projected",
        "patch",
        0.2,
    )


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    store: EmbeddingStore, tmp_path: Path
) -> None:
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(store, tmp_path / name, dataclasses.replace(SMALL, seed=seed))
        weights.append((tmp_path / name / "sae.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_a_finished_sae_is_left_alone_and_other_settings_are_refused(
    store: EmbeddingStore, tmp_path: Path
) -> None:
    out = tmp_path / "sae"
    first = train(store, out, SMALL)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    again = train(store, out, SMALL)
    assert first.trained
    assert not again.trained
    assert again.last == first.last
    assert torch.equal(again.model.W_dec, first.model.W_dec)

    other = dataclasses.replace(SMALL, lr=1e-3)
    with pytest.raises(UserError, match=r"trained with lr 0\.004, not 0\.001"):
        train(store, out, other)
    elsewhere = write_store(tmp_path / "other", torch.randn(30, 2, 8))
    with pytest.raises(UserError, match="of another store"):
        train(elsewhere, out, SMALL)
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}

    assert train(store, out, other, TrainContext(overwrite=True)).trained
    assert len(read_jsonl(out / "train.jsonl")) == 40
    assert not train(store, out, other).trained


def test_a_stopped_training_leaves_no_config(
    store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int, total: int, text: str = "") -> None:
        if done == 20:
            raise KeyboardInterrupt

    monkeypatch.setattr("sae.training.loop.SHOW_SECONDS", 0)
    out = tmp_path / "sae"
    train(store, out, SMALL)
    with pytest.raises(KeyboardInterrupt):
        train(store, out, SMALL, TrainContext(progress=stop, overwrite=True))
    with pytest.raises(UserError, match="unfinished"):
        SAE.load(out)
    assert train(store, out, SMALL).trained
    assert len(read_jsonl(out / "train.jsonl")) == 40


def test_the_budget_follows_epochs_or_tokens_or_the_data(
    store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_train = 2 * int((~holdout_rows(store.images, 0.2)).sum())
    monkeypatch.setattr("sae.training.settings.schedule.AUTO_TOKENS", 64 * 50)
    cases = {"epochs": n_train * 3, "n_tokens": 700, "auto": max(64 * 50, 10 * n_train)}
    for name, budget in cases.items():
        given = {"epochs": 3} if name == "epochs" else {}
        given |= {"n_tokens": 700} if name == "n_tokens" else {}
        config = TrainConfig(n_latents=24, k=4, batch_size=64, holdout=0.2, **given)
        assert train(store, tmp_path / name, config).last.step == -(-budget // 64)


def test_more_kept_than_latents_leaves_a_finished_sae_alone(
    store: EmbeddingStore, tmp_path: Path
) -> None:
    train(store, tmp_path / "sae", SMALL)
    with pytest.raises(UserError, match="k 4 is larger than n_latents 3"):
        train(
            store,
            tmp_path / "sae",
            dataclasses.replace(SMALL, n_latents=3),
            TrainContext(overwrite=True),
        )
    assert not train(store, tmp_path / "sae", SMALL).trained


def test_a_store_all_held_out_is_refused(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", torch.randn(1, 1, 4), ids=["0" * 64])
    with pytest.raises(UserError, match="no image to train on"):
        train(store, tmp_path / "sae", TrainConfig())


def test_the_engine_is_told_the_k_and_rate_of_each_step() -> None:
    told: list[tuple[int, float]] = []

    class Told:
        """An engine that learns nothing."""

        name = "told"

        def step(self, x: Tensor, *, k: int, lr: float, dead: Tensor, **_: object) -> StepResult:
            told.append((k, lr))
            zero = torch.zeros(())
            return StepResult(zero, zero, zero, zero, torch.zeros_like(dead))

    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    model = start(SAEConfig(d=4, n_latents=12, k=2), x)
    config = TrainConfig(
        k_start=10, k_warmup=0.4, lr=1.0, warmup=0.2, decay=0.2, batch_size=64, n_tokens=640
    )
    trainer = Trainer(model, resolve(config, 64), engine=cast("Engine", Told()))
    for _ in range(10):
        trainer.step(x)
    ks, rates = zip(*told, strict=True)
    assert ks == (10, 8, 6, 4, 2, 2, 2, 2, 2, 2)
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 1, 1, 0.5])


def test_the_first_step_that_went_wrong_is_named_although_rows_are_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sae.training.loop.N_ROWS", 1)
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    model = start(SAEConfig(d=4, n_latents=6, k=1), x)
    poisoned = itertools.chain([x, x, x * float("inf")], itertools.repeat(x))
    with pytest.raises(NotFinite, match="at step 3 of 9") as raised:
        fit(model, poisoned, resolve(TrainConfig(batch_size=64, n_tokens=64 * 9), 64))
    assert raised.value.step == 3


def test_the_progress_line_shows_the_newest_figures_and_the_speed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sae.training.loop.SHOW_SECONDS", 0)
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    model = start(SAEConfig(d=4, n_latents=6, k=1), x)
    seen: list[tuple[int, int, str]] = []

    def progress(done: int, total: int, text: str = "") -> None:
        seen.append((done, total, text))

    config = resolve(TrainConfig(batch_size=64, n_tokens=64 * 3), 64)
    last = fit(model, itertools.repeat(x), config, progress=progress)
    assert [done for done, _, _ in seen] == [0, 1, 2, 3]
    text = rf"FVU {last.fvu:.3f} L0 {last.l0:.1f} dead {last.dead:.1%} [\d,]+ rows/s"
    assert re.fullmatch(text, seen[-1][2])


@pytest.mark.parametrize(
    "variant",
    [
        {"activation": "batch_topk", "init": "data"},
        {"activation": "signed_topk", "k_start": 8, "multi_k": 2},
        {"activation": "relu", "l1": 1e-2, "ghost": "patchsae"},
        {"activation": "jumprelu", "l0": 1e-2, "matryoshka": "random:2"},
        {"matryoshka": "6,12", "ghost": "ttt", "dropout": 0.1},
    ],
)
def test_every_variant_trains_and_is_read_back(
    store: EmbeddingStore, tmp_path: Path, variant: dict[str, Any]
) -> None:
    train(store, tmp_path / "sae", dataclasses.replace(SMALL, **variant))
    rows = read_jsonl(tmp_path / "sae" / "train.jsonl")
    assert rows[-1]["fvu"] < 0.7 * rows[0]["fvu"]
    config = load(tmp_path / "sae").config
    assert config.activation == variant.get("activation", "topk")
    assert config.k == (0 if config.activation in ("relu", "jumprelu") else 4)
    assert config.prefixes == ((6, 12, 24) if variant.get("matryoshka") == "6,12" else ())
