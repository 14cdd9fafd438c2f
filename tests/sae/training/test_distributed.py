"""Two processes, connected by gloo, on this machine's CPU: under torchrun, or forked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch

from sae.core import distributed
from sae.core.distributed import Ranks
from sae.core.errors import FAILURES, USAGE
from sae.core.files import read_jsonl
from sae.data.store import EmbeddingStore
from tests.support.commands import sae
from tests.support.paths import ROOT
from tests.support.sae.ranks import Pair
from tests.support.sae.recorded_steps import compare_rank, record
from tests.support.sae.stores import oracle, write_store

SMALL = ["--n-latents", "96", "--k", "3", "--batch-size", "65", "--dead-after", "130"]
SMALL += ["--n-tokens", str(65 * 40), "--device", "cpu"]


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    """600 tokens of 24 directions; the odd batch of 65 tokens gives the two unequal parts."""
    x, _ = oracle(600, 16, 24, n_active=(1, 3))
    return write_store(tmp_path / "store", x.view(300, 2, 16))


def torchrun(*words: object, module: str = "sae") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", module, *(str(word) for word in words)]
    return subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=ROOT,
    )


def long_training(store: EmbeddingStore) -> list[object]:
    """600 steps: there is time to stop them."""
    words: list[object] = ["train", store.path, *SMALL, "--backend", "plain"]
    words[words.index(str(65 * 40))] = str(65 * 600)
    return words


def wait_for_rows(is_alive: Callable[[], bool], out: Path) -> None:
    """Until the training has logged twice."""
    while len(read_jsonl(out / "train.jsonl")) < 2:
        assert is_alive()
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("variant", "launcher"),
    [
        pytest.param(["--backend", "sparse"], "torchrun", marks=pytest.mark.slow),
        (["--activation", "batch_topk", "--matryoshka", "24,48"], "fork"),
    ],
)
def test_two_processes_train_the_same_sae_as_one(
    store: EmbeddingStore, tmp_path: Path, variant: list[str], launcher: str
) -> None:
    words = ["train", store.path, *SMALL, *variant, "--out"]
    states, differences = tmp_path / "states", tmp_path / "differences"
    with pytest.MonkeyPatch.context() as patch:
        record(patch, states)
        assert sae(*words, tmp_path / "one") == 0
    words.append(tmp_path / "two")
    if launcher == "torchrun":
        module = "tests.support.sae.recorded_steps"
        with torchrun(states, differences, *words, module=module) as process:
            said, complained = process.communicate(timeout=600)
        assert process.returncode == 0, complained
    else:
        hold = partial(compare_rank, states, differences)
        pair = Pair(words, tmp_path / "said", hold)
        assert pair.end() == [0, 0], pair.text("err")
        said, complained = pair.text("out"), pair.text("err")
    engine = "sparse" if "sparse" in variant else "plain"
    # The first process speaks, the other is silent.
    assert said.count(f"trained with the {engine} engine: 96 latents") == 1
    assert complained.count("train: 40/40 steps") == 1
    rows = read_jsonl(tmp_path / "one" / "train.jsonl")
    assert max(row["aux"] for row in rows) > 0  # dead latents took part
    assert len(read_jsonl(tmp_path / "two" / "train.jsonl")) == len(rows)
    for rank in (0, 1):
        steps = read_jsonl(Path(f"{differences}.{rank}"))
        equal = [far for far in steps if far["weights"] < 2e-5 and far["figures"] < 1e-4]
        assert len(steps) == 40
        # From equal states rounding may still turn the choice between two activations that tie.
        assert len(equal) >= 36, steps


def test_ctrl_c_stops_both_at_one_step_and_either_number_of_processes_goes_on(
    store: EmbeddingStore, tmp_path: Path
) -> None:
    out = tmp_path / "two"
    words = long_training(store)
    with torchrun(*words, "--out", out) as process:
        wait_for_rows(lambda: process.poll() is None, out)
        os.killpg(process.pid, signal.SIGINT)
        _, complained = process.communicate(timeout=600)
    assert process.returncode != 0
    assert "interrupted; to go on: torchrun --nproc-per-node 2 -m -- sae train" in complained
    (checkpoint,) = (out / "checkpoints").iterdir()
    assert int(checkpoint.name) % 16 == 0
    assert not (out / "config.json").exists()
    assert sae(*words, "--out", out) == 0
    assert len(read_jsonl(out / "train.jsonl")) == 100


@pytest.mark.parametrize("lost", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_lost_process_is_one_line_on_the_other_and_the_first_keeps_its_work(
    store: EmbeddingStore, tmp_path: Path, lost: int
) -> None:
    out = tmp_path / "two"
    words = long_training(store)
    pair = Pair([*words, "--out", out], tmp_path / "said")
    wait_for_rows(lambda: pair.children[lost].is_alive(), out)
    pair.children[lost].kill()
    pair.end()
    assert pair.children[1 - lost].exitcode == FAILURES
    (line,) = [line for line in pair.text("err").splitlines() if "another process" in line]
    assert "the same command goes on from the last checkpoint" in line
    assert "a bug in the program" not in pair.text("err")
    if lost != 0:
        _goes_on(words, out)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [1, 0])
def test_a_process_lost_under_torchrun_is_one_line_too(
    store: EmbeddingStore, tmp_path: Path, lost: int
) -> None:
    out = tmp_path / "two"
    words = long_training(store)
    with torchrun(*words, "--out", out) as process:
        wait_for_rows(lambda: process.poll() is None, out)
        os.kill(rank_of(process.pid, lost), signal.SIGKILL)
        _, complained = process.communicate(timeout=600)
    # torchrun ends it as soon as the other is lost, which may be before it finds out by itself.
    told = ("another process of this training", "interrupted; to go on: torchrun")
    ours = [line for line in complained.splitlines() if any(words in line for words in told)]
    assert len(ours) == 1, complained
    if told[0] in ours[0]:
        assert "the same command goes on from the last checkpoint" in ours[0]
    assert "a bug in the program" not in complained
    if lost != 0:
        _goes_on(words, out)


def _goes_on(words: list[object], out: Path) -> None:
    assert len(list((out / "checkpoints").iterdir())) == 1
    assert sae(*words, "--out", out) == 0
    steps = [row["step"] for row in read_jsonl(out / "train.jsonl")]
    assert steps == sorted(set(steps))
    assert len(steps) == 100


def rank_of(parent: int, rank: int) -> int:
    """The process of that rank below torchrun."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in variables:
            return int(child)
    raise LookupError(f"no rank {rank}")


def test_more_processes_than_tokens_in_a_batch_are_refused(
    store: EmbeddingStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Two(Ranks):
        def sum(self, tensors: list[torch.Tensor]) -> None:
            """The other one has nothing to add."""

    monkeypatch.setattr(distributed, "join_processes", lambda _: nullcontext(Two(n=2)))
    assert sae("train", store.path, "--batch-size", "1", "--out", tmp_path / "sae") == USAGE
    assert "2 processes cannot share batches of 1 tokens" in capsys.readouterr().err


def test_one_process_alone_waits_for_nobody() -> None:
    alone = Ranks()
    x = torch.ones(3)
    alone.sum([x])
    alone.wait()
    assert x.tolist() == [1, 1, 1]
    assert alone.any(True)
    assert not alone.any(False)
    assert alone.is_first
