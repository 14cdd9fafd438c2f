"""What every test needs: one thread a process, ctrl-C that works, the tier `unit`; shared fixtures.

A test belongs to the tier `unit` by what it uses, not by a mark of its own: it starts no process
and no server, runs no command line, and its file trains or draws for no seconds. `NOT_UNIT` and
`LONG` below say so by name. The tiers `slow`, `cuda` and `server` are marks.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before torch is imported: workers side by side (`-n auto`) must not take the cores of each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before anything of ours is imported: without kept bytecode each worker, and each of the hundreds
# of processes that tests start, would compile every file of ours anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest

from tests.support.commands import Walk, interp, sae
from tests.support.unchanged import unchanged

if TYPE_CHECKING:  # torch and open_clip take seconds, also of a process that only deals out tests
    from sae.clip.model import Clip
    from tests.support.sae.embedded import Images
    from tests.support.servers.fake_hub import FakeHub

NOT_UNIT = {"subprocess", "multiprocessing", "Loopback", "FakeHub", "sae", "interp"}
"""Names in a test's file, or fixtures of a test, that start a process, a server or a command."""
NOT_UNIT |= {"walk", "server", "hub", "browser", "run_dir"}
LONG = (
    "tests/benchmarks/",
    "tests/interp/cli/test_help.py",
    "tests/interp/evidence/test_collect.py",
    "tests/interp/evidence/test_examples.py",
    "tests/interp/evidence/groups/test_twins.py",
    "tests/interp/explain/test_lint.py",
    "tests/interp/llm/cost/test_cap.py",
    "tests/interp/llm/ledger/test_keys.py",
    "tests/interp/llm/replies/test_replies.py",
    "tests/interp/llm/server/test_generated_answers.py",
    "tests/interp/pictures/test_painter.py",
    "tests/interp/pipeline/test_choice.py",
    "tests/interp/report/test_sheets.py",
    "tests/interp/score/kinds/test_canary.py",
    "tests/interp/score/nulls/test_suite.py",
    "tests/interp/score/statistics/",
    "tests/interp/score/test_agreement.py",
    "tests/interp/score/test_concurrency.py",
    "tests/sae/clip/test_bad_decoders.py",
    "tests/sae/clip/test_embed",
    "tests/sae/evaluation/test_threshold.py",
    "tests/sae/interchange/test_killed.py",
    "tests/sae/training/test_",
    "tests/sae/training/sweep/",
    "tests/sae/training/engines/test_plain.py",
    "tests/sae/training/engines/test_triton.py",
    "tests/sae/untrusted/",
    "tests/sae/world/test_scene.py",
    "tests/sae/world/test_tiny_clip.py",
    "tests/sae/world/test_write.py",
)
"""Files, or folders, whose tests take seconds each."""
FIRST = (
    "tests/sae/training/engines/test_triton.py",
    "tests/interp/cli/test_walk.py",
    "tests/sae/training/test_distributed.py",
    "tests/interp/pipeline/workflow/test_paid.py",
    "tests/interp/bench/test_bench.py",
    "tests/interp/pipeline/test_",
    "tests/interp/report/gallery/test_",
    "tests/interp/explain/test_run.py",
)
"""The files that take longest, in the order in which they start: a worker gets a whole file, and
one that comes last would keep the others waiting."""


def pytest_configure(config: pytest.Config) -> None:
    """Under `nohup pytest ... &` the shell ignores SIGINT, for us and for all that we start.

    Which folders of images were named is not kept with what the person who runs the tests named.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.dont_write_bytecode = False  # in this very process
    gc.set_threshold(100_000, 10, 10)  # as the command lines do
    state = tempfile.TemporaryDirectory()
    config.add_cleanup(state.cleanup)
    os.environ["XDG_STATE_HOME"] = state.name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        assert isinstance(item, pytest.Function)
        names = {*vars(item.module), *item.fixturenames}
        is_marked = any(item.get_closest_marker(tier) for tier in ("slow", "cuda", "server"))
        if not is_marked and not names & NOT_UNIT and not item.nodeid.startswith(LONG):
            item.add_marker(pytest.mark.unit)
    items.sort(key=lambda item: [not item.nodeid.startswith(file) for file in FIRST])


def _seed() -> None:
    """The same chance for a file or a test wherever it runs, and whatever ran before it there."""
    random.seed(0)
    if "numpy" in sys.modules:  # a process that only deals out tests has neither
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_make_collect_report(collector: pytest.Collector) -> None:
    _seed()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    _seed()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of models are kept for a day: not those of the person who runs the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """300 drawings, the tiny CLIP, 16 latents, collected. Read-only: copy what you change."""
    folder = tmp_path_factory.mktemp("walk")
    made = Walk(folder / "world", folder / "store", folder / "sae", folder / "run")
    domains = [f"sketch={made.world / 'sketch'}", f"photo={made.world / 'photo'}"]
    assert sae("world", "--n", 300, "--out", made.world, "--workers", 1) == 0
    assert sae("embed", "--domain", *domains, "--out", made.store, "--workers", 0) == 0
    latents = ("--n-latents", 16, "--k", 2, "--epochs", 20)
    assert sae("train", made.store, "--out", made.sae, *latents) == 0
    wide = ("--dense-above", 0.9)
    assert interp("collect", made.sae, made.store, "--run", made.run, *wide) == 0
    with unchanged(*made):
        yield made


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """An empty hub, with a token for it and a cache of its own."""
    import huggingface_hub.constants as hf

    from tests.support.servers.fake_hub import TOKEN, FakeHub

    monkeypatch.setattr(hf, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(hf, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
    monkeypatch.setattr(hf, "HF_HUB_DISABLE_TELEMETRY", True)  # it would ask huggingface.co
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with FakeHub() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the models of one file of tests."""
    import torch

    torch.set_num_threads(1)  # children are forked, and must not wait for threads left behind
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Clip:
    """A small ViT with random weights."""
    from sae.clip.model import load_clip
    from tests.support.sae.small_clip import small_clip

    return load_clip(small_clip(folder / "vit"), "cpu")


@pytest.fixture
def images(tmp_path: Path) -> Images:
    """12 sketches and 11 photos, all different."""
    from tests.support.sae.embedded import found
    from tests.support.sae.small_clip import write_images

    return found(
        tmp_path, write_images(tmp_path / "sketch", 12), write_images(tmp_path / "photo", 11, 1)
    )
