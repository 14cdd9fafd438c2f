"""Nothing that a foreign file holds runs, hangs, or takes memory that the file has not."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sae import interchange
from sae.core.errors import USAGE, UserError
from sae.data.adopt import adopt
from sae.data.store import EmbeddingStore
from tests.support.paths import DATA
from tests.support.sae.hostile import hostile, write_hostile
from tests.support.sae.mutations import Checkpoint, checkpoints, mutated, stores

SAES = checkpoints(DATA)
STORES = stores(DATA)
HOSTILE = hostile()
FREE = 48_000_000
"""Bytes that Python and torch may take besides: for tables, threads and what they import late."""
MEASURE = """
import sys
from pathlib import Path
from sae import interchange
from sae.core.errors import UserError
def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
for number, path in enumerate([sys.argv[1], *sys.argv[1:]]):
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    start = memory("VmRSS")
    try:
        interchange.read(path)
    except UserError as error:
        end = str(error)
    else:
        end = "read"
    if number:  # the first is read twice: by then all is imported
        print(memory("VmHWM") - start, end)
"""


def _fuzz(kinds: list[Checkpoint], use: Callable[[Path, Path], object], seed: int, n: int) -> int:
    """How many of `n` damaged files are refused with one plain line (or `n` for a worse one)."""
    rng, n_refused = random.Random(seed), 0
    for number in range(n):
        damaged = mutated(kinds[number % len(kinds)], rng)
        with tempfile.TemporaryDirectory() as folder:
            path = damaged.write(Path(folder) / "theirs")
            try:
                use(path, Path(folder) / "ours")
            except UserError as error:
                fair = error.exit_code == USAGE and str(error).isprintable()
                n_refused += 1 if fair else n
            except BaseException as error:
                error.add_note(f"number {number} of seed {seed}: {damaged.what}")
                raise
    return n_refused


def _use_store(path: Path, out: Path) -> None:
    store = EmbeddingStore.open(path)
    for batch in store.batches(7):
        assert len(batch.rows) == len(batch.x)
    adopt(path, out)


def test_of_500_damaged_checkpoints_of_all_kinds_only_our_error_escapes() -> None:
    assert 250 < _fuzz(SAES, interchange.import_sae, 0, 500) < 500


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # numpy, of odd headers
def test_of_150_damaged_foreign_stores_only_our_error_escapes() -> None:
    assert 50 < _fuzz(STORES, _use_store, 0, 150) < 150


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_of_10_000_damaged_checkpoints_only_our_error_escapes(seed: int) -> None:
    assert 500 < _fuzz(SAES, interchange.import_sae, seed, 1000) < 1000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("hostile")
    return {what: write_hostile(file, folder) for what, file in HOSTILE.items()}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_asks_for_more_than_it_holds_is_refused(what: str, files: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=HOSTILE[what].match) as refusal:
        interchange.read(files[what])
    assert str(refusal.value).isprintable()


@pytest.mark.skipif(sys.platform != "linux", reason="a process's peak is told by Linux")
def test_a_hostile_file_costs_at_most_twice_its_size(files: dict[str, Path]) -> None:
    paths = [str(path) for path in files.values()]
    child = [sys.executable, "-c", MEASURE, *paths]
    done = subprocess.run(child, capture_output=True, text=True, check=True)
    for path, line in zip(paths, done.stdout.splitlines(), strict=True):
        cost, _, end = line.partition(" ")
        assert int(cost) <= 2 * Path(path).stat().st_size + FREE, f"{path}: {end}"


def test_weights_that_are_whole_numbers_are_refused(tmp_path: Path) -> None:
    small = {"W_enc": (8, 24), "b_enc": (24,), "W_dec": (24, 8), "b_dec": (8,)}
    state = {name: torch.ones(shape, dtype=torch.int8) for name, shape in small.items()}
    torch.save({"cfg": {"d_in": 8}, "state_dict": state}, tmp_path / "sae.pt")
    with pytest.raises(UserError, match=r"W_enc holds torch\.int8"):
        interchange.read(tmp_path / "sae.pt")
