"""Two processes that embed into one store, forked; one of them killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from pathlib import Path

import pytest

from sae.clip import embed as room
from sae.clip.model import Clip
from sae.core.errors import FAILURES
from sae.data.store_writer import StoreWriter
from tests.support.commands import sae
from tests.support.sae.embedded import Images, contents
from tests.support.sae.ranks import Pair

N_SHARDS = 7


@pytest.fixture
def words(images: Images, clip: Clip, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Of 25 images in shards of 4: two stand in several shards, one file is no image."""
    photo = images.roots["photo"]
    shutil.copy(images.files[0].path, photo / "class1" / "zz.png")
    shutil.copy(images.files[9].path, photo / "zz.png")
    (photo / "bad.png").write_bytes(b"no image")
    monkeypatch.setattr(room, "SHARD_BYTES", 4 * clip.d_embed * 2)
    domains = [f"{name}={root}" for name, root in images.roots.items()]
    words: list[object] = ["embed", "--clip", clip.name, "--domain", *domains]
    words += ["--batch-size", "3", "--workers", "0", "--device", "cpu"]
    return [*words, "--allow-skipped", "--out"]


def shards(store: Path) -> dict[str, int]:
    """Each finished shard's file, by which a second one of its name is told from it."""
    done = [path.stem for path in store.glob("0*.parquet")]
    return {name: (store / f"{name}.safetensors").stat().st_ino for name in done}


def test_two_processes_write_the_bytes_of_one(words: list[object], tmp_path: Path) -> None:
    assert sae(*words, tmp_path / "one", "--json", tmp_path / "one.json") == 0
    assert len(list((tmp_path / "one").glob("0*.safetensors"))) == N_SHARDS
    pair = Pair([*words, tmp_path / "two", "--json", tmp_path / "two.json"], tmp_path / "said")
    assert pair.end() == [0, 0], pair.text("err")
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one["n_embedded_now"] == two["n_embedded_now"] >= one["n_images"] == 23
    assert 0 < two["model_busy"] <= 1
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert pair.text("out").count("embedded 23 images") == 1


@pytest.mark.parametrize("lost", [0, 1])
def test_what_a_lost_process_has_left_is_done_by_the_same_command(
    words: list[object], tmp_path: Path, lost: int
) -> None:
    def die_at_the_second_shard(rank: int) -> None:
        write = StoreWriter.write_shard

        def stop(writer: StoreWriter, *arguments: object) -> None:
            if rank == lost and len(writer.done) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            write(writer, *arguments)  # type: ignore[arg-type]

        StoreWriter.write_shard = stop  # type: ignore[method-assign, assignment]

    pair = Pair([*words, tmp_path / "two"], tmp_path / "said", die_at_the_second_shard)
    codes = pair.end()
    assert codes[lost] == -signal.SIGKILL
    assert codes[1 - lost] == FAILURES
    assert "another process of this embedding has gone" in pair.text("err")
    done = shards(tmp_path / "two")
    assert len(done) == 1 + (3 if lost == 0 else 4)
    assert not (tmp_path / "two" / "store.json").exists()
    _goes_on(words, tmp_path, done)


def _goes_on(words: list[object], folder: Path, done: dict[str, int]) -> None:
    """No shard is written again but for those with images that an earlier one has too."""
    made: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        write = StoreWriter.write_shard

        def note(writer: StoreWriter, *arguments: object) -> None:
            made.append(f"{arguments[3]:05d}")
            write(writer, *arguments)  # type: ignore[arg-type]

        patch.setattr(StoreWriter, "write_shard", note)
        assert sae(*words, folder / "two") == 0
    assert {*made} | {*done} == {f"{shard:05d}" for shard in range(N_SHARDS)}
    assert not {*made} & {*done}
    assert sae(*words, folder / "one") == 0
    assert contents(folder / "one") == contents(folder / "two")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_one_of_two_is_killed_at_a_random_moment(
    words: list[object], tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    pair = Pair([*words, tmp_path / "two"], tmp_path / "said")
    lost = pair.children[chance.randrange(2)]
    lost.join(chance.uniform(0, 1.5))
    lost.kill()
    # It may have been done before, and the other one too; or neither has begun: then the other one
    # waits for it, until it is killed as torchrun would.
    assert {*pair.end(30)} <= {0, FAILURES, -signal.SIGKILL}, pair.text("err")
    store = tmp_path / "two"
    if (store / "store.json").exists():
        assert sae(*words, tmp_path / "two") == 0
        assert sae(*words, tmp_path / "one") == 0
        assert contents(tmp_path / "one") == contents(store)
    else:
        _goes_on(words, tmp_path, shards(store))
