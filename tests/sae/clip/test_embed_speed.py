"""How fast images were embedded, on a clock that only the model and the images move."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from sae.clip import embed as room
from sae.clip.embed import Meter, choose_shards
from sae.clip.model import Clip
from tests.support.commands import sae
from tests.support.sae.embedded import Images, run

N = 23


class Clock:
    """Three seconds a batch in the model, one more for its images."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        embed_batch = room.embed_batch

        def slow(*arguments: object) -> object:
            self.now += 3
            return embed_batch(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(room, "embed_batch", slow)
        monkeypatch.setattr(room, "time", SimpleNamespace(monotonic=lambda: self.now))

    def tick(self, *_: int) -> None:
        self.now += 1


def test_the_model_is_busy_while_it_computes_and_not_while_images_are_read(
    images: Images, clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = Meter()
    run(images, tmp_path / "store", clip, progress=Clock(monkeypatch).tick, meter=meter)
    n_batches = 4 * 2 + 1  # shards of 5 in batches of 3
    assert (meter.n_images, meter.seconds, meter.busy) == (N, 4 * n_batches, 0.75)
    assert meter.images_per_second == N / (4 * n_batches)
    again = Meter()
    run(images, tmp_path / "store", clip, meter=again)
    assert again.n_images == 0
    assert math.isnan(again.busy)
    assert math.isnan(again.images_per_second)


def test_two_ranks_have_twice_the_time_of_one() -> None:
    assert Meter(n_images=10, seconds=4, model_seconds=6, n_ranks=2).busy == 0.75


@pytest.mark.parametrize(
    ("n_files", "of_a_shard"),
    [
        (0, 256),
        (1000, 256),
        (4000, 256),
        (4096, 512),
        (32_767, 3840),
        (32_768, 4096),
        (10**9, 4096),
    ],
)
def test_a_short_list_has_shards_for_several_processes(n_files: int, of_a_shard: int) -> None:
    assert choose_shards(n_files, [Path("nowhere")]) == of_a_shard


def test_a_store_goes_on_with_the_shards_that_it_was_begun_with(
    images: Images, clip: Clip, tmp_path: Path
) -> None:
    begun = run(images, tmp_path / "store", clip, shard_images=5)
    assert run(images, tmp_path / "store", clip, shard_images=None) == begun
    (tmp_path / "store" / "store.json").unlink()
    assert run(images, tmp_path / "store", clip, shard_images=None).shard_rows == begun.shard_rows


def test_embed_prints_and_writes_how_fast_it_was(
    images: Images,
    clip: Clip,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Clock(monkeypatch)
    domains = [f"{name}={root}" for name, root in images.roots.items()]
    words: list[object] = ["embed", "--domain", *domains, "--clip", clip.name, "--workers", "0"]
    words += ["--batch-size", "3", "--device", "cpu", "--out", tmp_path / "store", "--json"]
    assert sae(*words, tmp_path / "new.json") == 0
    assert "1.0 images/s, model busy 100%: 23 images in 24.0 s" in capsys.readouterr().out
    figures = json.loads((tmp_path / "new.json").read_text())
    assert figures == {
        "n_images": N,
        "n_skipped": 0,
        "n_embedded_now": N,
        "seconds": 24.0,
        "images_per_second": N / 24,
        "model_busy": 1.0,
    }
    assert sae(*words, tmp_path / "old.json") == 0
    assert "images/s" not in capsys.readouterr().out
    figures = json.loads((tmp_path / "old.json").read_text())
    assert (figures["n_embedded_now"], figures["model_busy"]) == (0, None)
