"""Files of our own, edited or damaged: one line that names the file, whatever was done to it."""

from __future__ import annotations

import random
import resource
import shutil
import time
import warnings
from pathlib import Path

import pytest

from sae.core.errors import Notice, UserError
from tests.support.commands import Walk
from tests.support.interp.own_files import READERS, damage, write_all

N_FAST, N_SLOW = 21 * 20, 10_000


@pytest.fixture(scope="module")
def own(walk: Walk, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each; every test puts back what it damages."""
    folder = tmp_path_factory.mktemp("own")
    write_all(walk, folder)
    return folder


@pytest.mark.parametrize("name", READERS)
def test_what_is_whole_is_read_without_a_word(own: Path, name: str) -> None:
    if name == "settings.toml" or name.endswith("lr.json"):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        READERS[name](own)


@pytest.mark.parametrize("n", [N_FAST, pytest.param(N_SLOW, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::sae.core.errors.Notice")
def test_damaged_files_of_ours_are_one_line_each(own: Path, tmp_path: Path, n: int) -> None:
    names, slowest, largest = list(READERS), 0.0, 0
    whole = {name: (own / name).read_bytes() for name in names}
    bugs: list[str] = []
    for number in range(n):
        name, rng = names[number % len(names)], random.Random(number)
        way, data = damage(name, whole[name], rng, tmp_path / f"scratch{number}")
        (tmp_path / f"scratch{number}").unlink(missing_ok=True)
        (own / name).write_bytes(data)
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        try:
            READERS[name](own)
        except UserError as error:
            said = str(error)
            if "\n" in said or len(said) > 2000:
                bugs.append(f"{number} {name} {way}: {said[:300]}")
        except Exception as error:
            bugs.append(f"{number} {name} {way}: {type(error).__name__}: {str(error)[:300]}")
        finally:
            slowest = max(slowest, time.monotonic() - started)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            largest = max(largest, (grown << 10) - 2 * len(data))
            (own / name).write_bytes(whole[name])
            for left in ("run/calls.sqlite-wal", "run/calls.sqlite-shm"):
                (own / left).unlink(missing_ok=True)
            shutil.rmtree(own / "nothing", ignore_errors=True)
    print(f"slowest {slowest:.2f} s, at most {largest / 2**20:.0f} MB beyond twice the file")
    assert not bugs, "\n".join(bugs)
    assert largest <= 64 << 20
