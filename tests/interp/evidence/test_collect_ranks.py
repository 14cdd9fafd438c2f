"""Two processes that collect from one store, forked; one of them killed."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed.run import get_args_parser

from interp.cli.app import main as interp_main
from interp.evidence.stream.activations import EncodedStore
from interp.evidence.stream.counts import ExactSums
from interp.evidence.stream.first_pass import Survey
from sae.core.errors import FAILURES
from tests.support.commands import interp
from tests.support.interp.collected import make_sae, make_store
from tests.support.sae.embedded import contents
from tests.support.sae.ranks import Pair

N = 2000
SIZES = {"--n-top": 5, "--n-sample": 15, "--n-silent": 8, "--n-hard": 6, "--n-by-domain": 4}


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """2,000 images of five tokens, heat maps too, in 16 batches."""
    torch.set_num_threads(1)  # as in the forked ones
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("interp.evidence.stream.activations._MAX_IMAGES", 128)
    make_store(tmp_path / "store", N, t=5, grid=[2, 2])
    make_sae().save(tmp_path / "sae")
    words: list[object] = ["collect", tmp_path / "sae", tmp_path / "store", "--no-groups"]
    words += ["--device", "cpu", *(word for pair in SIZES.items() for word in pair), "--run"]
    return words


def two(words: list[object], folder: Path, prepare: object = None) -> Pair:
    """`torchrun --nproc-per-node 2 -m interp collect ... --run two`."""
    said = folder / f"said{len(list(folder.glob('said*')))}"
    return Pair([*words, "two"], said, prepare, interp_main)  # type: ignore[arg-type]


def require_same(words: list[object], folder: Path) -> None:
    assert interp(*words, "one") == 0
    one, other = (contents(folder / "results" / name / "collect") for name in ("one", "two"))
    assert one == other
    assert {"latents.parquet", "examples.parquet", "by_domain.parquet", "collect.json"} <= {*one}


def test_two_processes_write_the_files_of_one(words: list[object], tmp_path: Path) -> None:
    def count(rank: int) -> None:
        update = Survey.update

        def note(survey: Survey, seen: object) -> None:
            (tmp_path / f"seen.{rank}").open("a").write("x")
            update(survey, seen)  # type: ignore[arg-type]

        Survey.update = note  # type: ignore[method-assign, assignment]

    pair = two(words, tmp_path, count)
    assert pair.end() == [0, 0], pair.text("err")
    assert [len((tmp_path / f"seen.{rank}").read_text()) for rank in (0, 1)] == [8, 8]
    assert pair.text("out").count(f"24 latents on {N} images") == 1
    require_same(words, tmp_path)
    before = contents(tmp_path / "results" / "two" / "collect")
    pair = two(words, tmp_path)  # finished: left alone
    assert pair.end() == [0, 0], pair.text("err")
    assert contents(tmp_path / "results" / "two" / "collect") == before


@pytest.mark.parametrize(("lost", "look"), [(0, 1), (1, 1), (1, 2)])
def test_the_same_command_finishes_after_a_lost_process(
    words: list[object], tmp_path: Path, lost: int, look: int
) -> None:
    def die_at_the_second_batch(rank: int) -> None:
        batches, n_calls = EncodedStore.batches, 0

        def stop(*arguments: object, **named: object) -> Iterator[object]:
            nonlocal n_calls
            n_calls += 1
            for number, seen in enumerate(batches(*arguments, **named)):  # type: ignore[arg-type]
                if (rank, n_calls, number) == (lost, look, 1):
                    os.kill(os.getpid(), signal.SIGKILL)
                yield seen

        EncodedStore.batches = stop  # type: ignore[method-assign, assignment]

    pair = two(words, tmp_path, die_at_the_second_batch)
    codes = pair.end()
    assert codes[lost] == -signal.SIGKILL
    assert codes[1 - lost] == FAILURES
    assert "another process of this collecting has gone" in pair.text("err")
    assert not (tmp_path / "results" / "two" / "collect" / "collect.json").exists()
    pair = two(words, tmp_path)
    assert pair.end() == [0, 0], pair.text("err")
    require_same(words, tmp_path)


def test_torchrun_hands_all_options_on(words: list[object]) -> None:
    mine = list(map(str, [*words, "two"]))
    told = get_args_parser().parse_args(["--nproc-per-node", "2", "-m", "--", "interp", *mine])
    assert (told.training_script, told.training_script_args) == ("interp", mine)


@pytest.mark.parametrize("option", ["--export", "--domain"])
def test_what_one_process_alone_does_is_refused(
    words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    more = {"--export": ["patchsae", tmp_path / "out"], "--domain": [f"photo={tmp_path}"]}[option]
    subject = [word for word in words if option == "--export" or word != tmp_path / "store"]
    assert interp(*subject, "two", option, *more) == 2
    assert not (tmp_path / "results").exists()


def test_exact_sums_of_parts_add_up_to_that_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    numbers = np.float32(2.0) ** rng.uniform(-149, 127, 3000).astype(np.float32)
    numbers[:3] = np.float32(1e-45), np.finfo(np.float32).max, np.finfo(np.float32).tiny
    whole, one, other = (ExactSums(2) for _ in range(3))
    place = np.arange(3000) % 2
    whole.update(place, numbers)
    one.update(place[:700], numbers[:700])
    other.update(place[700:], numbers[700:])
    one.merge(other)
    np.testing.assert_array_equal(one.result(), whole.result())
    exact = [float(sum(map(_whole, numbers[k::2].tolist())) / (1 << 149)) for k in (0, 1)]
    assert whole.result().tolist() == exact


def _whole(number: float) -> int:
    top, bottom = number.as_integer_ratio()
    return top * (1 << 149) // bottom


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_one_of_two_is_killed_at_a_random_moment(
    words: list[object], tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    pair = two(words, tmp_path)
    lost = pair.children[chance.randrange(2)]
    lost.join(chance.uniform(0, 1.5))
    lost.kill()
    # Each may have been done before; or neither has begun: then the other one waits for it, until
    # it is killed as torchrun would.
    assert {*pair.end(30)} <= {0, FAILURES, -signal.SIGKILL}, pair.text("err")
    pair = two(words, tmp_path)
    assert pair.end() == [0, 0], pair.text("err")
    require_same(words, tmp_path)
