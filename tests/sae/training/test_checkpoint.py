from __future__ import annotations

import dataclasses
import json
import multiprocessing
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sae.cli import console
from sae.cli.app import app
from sae.core import interrupts
from sae.core.errors import INTERRUPTED, UserError
from sae.core.files import read_jsonl
from sae.data.store import EmbeddingStore
from sae.model.sae import SAE, SAEConfig
from sae.training import checkpoint
from sae.training.config import TrainConfig
from sae.training.context import TrainContext
from sae.training.loop import NotFinite, Trainer, resolve
from sae.training.train import start, train
from tests.support.sae.stores import oracle, write_store

CPU = torch.device("cpu")
SMALL = TrainConfig(n_latents=40, k=4, batch_size=64, n_tokens=64 * 60, dead_after=300)
WORDS = ["--n-latents", "40", "--k", "4", "--batch-size", "64", "--n-tokens", "3840"]
WORDS += ["--dead-after", "300", "--device", "cpu"]


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    x, _ = oracle(600, 16, 24, n_active=(1, 3))
    return write_store(tmp_path / "store", x.view(300, 2, 16))


def trainer(config: TrainConfig = SMALL) -> Trainer:
    x, _ = oracle(600, 16, 24, n_active=(1, 3))
    model = start(SAEConfig(d=16, n_latents=40, k=4), x)
    return Trainer(model, resolve(config, 600))


def stop_at(step: int) -> Callable[[int, int, str], None]:
    """A progress bar that ends the training as ctrl-C would, once `step` steps are done."""

    def progress(done: int, total: int, text: str = "") -> None:
        if done >= step:
            signal.raise_signal(signal.SIGINT)

    return progress


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def test_a_restored_trainer_steps_as_the_one_that_was_saved(tmp_path: Path) -> None:
    batches = torch.randn(30, 64, 16, generator=torch.Generator().manual_seed(0))
    first = trainer(dataclasses.replace(SMALL, dead_after=64 * 25))
    with torch.no_grad():
        first.model.b_enc[5:9] = -1e6  # silent from the start, and dead after the checkpoint
    for x in batches[:20]:
        first.step(x)
    path = checkpoint.save(tmp_path, first)
    found = checkpoint.newest(tmp_path, CPU)
    assert found is not None
    second = Trainer(found.model, first.config)
    second.restore(found.state)
    assert (second.n_done, second.n_tokens, second.lr) == (20, 20 * 64, first.lr)
    assert not first.dead.any()
    for x in batches[20:]:
        ours, theirs = first.step(x), second.step(x)
        assert first.row(ours) == second.row(theirs)
    assert second.dead[5:9].all()
    for ours, theirs in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert path.name == "000000020"


def test_another_engine_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    batches = torch.randn(6, 64, 16, generator=torch.Generator().manual_seed(0))
    first = trainer()
    for x in batches[:5]:
        first.step(x)
    checkpoint.save(tmp_path, first)
    found = checkpoint.newest(tmp_path, CPU)
    assert found is not None
    assert found.info.engine == first.engine.name == "sparse"
    second = Trainer(found.model, dataclasses.replace(first.config, backend="plain"))
    second.restore(found.state)
    first.step(batches[5])
    second.step(batches[5])
    torch.testing.assert_close(first.model.W_enc, second.model.W_enc, atol=1e-4, rtol=0)


def test_a_checkpoint_is_an_sae_that_any_command_reads(tmp_path: Path) -> None:
    source = trainer()
    source.step(torch.randn(64, 16))
    path = checkpoint.save(tmp_path, source)
    assert torch.equal(SAE.load(path).W_dec, source.model.W_dec)


def test_the_last_two_are_kept_and_the_older_serves_when_the_newer_is_damaged(
    tmp_path: Path,
) -> None:
    source = trainer()
    for x in torch.randn(3, 64, 16):
        source.step(x)
        checkpoint.save(tmp_path, source)
    folder = tmp_path / checkpoint.FOLDER
    assert sorted(path.name for path in folder.iterdir()) == ["000000002", "000000003"]
    (folder / "000000003" / checkpoint.STATE).write_bytes(b"torn")
    found = checkpoint.newest(tmp_path, CPU)
    assert found is not None
    assert found.info.step == 2
    shutil.rmtree(folder / "000000002")
    with pytest.raises(UserError, match=r"no checkpoint .* can be read .*--overwrite"):
        checkpoint.newest(tmp_path, CPU)
    shutil.rmtree(folder / "000000003")
    (folder / "000000004.part").mkdir()  # left by a kill
    assert checkpoint.newest(tmp_path, CPU) is None


def test_what_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    source = trainer()
    source.step(torch.randn(64, 16))
    with torch.no_grad():
        source.model.b_enc[3] = float("inf")
    with pytest.raises(NotFinite, match="b_enc is not finite at step 1 of 60"):
        checkpoint.save(tmp_path, source)
    assert not (tmp_path / checkpoint.FOLDER).exists()


def test_a_training_stopped_anywhere_ends_with_the_same_files(
    store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sae.training.loop.SHOW_SECONDS", 0)
    train(store, tmp_path / "whole", SMALL)
    for step in (1, 17, 59):
        out = tmp_path / f"stopped {step}"
        with pytest.raises(KeyboardInterrupt):
            train(store, out, SMALL, TrainContext(progress=stop_at(step)))
        assert [path.name for path in (out / "checkpoints").iterdir()] == [f"{step:09d}"]
        assert not (out / "config.json").exists()
        result = train(store, out, SMALL)
        assert result.n_before == step
        assert files(out) == files(tmp_path / "whole")
        assert not (out / "checkpoints").exists()


def test_rows_that_are_later_than_the_checkpoint_come_once(
    store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill leaves lines of steps that the checkpoint does not know, and half a line."""
    monkeypatch.setattr("sae.training.loop.SHOW_SECONDS", 0)
    out = tmp_path / "sae"
    with pytest.raises(KeyboardInterrupt):
        train(store, out, SMALL, TrainContext(progress=stop_at(10)))
    with (out / "train.jsonl").open("a") as file:
        late = json.loads((out / "train.jsonl").read_text().splitlines()[-1]) | {"step": 11}
        file.write(json.dumps(late) + '\n{"step": 12, "fv')
    train(store, out, SMALL)
    assert [row["step"] for row in read_jsonl(out / "train.jsonl")] == list(range(1, 61))


def test_other_settings_do_not_go_on_from_a_checkpoint(
    store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sae.training.loop.SHOW_SECONDS", 0)
    out = tmp_path / "sae"
    with pytest.raises(KeyboardInterrupt):
        train(store, out, SMALL, TrainContext(progress=stop_at(10)))
    other = dataclasses.replace(SMALL, lr=1e-3)
    with pytest.raises(UserError, match=r"an unfinished SAE trained with lr 0\.004, not 0\.001"):
        train(store, out, other)
    elsewhere = write_store(tmp_path / "other", torch.randn(30, 2, 16))
    with pytest.raises(UserError, match="an unfinished SAE of another store"):
        train(elsewhere, out, SMALL)
    often = dataclasses.replace(SMALL, checkpoint_every=1e-9)  # changes nothing of the result
    assert train(store, out, often).n_before == 10
    assert train(store, out, other, TrainContext(overwrite=True)).n_before == 0


def test_a_loss_that_is_not_finite_names_the_last_good_checkpoint(
    store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def poisoned(self: Trainer, x: torch.Tensor, *rest: object) -> object:
        x = x * float("nan") if self.n_done == 20 else x
        return step(self, x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "step", poisoned)
    monkeypatch.setattr("sae.training.loop.N_ROWS", 4)  # a look every 15 steps: at 15 and 30
    config = dataclasses.replace(SMALL, checkpoint_every=0)
    with pytest.raises(NotFinite, match=r"nan at step 21 of 60 .*there is no checkpoint yet"):
        train(store, tmp_path / "none", config)
    config = dataclasses.replace(SMALL, checkpoint_every=1e-9)
    with pytest.raises(NotFinite, match=r"at step 21 of 60 .*checkpoints/0000000(\d\d)$") as raised:
        train(store, tmp_path / "some", config)
    good = tmp_path / "some" / "checkpoints" / str(raised.value)[-9:]
    assert SAE.load(good).W_enc.isfinite().all()


def test_checkpoints_come_by_the_clock(
    store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    monkeypatch.setattr(checkpoint, "save", lambda out, trainer: saved.append(trainer.n_done))
    clock = iter(range(10**6))
    monkeypatch.setattr("sae.training.jobs.time.monotonic", lambda: float(next(clock)))
    train(store, tmp_path / "never", dataclasses.replace(SMALL, checkpoint_every=0))
    assert not saved
    train(store, tmp_path / "seldom", dataclasses.replace(SMALL, checkpoint_every=30))
    assert 1 <= len(saved) <= 5


def test_the_first_signal_is_noted_and_the_second_acts() -> None:
    with interrupts.catch_signals() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.catch_signals() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop()
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_exits_130_and_says_how_to_go_on(
    store: EmbeddingStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    step = Trainer.step

    def interrupted(self: Trainer, x: torch.Tensor, *rest: object) -> object:
        if self.n_done == 30:
            signal.raise_signal(signal.SIGINT)
        return step(self, x, *rest)  # type: ignore[arg-type]

    out = tmp_path / "sae"
    words = ["train", str(store.path), "--out", str(out), *WORDS]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", interrupted)
        assert console.run(app, "sae", [*words, "--overwrite"]) == INTERRUPTED
    hint = capfd.readouterr().err.splitlines()[-1]
    assert hint == f"sae: interrupted; to go on: sae {' '.join(words)}"
    assert console.run(app, "sae", words) == 0
    assert "(from step 31 on)" in capfd.readouterr().out


@pytest.mark.slow
def test_a_training_killed_at_any_step_ends_with_the_same_weights(
    store: EmbeddingStore, tmp_path: Path
) -> None:
    """20 trials: SIGKILL at a random step, then the same training again."""
    torch.set_num_threads(1)  # a forked child must not wait for threads left behind
    often = dataclasses.replace(SMALL, n_tokens=64 * 200, checkpoint_every=1e-9)
    whole, out = tmp_path / "whole", tmp_path / "killed"
    train(store, whole, often)
    draw = random.Random(0)
    n_resumed = 0
    for _ in range(20):
        child = multiprocessing.get_context("fork").Process(target=train, args=(store, out, often))
        child.start()
        step = draw.randrange(1, 100)  # of 200: a row comes every other step
        while child.is_alive() and _n_rows(out) < step:
            time.sleep(0.001)
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        n_resumed += train(store, out, often).n_before > 0
        assert files(out) == files(whole)
        shutil.rmtree(out)
    assert n_resumed >= 15


def _n_rows(out: Path) -> int:
    log = out / "train.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0
