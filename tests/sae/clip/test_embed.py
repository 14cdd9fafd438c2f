import json
import math
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from sae.clip import embed as room
from sae.clip import image_loader
from sae.clip.config import SourceConfig
from sae.clip.embed import plan_stores
from sae.clip.model import Clip, Preprocess
from sae.clip.vectors import name_stores
from sae.core.errors import UserError
from sae.data.images import read_image
from sae.data.store import EmbeddingStore
from sae.data.store_format import Source
from sae.data.store_writer import StoreWriter
from tests.support.interp.killing import run_for
from tests.support.sae.embedded import Images, contents, count_reads, found, run, run_layers

N_IMAGES = 23


@pytest.mark.parametrize(
    ("layer", "tokens", "dtype"),
    [("projected", "cls", "float32"), ("-1", "patch", "float16"), ("0", "all", "float32")],
)
def test_a_store_holds_what_the_model_gives_for_each_image(
    images: Images, clip: Clip, tmp_path: Path, layer: str, tokens: str, dtype: str
) -> None:
    info = run(images, tmp_path / "store", clip, layer, tokens, dtype=dtype)
    store = EmbeddingStore.open(tmp_path / "store")
    assert store.info == info
    x = store.read(np.arange(N_IMAGES))
    assert x.dtype == getattr(torch, dtype)
    for row, file in enumerate(images.files):
        image_id, image = read_image(file.path)
        known = clip.embed_images(clip.preprocess(image)[None], layer, tokens)[0]
        assert torch.allclose(
            x[row].float(), known, atol=1e-5, rtol=1e-3 if dtype == "float16" else 1e-5
        )
        line = store.images.iloc[row]
        assert line["image_id"] == image_id
        assert (line["domain"], line["label"]) == (file.domain, file.label)
        assert (line["width"], line["height"]) == image.size
        assert store.image_path(row) == file.path
    assert info.layer == clip.resolve_layer(layer)
    assert info.grid == ([] if tokens == "cls" else [4, 4])
    assert (info.n_images, info.n_skipped, info.clip_sha) == (N_IMAGES, 0, clip.sha)
    assert info.shard_rows == [5, 5, 5, 5, 3]


def test_worker_processes_change_nothing(images: Images, clip: Clip, tmp_path: Path) -> None:
    (images.roots["photo"] / "bad.png").write_bytes(b"no image")
    images = found(tmp_path)
    for workers in (0, 2):
        run(images, tmp_path / str(workers), clip, workers=workers, allow_skipped=True)
    assert contents(tmp_path / "0") == contents(tmp_path / "2")


LAYERS = {"layer-0": ("0", "patch"), "layer-2": ("2", "patch"), "projected": ("projected", "cls")}


def stores_in(out: Path, clip: Clip) -> dict[Path, Source]:
    found = {name: Source(clip.name, *where) for name, where in LAYERS.items()}  # type: ignore[arg-type]
    assert name_stores(clip, out, SourceConfig(layer="0,-1,projected", tokens="patch")) == {
        out / n: s for n, s in found.items()
    }
    return {out / n: s for n, s in found.items()}


def test_several_layers_of_one_pass_are_the_stores_that_each_layer_has_alone(
    images: Images, clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, passes = count_reads(monkeypatch), []
    block = clip._blocks().blocks[0].mlp
    hook = block.register_forward_hook(lambda _module, inputs, _out: passes.append(len(inputs[0])))
    run_layers(images, stores_in(tmp_path / "out", clip), clip)
    hook.remove()
    assert len(reads) == sum(passes) == N_IMAGES
    for name, (layer, tokens) in LAYERS.items():
        run(images, tmp_path / name, clip, layer, tokens)
        alone, together = (contents(p) for p in (tmp_path / name, tmp_path / "out" / name))
        place = alone.pop("plan.json"), together.pop("plan.json"), alone.pop("store.json")
        assert place[0] != place[1]  # the roots are seen from another folder
        assert (
            json.loads(together.pop("store.json"))["identity"] == json.loads(place[2])["identity"]
        )
        assert together == alone


@pytest.mark.parametrize("n_shards_before", [0, 1, 4, 7, 11])
def test_several_layers_stopped_between_any_two_shards_go_on_to_the_same_bytes(
    images: Images,
    clip: Clip,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_shards_before: int,
) -> None:
    write, n_written = StoreWriter.write_shard, 0

    def stop(*arguments: object) -> None:
        nonlocal n_written
        if n_written == n_shards_before:
            raise KeyboardInterrupt
        n_written += 1
        write(*arguments)  # type: ignore[arg-type]

    stores = stores_in(tmp_path / "out", clip)
    monkeypatch.setattr(StoreWriter, "write_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        run_layers(images, stores, clip)
    monkeypatch.undo()
    reads = count_reads(monkeypatch)
    run_layers(images, stores, clip)
    assert [f.path for f in images.files[5 * (n_shards_before // 3) :]] == reads
    whole = stores_in(tmp_path / "whole", clip)
    run_layers(images, whole, clip)
    for name in LAYERS:
        assert contents(tmp_path / "out" / name) == contents(tmp_path / "whole" / name)


def test_layers_that_cannot_be_had_together_are_refused(clip: Clip, tmp_path: Path) -> None:
    for layers, said in (
        ("0,9", "no layer 9"),
        ("0,1,-3", "layer 0 twice"),
        ("0,", "no layer"),
    ):
        with pytest.raises(UserError, match=said):
            name_stores(clip, tmp_path / "out", SourceConfig(layer=layers, tokens="patch"))
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(UserError, match="holds something else, no folder of stores"):
        name_stores(clip, tmp_path, SourceConfig(layer="0,1"))


def test_normalised_rows_have_length_1_and_are_written_down(
    images: Images, clip: Clip, tmp_path: Path
) -> None:
    unit = run(
        images, tmp_path / "unit", clip, "projected", "cls", dtype="float32", normalised=True
    )
    raw = run(images, tmp_path / "raw", clip, "projected", "cls", dtype="float32")
    x, known = (EmbeddingStore.open(tmp_path / n).read(np.arange(23)) for n in ("unit", "raw"))
    assert (known.norm(dim=-1) - 1).abs().min() > 0.01
    assert torch.allclose(x, known / known.norm(dim=-1, keepdim=True), atol=1e-6)
    assert (unit.normalised, unit.rows, raw.normalised, raw.rows) == (True, "unit", False, "raw")
    assert unit.identity != raw.identity
    with pytest.raises(UserError, match="normalised True, and now False"):
        run(images, tmp_path / "unit", clip, "projected", "cls", dtype="float32")


def in_child(work: Callable[[], object]) -> multiprocessing.context.ForkProcess:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


@pytest.mark.parametrize(
    ("at", "kill"),
    [(0, signal.SIGKILL), (12, signal.SIGKILL), (12, signal.SIGINT), (22, signal.SIGKILL)],
)
def test_a_run_killed_anywhere_goes_on_to_the_same_bytes(
    images: Images,
    clip: Clip,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
    kill: signal.Signals,
) -> None:
    shutil.copy(images.files[1].path, images.roots["photo"] / "twin.png")
    images = found(tmp_path)
    reached = tmp_path / "reached"

    def stop_at(done: int, _total: int) -> None:
        if done > at:
            reached.touch()
            time.sleep(60)

    child = in_child(lambda: run(images, tmp_path / "killed", clip, progress=stop_at))
    while not reached.exists():
        assert child.is_alive()
        time.sleep(0.01)
    assert child.pid is not None
    os.kill(child.pid, kill)
    child.join()
    assert child.exitcode != 0
    n_before = len(list((tmp_path / "killed").glob("0*.parquet")))
    reads = count_reads(monkeypatch)
    run(images, tmp_path / "killed", clip)
    assert [f.path for f in images.files[5 * n_before :]] == reads
    run(images, tmp_path / "whole", clip)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert n_before == at // 5


def test_a_finished_store_reads_no_image_again(
    images: Images, clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = run(images, tmp_path / "store", clip)
    reads = count_reads(monkeypatch)
    assert run(images, tmp_path / "store", clip) == info
    assert reads == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layer": "2"}, "layer '1', and now '2'"),
        ({"tokens": "cls"}, "tokens 'all', and now 'cls'"),
        ({"dtype": "float32"}, "dtype 'float16', and now 'float32'"),
        ({"shard_images": 6}, "shard_images 5, and now 6"),
    ],
)
def test_other_settings_are_refused_by_name(
    images: Images, clip: Clip, tmp_path: Path, change: dict[str, object], says: str
) -> None:
    run(images, tmp_path / "store", clip)
    with pytest.raises(UserError, match=says):
        run(images, tmp_path / "store", clip, **change)  # type: ignore[arg-type]


def test_a_store_begun_before_views_were_written_down_goes_on(
    images: Images, clip: Clip, tmp_path: Path
) -> None:
    assert run(images, tmp_path / "store", clip).view == clip.view == "squash"
    (tmp_path / "store" / "store.json").unlink()
    plan = json.loads((tmp_path / "store" / "plan.json").read_text())
    (tmp_path / "store" / "plan.json").write_text(json.dumps({**plan, "view": "crop"}))
    with pytest.raises(UserError, match="begun with view 'crop', and now 'squash'"):
        run(images, tmp_path / "store", clip)
    del plan["view"]
    (tmp_path / "store" / "plan.json").write_text(json.dumps(plan))
    assert run(images, tmp_path / "store", clip).view == "squash"


def test_another_list_of_images_is_refused(images: Images, clip: Clip, tmp_path: Path) -> None:
    run(images, tmp_path / "store", clip)
    fewer = Images(images.roots, images.files[:-1])
    with pytest.raises(UserError, match="n_files 23, and now 22"):
        run(fewer, tmp_path / "store", clip)
    Image.new("RGB", (9, 9)).save(images.files[0].path)
    with pytest.raises(UserError, match="another list of images"):
        run(images, tmp_path / "store", clip)


def test_shards_shrink_where_tokens_are_many(
    images: Images, clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shard_images(layer: str, tokens: str, dtype: str = "float16") -> int:
        source = Source(clip.name, layer, tokens)  # type: ignore[arg-type]
        stores = {tmp_path / "store": source}
        plans = plan_stores(images.files, images.roots, stores, clip, dtype, 4096)
        return plans[tmp_path / "store"].shard_images

    assert shard_images("projected", "cls") == 4096
    assert shard_images("0", "all") == 4096
    monkeypatch.setattr(room, "SHARD_BYTES", 17 * 64 * 2 * 100)
    assert shard_images("0", "all") == 100
    assert shard_images("0", "patch") == 106
    assert shard_images("0", "all", "float32") == 50
    monkeypatch.setattr(room, "SHARD_BYTES", 1)
    assert shard_images("0", "cls") == 1


def test_values_that_float16_cannot_hold_are_refused(
    images: Images, clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give = clip.tokens_at
    monkeypatch.setattr(clip, "tokens_at", lambda *a: give(*a) * 1e6)
    with pytest.raises(UserError, match="use --dtype float32"):
        run(images, tmp_path / "half", clip)
    assert run(images, tmp_path / "single", clip, dtype="float32").n_images == N_IMAGES


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dtype": "int8"}, "no dtype 'int8'"),
        ({"layer": "9"}, "no layer 9"),
        ({"layer": "projected", "tokens": "patch"}, "needs a block"),
        ({"layer": "1", "normalised": True}, "--normalise is for the layer 'projected'"),
    ],
)
def test_what_the_model_does_not_have_is_refused_before_anything_is_written(
    images: Images, clip: Clip, tmp_path: Path, options: dict[str, object], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        run(images, tmp_path / "store", clip, **options)  # type: ignore[arg-type]
    assert not (tmp_path / "store").exists()


def test_no_worker_outlives_a_killed_parent(images: Images, tmp_path: Path) -> None:
    class Large(Preprocess):
        def __init__(self) -> None:
            pass

        def resize(self, image: Image.Image) -> NDArray[np.uint8]:
            return np.zeros((224, 224, 3), np.uint8)  # more than a pipe takes

    def work() -> int:
        batches = [[i, i + 1] for i in range(0, 20, 2)]
        next(image_loader.ImageLoader(images.files, Large(), workers=2).load(batches))
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    assert run_for(work, math.inf) < 0  # and nothing of it lives on


def test_a_fault_of_ours_is_not_taken_for_a_bad_image(
    images: Images, clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object) -> tuple[str, Image.Image]:
        raise RuntimeError("ours")

    monkeypatch.setattr(image_loader, "read_image", fault)
    for workers in (0, 1):
        with pytest.raises(RuntimeError, match="ours"):
            run(images, tmp_path / "store", clip, workers=workers)


def test_progress_counts_every_candidate_also_after_a_stop(
    images: Images, clip: Clip, tmp_path: Path
) -> None:
    calls: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        calls.append((done, total))
        if done == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "store", clip, progress=stop)
    assert [done for done, _ in calls] == [3, 5, 8, 10, 13]
    calls.clear()
    run(images, tmp_path / "store", clip, progress=lambda *c: calls.append(c))
    assert calls == [(13, 23), (15, 23), (18, 23), (20, 23), (23, 23), (23, 23)]


def test_workers_by_default_are_few_for_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(32), raising=False)
    assert [image_loader.default_workers(n) for n in (1, 63, 64, 200, 10**6)] == [0, 0, 1, 3, 8]
