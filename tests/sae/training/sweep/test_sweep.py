from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from sae.core.errors import UserError
from sae.data.store import EmbeddingStore
from sae.evaluation.plots import Point, plot_pareto
from sae.model.sae import SAE
from sae.training.config import AUTO_LR
from sae.training.context import TrainContext
from sae.training.loop import NotFinite, Trainer
from sae.training.sweep.grid import variants_of
from sae.training.sweep.run import run_sweep
from sae.training.train import train, train_all
from tests.support.commands import sae
from tests.support.sae.trainings import SMALL, files, poison, small_store, stop_at

RULES = "activation=topk,batch_topk"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    return small_store(tmp_path_factory.mktemp("sweep") / "store")


def lines(out: Path) -> list[dict[str, str]]:
    with (out / "sweep.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_words_become_every_combination_of_their_values() -> None:
    variants = variants_of(["lr=1e-3,4e-3", "n-latents = 32,64"], SMALL)
    assert [variant.name for variant in variants] == [
        "lr0.001-n_latents32",
        "lr0.001-n_latents64",
        "lr0.004-n_latents32",
        "lr0.004-n_latents64",
    ]
    assert variants[1].config == dataclasses.replace(SMALL, lr=1e-3, n_latents=64)
    names = [variant.name for variant in variants_of(["activation=topk,batch_topk"], SMALL)]
    assert names == ["topk", "batch_topk"]
    assert variants_of(["lr=auto"], SMALL)[0].config.lr == AUTO_LR
    both = variants_of(["pre_bias=true,false"], SMALL)
    assert [one.config.pre_bias for one in both] == [True, False]
    assert [one.name for one in both] == ["pre_bias", "no_pre_bias"]
    with pytest.raises(UserError, match="calibrate has the value 'no', which is not true or false"):
        variants_of(["calibrate=no"], SMALL)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["lr"], "--sweep 'lr' is not NAME=VALUE,VALUE"),
        (["k="], "--sweep 'k=' is not NAME=VALUE,VALUE"),
        (["kk=1"], "unknown name 'kk'; did you mean 'k'"),
        (["batch_size=64,128"], "unknown name 'batch_size'"),
        (["k=16,x"], "--sweep k has the value 'x', which is not a whole number"),
        (["k=1.5"], "'1.5', which is not a whole number"),
        (["alpha=much"], "'much', which is not a number"),
        (["lr=fast"], "lr is 'fast'; it must be a number such as 4e-3, or auto"),
        (["lr=0"], "lr is 0.0; it must be above 0, or auto"),
        (["k=0,1"], "k is 0; it must be at least 1"),
        (["k=2,4,2"], "--sweep 'k=2,4,2' has a value twice"),
        (["k=2", "k=4"], "--sweep has k twice"),
        (["expansion=2,4"], "expansion changes nothing where n_latents is 48"),
        (["k=2,64"], "k 64 is larger than n_latents 48"),
    ],
)
def test_a_bad_word_is_one_clear_line_and_trains_nothing(
    store: EmbeddingStore, tmp_path: Path, words: list[str], complaint: str
) -> None:
    with pytest.raises(UserError) as raised:
        run_sweep(store, tmp_path / "sweep", SMALL, words)
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "sweep").exists()


def test_an_sae_of_a_sweep_is_the_one_that_is_trained_alone(
    store: EmbeddingStore, tmp_path: Path
) -> None:
    """Another learning rate, k, width, rule and seed: to the byte, with every file."""
    for words in (["lr=2e-3,8e-3", "k=2,3"], ["seed=0,1"], ["n_latents=24,40", RULES]):
        out = tmp_path / words[0]
        sweep = run_sweep(store, out, SMALL, words)
        assert len(sweep.rows) == sweep.n_trained == 2 ** len(words)
        for row in sweep.rows:
            alone = tmp_path / "alone" / row.variant.name
            train(store, alone, row.variant.config)
            assert files(out / row.variant.name) == files(alone)


def test_saes_of_one_seed_see_each_batch_together_in_one_pass(
    store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, int]] = []  # learning rate, address of the batch
    step = Trainer.step

    def watched(self: Trainer, x: Tensor, *rest: object) -> object:
        seen.append((self.config.lr, x.data_ptr()))
        return step(self, x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "step", watched)
    run_sweep(store, tmp_path / "sweep", SMALL, ["lr=2e-3,8e-3"])
    assert [rate for rate, _ in seen] == [2e-3, 8e-3] * 40
    assert all(a[1] == b[1] for a, b in zip(seen[::2], seen[1::2], strict=True))


def test_the_table_and_the_plot_hold_every_sae(store: EmbeddingStore, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    sweep = run_sweep(store, out, SMALL, ["k=1,3", "lr=1e-3,1e-2"])
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["sweep.csv", "sweep.png", *(row.variant.name for row in sweep.rows)]
    )
    found = lines(out)
    assert [line["sae"] for line in found] == [row.variant.name for row in sweep.rows]
    for line, row in zip(found, sweep.rows, strict=True):
        assert (float(line["lr"]), int(line["k"])) == (row.lr, row.variant.config.k)
        assert row.fit is not None
        assert float(line["fvu"]) == row.fit.fvu
        assert row.fit.n_images < 100  # the held-out ones
        assert line["failure"] == ""
    # With more latents a token the FVU is lower: both ends are on the front, the slow ones not.
    assert [line["on_front"] for line in found] == ["False", "True", "False", "True"]
    with Image.open(out / "sweep.png") as image:
        assert image.size[0] > 1000
    assert sweep.flat()["k1-lr0.001/fvu"] == float(found[0]["fvu"])


def test_a_rate_that_is_too_high_is_a_line_of_its_own(
    store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, rate=3e-3, at_step=20)
    out = tmp_path / "sweep"
    sweep = run_sweep(store, out, SMALL, ["lr=3e-3,4e-3"])
    assert list(sweep.failures()) == ["lr0.003"]
    bad, good = lines(out)
    assert "nan at step 21 of 40" in bad["failure"]
    assert bad["fvu"] == ""
    assert float(good["fvu"]) < 1
    assert not (out / "lr0.003" / "config.json").exists()
    assert SAE.load(out / "lr0.004").W_enc.isfinite().all()
    with pytest.raises(NotFinite, match="nan at step 21"):
        train(store, tmp_path / "alone", dataclasses.replace(SMALL, lr=3e-3))


def test_a_stopped_sweep_goes_on_and_a_finished_one_is_left_alone(
    store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sae.training.loop.SHOW_SECONDS", 0)
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    words = ["lr=2e-3,8e-3", "seed=0,1"]
    run_sweep(store, whole, SMALL, words)

    second_pass = stop_at(20, lambda: (out / "lr0.002-seed0" / "config.json").exists())
    with pytest.raises(KeyboardInterrupt):
        run_sweep(store, out, SMALL, words, TrainContext(progress=second_pass))
    for name in ("lr0.002-seed1", "lr0.008-seed1"):
        assert [path.name for path in (out / name / "checkpoints").iterdir()] == ["000000020"]
    assert not (out / "sweep.csv").exists()
    sweep = run_sweep(store, out, SMALL, words)
    assert sweep.n_trained == 2
    for row in sweep.rows:
        assert files(out / row.variant.name) == files(whole / row.variant.name)
    assert files(out)["sweep.csv"] == files(whole)["sweep.csv"]
    assert run_sweep(store, out, SMALL, words).n_trained == 0
    with pytest.raises(UserError, match=r"lr0\.002-seed0 holds an SAE trained with k 3, not 2"):
        run_sweep(store, out, dataclasses.replace(SMALL, k=2), words)


def test_saes_that_were_stopped_at_different_steps_join_when_their_batch_comes(
    store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sae.training.loop.SHOW_SECONDS", 0)
    configs = {name: dataclasses.replace(SMALL, k=k) for name, k in (("a", 2), ("b", 3))}

    for name, step in (("a", 10), ("b", 30)):
        with pytest.raises(KeyboardInterrupt):
            train(store, tmp_path / name, configs[name], TrainContext(progress=stop_at(step)))
    jobs = {tmp_path / name: config for name, config in configs.items()}
    results = train_all(store, jobs)
    assert [r.n_before for r in results if not isinstance(r, NotFinite)] == [10, 30]
    for name, config in configs.items():
        train(store, tmp_path / f"whole {name}", config)
        assert files(tmp_path / name) == files(tmp_path / f"whole {name}")


def test_saes_that_need_other_batches_are_not_trained_together(
    store: EmbeddingStore, tmp_path: Path
) -> None:
    jobs = {tmp_path / "a": SMALL, tmp_path / "b": dataclasses.replace(SMALL, seed=1)}
    with pytest.raises(ValueError, match="the same seed"):
        train_all(store, jobs)


def test_the_command_line_sweeps(
    store: EmbeddingStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--n-latents", 48, "--batch-size", 64, "--n-tokens", 64 * 20, "--device", "cpu")
    words = ("train", store.path, "--out", tmp_path / "s", *small)
    figures = tmp_path / "figures.json"
    assert sae(*words, "--sweep", "k=2,3", "lr=auto,4e-3", "--json", figures) == 0
    said = capsys.readouterr().out
    assert "4 SAEs, measured on" in said
    for name in ("k2-lrauto", "k2-lr0.004", "k3-lrauto", "k3-lr0.004"):
        assert name in said
        assert SAE.load(tmp_path / "s" / name).config.k == int(name[1])
    assert f"next:     sae eval {tmp_path / 's' / 'k3-lr'}" in said
    assert '"k3-lrauto/fvu"' in figures.read_text()

    assert sae(*words, "--sweep", "k=2", "--sweep", "lr=auto,4e-3") == 0
    assert "(2 were there already)" in capsys.readouterr().out
    assert sae(*words, "--sweep", "q=2") == 2
    assert capsys.readouterr().err.startswith("sae: --sweep has the unknown name 'q'")
    assert sae(*words, "k=2") == 2
    assert "unexpected argument 'k=2'" in capsys.readouterr().err
    assert sae(*words, "--sweep", "k=2", "--log", "wandb") == 2
    assert "--log wandb follows one SAE at a time" in capsys.readouterr().err


def test_names_in_the_plot_keep_clear_of_each_other_and_the_front_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def annotate(self: Axes, text: str, *args: object, **kwargs: object) -> None:
        written.append(text)

    monkeypatch.setattr(Axes, "annotate", annotate)
    points = [Point(8, 0.3011, "hidden", False), Point(8, 0.3, "best", True)]
    plot_pareto(tmp_path / "p.png", [*points, Point(8, 0.6, "far", False), Point(0, 0, "", True)])
    assert written[1:] == ["best", "far"]  # after the subtitle
    assert (tmp_path / "p.png").stat().st_size > 10_000


def test_a_stop_saves_the_others_of_one_that_is_no_longer_finite(
    store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sae.training.loop.SHOW_SECONDS", 0)
    monkeypatch.setattr("sae.training.loop.N_ROWS", 2)  # no look between step 20 and 40
    poison(monkeypatch, rate=3e-3, at_step=20)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(store, tmp_path, SMALL, ["lr=3e-3,4e-3"], TrainContext(progress=stop_at(30)))
    assert [path.name for path in (tmp_path / "lr0.004/checkpoints").iterdir()] == ["000000030"]
    assert not (tmp_path / "lr0.003" / "checkpoints").exists()
