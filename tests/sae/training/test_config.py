from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sae.core.errors import UserError
from sae.core.files import read_config, write_json
from sae.model.init import INITS
from sae.model.sparsity import RULES, RULES_WITH_K
from sae.training.config import ACTIVATIONS, WITH_K, TrainConfig
from sae.training.settings.schedule import k_at, resolve, schedule
from tests.support.commands import sae


def test_the_schedule_rises_stays_and_falls() -> None:
    shares = [schedule(step, 100, 0.1, 0.2) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9:81] == [1.0] * 72
    assert shares[90] == pytest.approx(0.5)
    assert shares[99] == pytest.approx(0.05)
    assert schedule(0, 100, 0, 0) == schedule(99, 100, 0, 0) == 1


def test_dead_means_a_fortieth_of_the_budget_within_two_passes() -> None:
    assert resolve(TrainConfig(n_tokens=10**6), 200_000).dead_after == 25_000
    assert resolve(TrainConfig(n_tokens=10**6), 2_000).dead_after == 4_000
    assert resolve(TrainConfig(n_tokens=10**5), 200_000).dead_after == 10 * 256
    assert resolve(TrainConfig(epochs=10), 10**9).dead_after == 10_000_000
    assert resolve(TrainConfig(dead_after=7), 10**9).dead_after == 7
    assert resolve(TrainConfig(n_tokens=5), 2).dead_after == 4


def test_a_handful_of_images_is_not_passed_over_for_a_million_tokens() -> None:
    few = resolve(TrainConfig(), 25)
    assert (few.batch_size, few.n_tokens) == (25, 500 * 25)
    assert resolve(TrainConfig(), 7_200).n_tokens == 500_000
    assert resolve(TrainConfig(), 10**6).n_tokens == 10**7


def test_the_batch_leaves_enough_steps() -> None:
    sizes = {n: resolve(TrainConfig(n_tokens=n), 10**6).batch_size for n in (10**6, 307_200, 10**5)}
    assert sizes == {10**6: 1024, 307_200: 512, 10**5: 256}
    assert resolve(TrainConfig(n_tokens=10**5, batch_size=2048), 10**6).batch_size == 2048


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"k": 0}, "k is 0; it must be at least 1"),
        ({"lr": -1.0}, "lr is -1.0; it must be above 0"),
        ({"holdout": 1.0}, "holdout is 1.0"),
        ({"warmup": 0.5, "decay": 0.6}, "warmup [+] decay is 1.1; it must be at most 1"),
        ({"epochs": 2, "n_tokens": 5}, "n_tokens is 5; it must be 0 where epochs is given"),
        ({"dead_after": -1}, "dead_after is -1"),
        ({"activation": "gated"}, "activation is 'gated'; it must be one of topk, signed_topk"),
        ({"activation": "relu"}, "l1 is 0.0; it must be above 0 with activation relu"),
        ({"activation": "jumprelu"}, "l0 is 0.0; it must be above 0 with activation jumprelu"),
        ({"l0": 1e-3}, "l0 is 0.001; it must be 0 where activation is not jumprelu"),
        ({"activation": "relu", "l1": 1.0, "multi_k": 4}, "multi_k is 4; .*: relu has no k"),
        ({"ghost": "hot"}, "ghost is 'hot'; it must be one of empty, ttt, patchsae"),
        ({"init": "zero"}, "init is 'zero'; it must be one of tied, data"),
        ({"backend": "cuda"}, "backend is 'cuda'; it must be one of auto, plain, sparse, triton"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"k_warmup": 1.5}, "k_warmup is 1.5; it must be at most 1"),
        ({"matryoshka": "random:x"}, "matryoshka is 'random:x'; it must be sizes"),
        ({"matryoshka": "64;128"}, "matryoshka is '64;128'"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        TrainConfig(**values)  # type: ignore[arg-type]


def test_k_moves_in_a_straight_line_from_its_start_and_stays() -> None:
    ks = [k_at(step, 100, 64, 32, 0.5) for step in range(100)]
    assert (ks[0], ks[25], ks[49], ks[50], ks[99]) == (64, 48, 33, 32, 32)
    assert ks == sorted(ks, reverse=True)
    assert k_at(0, 100, 8, 32, 0.5) == 8  # it may rise as well
    assert k_at(0, 100, 0, 32, 0.5) == 32
    assert k_at(0, 100, 64, 32, 0) == 32
    assert k_at(0, 100, 0, 0, 0.5) == 0  # a rule without k


def test_matryoshka_prefixes_end_with_the_whole_dictionary() -> None:
    assert TrainConfig().prefixes(512) == ()
    assert TrainConfig(matryoshka="256, 64").prefixes(512) == (64, 256, 512)
    assert TrainConfig(matryoshka="64,512").prefixes(512) == (64, 512)
    assert TrainConfig(matryoshka="64").n_random_prefixes == 0
    assert TrainConfig(matryoshka="random").n_random_prefixes == 10
    assert TrainConfig(matryoshka="random:3").n_random_prefixes == 3
    assert TrainConfig(matryoshka="random:3").prefixes(512) == ()
    with pytest.raises(UserError, match="a prefix of 1024, but n_latents is 512"):
        TrainConfig(matryoshka="1024").prefixes(512)


def test_the_names_are_those_that_model_and_start_know() -> None:
    assert set(ACTIVATIONS) == set(RULES)
    assert set(WITH_K) == set(RULES_WITH_K)
    for init in INITS:
        TrainConfig(init=init)


def test_settings_written_before_the_variants_existed_are_those_of_today(tmp_path: Path) -> None:
    old = {"format": 1, "n_latents": 4096, "expansion": 8, "k": 32, "lr": 4e-3, "seed": 0}
    write_json(tmp_path / "train.json", old)
    assert read_config(tmp_path / "train.json", TrainConfig) == TrainConfig(n_latents=4096)


def test_every_setting_is_an_option_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert sae("train", "--help") == 0
    said = capsys.readouterr().out
    for field in dataclasses.fields(TrainConfig):
        assert field.name == "format" or f"--{field.name.replace('_', '-')} " in said
