import csv
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae.core.errors import UserError
from sae.data.roots import remember
from sae.data.store import EmbeddingStore
from sae.data.store_format import (
    ImageRow,
    Skipped,
    StoreInfo,
    read_skipped,
    shard_path,
    torch_dtype,
)
from sae.data.store_writer import Plan, StoreWriter, relative_roots
from tests.support.sae.stores import write_store

N_IMAGES, N_TOKENS, D = 700, 2, 3
SHARD_ROWS = [300, 0, 299, 101]  # of 300, 300, 300 and 150 candidates


def plan(**changes: object) -> Plan:
    values: dict[str, object] = {
        "clip": "tiny",
        "clip_sha": "0" * 16,
        "layer": "3",
        "tokens": "patch",
        "dtype": "float16",
        "d": D,
        "tokens_per_image": N_TOKENS,
        "grid": [1, 2],
        "shard_images": 300,
        "n_files": 1050,
        "files": "a digest",
        "roots": {"sketch": "../s", "photo": "../p"},
    }
    return Plan(**(values | changes))  # type: ignore[arg-type]


def embeddings() -> Tensor:
    return torch.randn(N_IMAGES, N_TOKENS, D, generator=torch.Generator().manual_seed(0)).half()


def image_rows() -> list[ImageRow]:
    domains = ["sketch" if row < 400 else "photo" for row in range(N_IMAGES)]
    return [
        ImageRow(f"{row:064x}", f"cat/{row}.png", domain, "cat", row + 1, 7)
        for row, domain in enumerate(domains)
    ]


def skipped_of(shard: int) -> list[Skipped]:
    n = len(plan().span(shard)) - SHARD_ROWS[shard]
    return [Skipped(f"bad {shard} {i}.png", "photo", "broken, and\nlong") for i in range(n)]


def write_shards(path: Path, n_shards: int = 4) -> StoreWriter:
    writer = StoreWriter(path, plan())
    starts = np.cumsum([0, *SHARD_ROWS])
    for shard in range(len(writer.done), n_shards):
        part = slice(starts[shard], starts[shard + 1])
        writer.write_shard(embeddings()[part], image_rows()[part], skipped_of(shard))
    return writer


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    write_shards(tmp_path / "store").finish()
    return EmbeddingStore.open(tmp_path / "store")


def test_what_was_written_is_read(store: EmbeddingStore) -> None:
    assert torch.equal(store.read(np.arange(N_IMAGES)), embeddings())
    assert [tuple(row) for row in store.images.itertuples(index=False)] == image_rows()
    assert store.domains == ["sketch", "photo"]
    assert store.info.n_images == N_IMAGES
    assert store.info.n_skipped == 350
    assert store.info.shard_rows == SHARD_ROWS
    assert read_skipped(store.path / "skipped.csv") == [s for k in range(4) for s in skipped_of(k)]


def test_a_finished_store_holds_only_what_the_design_names(store: EmbeddingStore) -> None:
    shards = [f"0000{k}.safetensors" for k in range(4)]
    lists = ["images.parquet", "plan.json", "skipped.csv", "store.json"]
    assert sorted(p.name for p in store.path.iterdir()) == shards + lists
    assert load_file(store.path / "00000.safetensors").keys() == {"x"}


@pytest.mark.parametrize("n_images", [1, 64, 300, 301, 700, 4096])
def test_batches_are_full_across_shards_and_equal_the_whole(
    store: EmbeddingStore, n_images: int
) -> None:
    batches = list(store.batches(n_images))
    assert {len(b.rows) for b in batches[:-1]} <= {n_images}
    assert all(len(b.rows) == len(b.x) and b.x.dtype == torch.float16 for b in batches)
    assert np.concatenate([b.rows for b in batches]).tolist() == list(range(N_IMAGES))
    assert torch.equal(torch.cat([b.x for b in batches]), embeddings())


@pytest.mark.parametrize("share", [0.005, 0.1, 0.6])
def test_a_subset_equals_the_same_rows_of_the_whole(store: EmbeddingStore, share: float) -> None:
    rng = np.random.default_rng(1)
    rows = np.flatnonzero(rng.random(N_IMAGES) < share)
    batches = list(store.batches(50, rows))
    assert np.array_equal(np.concatenate([b.rows for b in batches]), rows)
    assert torch.equal(torch.cat([b.x for b in batches]), embeddings()[rows])


def test_no_rows_give_no_batch_and_an_empty_tensor(store: EmbeddingStore) -> None:
    nothing = np.array([], dtype=np.int64)
    assert list(store.batches(rows=nothing)) == []
    assert store.read(nothing).shape == (0, N_TOKENS, D)


def test_rows_are_read_in_any_order_and_more_than_once(store: EmbeddingStore) -> None:
    rows = np.random.default_rng(2).integers(0, N_IMAGES, 90)
    assert torch.equal(store.read(rows), embeddings()[rows])
    assert torch.equal(
        store.read(np.array([699, 0, 299, 300, 0])), embeddings()[[699, 0, 299, 300, 0]]
    )


@pytest.mark.parametrize("row", [-1, N_IMAGES])
def test_a_row_that_is_not_there_is_an_error(store: EmbeddingStore, row: int) -> None:
    with pytest.raises(IndexError):
        store.read(np.array([0, row]))


def test_float32_stays_float32(tmp_path: Path) -> None:
    x = torch.full((1, N_TOKENS, D), 1 / 3)
    writer = StoreWriter(tmp_path, plan(dtype="float32", n_files=1))
    writer.write_shard(x, image_rows()[:1], [])
    writer.finish()
    assert torch.equal(EmbeddingStore.open(tmp_path).read(np.array([0])), x)


def test_an_unfinished_store_is_refused_with_the_next_command(tmp_path: Path) -> None:
    write_shards(tmp_path / "store")
    with pytest.raises(UserError, match=r"store\.json.*sae embed --out"):
        EmbeddingStore.open(tmp_path / "store")
    with pytest.raises(UserError, match="nowhere does not exist"):
        EmbeddingStore.open(tmp_path / "nowhere")


def test_damage_is_named(store: EmbeddingStore) -> None:
    first = np.array([0])
    whole = shard_path(store.path, 0).read_bytes()
    shard_path(store.path, 0).write_bytes(whole[:50])
    with pytest.raises(UserError, match=r"00000\.safetensors is damaged"):
        store.read(first)
    save_file({"x": torch.zeros(299, N_TOKENS, D)}, shard_path(store.path, 0))
    with pytest.raises(UserError, match=r"holds \[299, 2, 3\]"):
        store.read(first)
    shard_path(store.path, 0).unlink()
    with pytest.raises(UserError, match=r"00000\.safetensors is missing"):
        EmbeddingStore.open(store.path)


def test_an_unknown_format_is_refused_by_number(store: EmbeddingStore) -> None:
    path = store.path / "store.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 7}))
    with pytest.raises(UserError, match="format 7"):
        EmbeddingStore.open(store.path)


def test_a_list_of_images_of_another_length_is_refused(store: EmbeddingStore) -> None:
    store.images.iloc[:-1].to_parquet(store.path / "images.parquet")
    with pytest.raises(UserError, match="has 699 lines"):
        _ = EmbeddingStore.open(store.path).images
    with pytest.raises(UserError, match="has 699 lines"):
        EmbeddingStore.open(store.path).take_images(np.array([0]))


def test_lines_of_images_are_read_part_by_part_and_not_kept(store: EmbeddingStore) -> None:
    rows = np.array([0, 63, 64, 127, 300, 699])
    wanted = store.images.loc[rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sae.data.table.PART_ROWS", 64)
        store.forget_images()
        found = store.take_images(rows)
    pd.testing.assert_frame_equal(found, wanted)
    assert "images" not in vars(store)
    pd.testing.assert_frame_equal(store.images.loc[rows], wanted)
    pd.testing.assert_frame_equal(store.take_images(rows), wanted)


def test_identity_is_of_images_model_and_settings_but_not_of_place(tmp_path: Path) -> None:
    def identity(name: str, row: int = 0, **changes: object) -> str:
        writer = StoreWriter(tmp_path / name, plan(n_files=1, **changes))
        writer.write_shard(embeddings()[:1], image_rows()[row : row + 1], [])
        return writer.finish().identity

    same = identity("a")
    assert identity("b", roots={"sketch": "../other"}, clip="local-dir:x") == same
    others = [
        identity("c", row=1),
        identity("d", layer="2"),
        identity("e", tokens="cls"),
        identity("f", dtype="float32"),
        identity("g", clip_sha="1" * 16),
    ]
    assert len({same, *others}) == 6


def test_images_are_found_after_store_and_images_moved_together(tmp_path: Path) -> None:
    old = tmp_path / "old"
    roots = {"sketch": old / "s", "photo": old / "deep" / "p"}
    for root in roots.values():
        root.mkdir(parents=True)
    writer = StoreWriter(
        old / "x" / "store", plan(n_files=1, roots=relative_roots(roots, old / "x" / "store"))
    )
    writer.write_shard(embeddings()[:2], [image_rows()[0], image_rows()[-1]], [])
    remember(writer.finish())
    assert writer.plan.roots == {"sketch": "../../s", "photo": "../../deep/p"}
    old.rename(tmp_path / "new")
    store = EmbeddingStore.open(tmp_path / "new" / "x" / "store")
    assert store.image_path(0) == tmp_path / "new" / "s" / "cat" / "0.png"
    assert store.image_path(1) == tmp_path / "new" / "deep" / "p" / "cat" / "699.png"
    (tmp_path / "new" / "s").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"domain 'sketch' are no longer at .*new/s"):
        store.image_path(0)


def test_relative_roots_see_through_links(tmp_path: Path) -> None:
    (tmp_path / "a" / "real").mkdir(parents=True)
    (tmp_path / "images").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a" / "real")
    assert relative_roots({"x": tmp_path / "images"}, tmp_path / "link") == {"x": "../../images"}


def test_a_store_written_in_two_runs_is_byte_for_byte_that_of_one(tmp_path: Path) -> None:
    write_shards(tmp_path / "one").finish()
    write_shards(tmp_path / "two", n_shards=2)
    later = StoreWriter(tmp_path / "two", plan())
    assert later.left == [2, 3]
    assert later.read_finished() is None
    write_shards(tmp_path / "two").finish()
    names = {p.name for p in (tmp_path / "one").iterdir()}
    assert names == {p.name for p in (tmp_path / "two").iterdir()}
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_shard_counts_only_when_its_last_file_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(tmp_path, n_shards=2)

    def disk_full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pandas.DataFrame.to_parquet", disk_full)
    with pytest.raises(UserError, match="no room left; make room there, then run the same"):
        write_shards(tmp_path, n_shards=3)
    monkeypatch.undo()
    assert not list(tmp_path.glob("*.part"))
    assert StoreWriter(tmp_path, plan()).done == {0, 1}
    assert write_shards(tmp_path).finish().n_images == N_IMAGES


def test_a_finished_store_is_left_alone(store: EmbeddingStore) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in store.path.iterdir()}
    assert StoreWriter(store.path, plan()).read_finished() == store.info
    assert {p.name: p.stat().st_mtime_ns for p in store.path.iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layer": "2"}, r"layer '3', and now '2'"),
        ({"dtype": "float32"}, r"dtype 'float16', and now 'float32'"),
        ({"clip_sha": "1" * 16}, r"clip_sha '0+', and now '1+'"),
        ({"files": "other"}, "another list of images"),
        ({"roots": {"sketch": "../t"}}, r"roots .*\.\./t"),
    ],
)
def test_going_on_with_other_settings_is_refused_by_name(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    write_shards(tmp_path, n_shards=1)
    with pytest.raises(UserError, match=says):
        StoreWriter(tmp_path, plan(**changes))


def test_a_file_in_the_place_of_the_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(UserError, match="is a file"):
        StoreWriter(tmp_path / "store", plan())


def test_every_candidate_is_in_exactly_one_shard() -> None:
    for n_files in (1, 299, 300, 301, 1050):
        whole = plan(n_files=n_files)
        covered = [i for shard in range(whole.n_shards) for i in whole.span(shard)]
        assert covered == list(range(n_files))


def test_a_name_that_is_no_utf8_is_listed_all_the_same(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path, plan(n_files=1))
    writer.write_shard(embeddings()[:0], [], [Skipped("a\udcff.png", "photo", "x")])
    assert writer.write_skipped()[0].path == r"a\udcff.png"


def test_store_json_is_one_flat_object(store: EmbeddingStore) -> None:
    values = json.loads((store.path / "store.json").read_text())
    assert list(values) == [f.name for f in dataclasses.fields(StoreInfo)]
    assert values["format"] == 1
    assert str(store.path.parent) not in json.dumps(values)


def test_a_copy_of_the_store_reads_the_same(store: EmbeddingStore, tmp_path: Path) -> None:
    shutil.copytree(store.path, tmp_path / "copy")
    copy = EmbeddingStore.open(str(tmp_path / "copy"))
    assert copy.info == store.info
    assert torch.equal(copy.read(np.array([5])), store.read(np.array([5])))


def test_neither_store_nor_clip_imports_open_clip_before_it_is_asked_for() -> None:
    rooms = "sae.data.store, sae.clip.model, sae.clip.embed"
    code = f"import sys, {rooms}; sys.exit('open_clip' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tokens_are_read_into_place(store: EmbeddingStore) -> None:
    tokens = np.sort(np.random.default_rng(3).integers(0, N_IMAGES * N_TOKENS, 200))
    out = torch.full((200, D), -1.0, dtype=torch.float16)
    store.read_tokens(tokens, out)
    assert torch.equal(out, embeddings().flatten(0, 1)[tokens])


@pytest.mark.parametrize("token", [-1, N_IMAGES * N_TOKENS])
def test_a_token_that_is_not_there_is_an_error(store: EmbeddingStore, token: int) -> None:
    with pytest.raises(IndexError):
        store.read_tokens(np.sort([0, token]), torch.empty(2, D, dtype=torch.float16))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells, others do not")
def test_a_shard_is_mapped_and_not_loaded(tmp_path: Path) -> None:
    n_bytes = 64 << 20
    x = torch.zeros(n_bytes // 1024, 1, 512, dtype=torch.float16)
    values = {"n_files": len(x), "shard_images": len(x), "tokens_per_image": 1, "d": 512}
    writer = StoreWriter(tmp_path, plan(**values))
    writer.write_shard(x, [ImageRow(f"{k:064x}", "", "s", "", 1, 1) for k in range(len(x))], [])
    writer.finish()
    del x
    store = EmbeddingStore.open(tmp_path)
    before = _anonymous_bytes()
    assert store.read(np.array([0, 40_000])).shape == (2, 1, 512)
    assert _anonymous_bytes() - before < n_bytes // 4


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells, others do not")
def test_a_list_of_images_that_is_forgotten_takes_no_memory(tmp_path: Path) -> None:
    n = 100_000
    changes = {"n_files": n, "shard_images": n, "d": 1, "tokens_per_image": 1, "grid": []}
    writer = StoreWriter(tmp_path / "store", plan(**changes))
    rows = [ImageRow(f"{row:064x}", f"cat/{row}.png", "photo", "cat", 1, 1) for row in range(n)]
    writer.write_shard(torch.zeros(n, 1, 1).half(), rows, [])
    writer.finish()
    del rows, writer
    store = EmbeddingStore.open(tmp_path / "store")
    pa.default_memory_pool().release_unused()
    before = _anonymous_bytes()
    assert len(store.images) == n
    held = _anonymous_bytes() - before
    store.forget_images()
    assert _anonymous_bytes() - before < held // 2


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells, others do not")
def test_a_pass_over_all_images_keeps_one_file_mapped(store: EmbeddingStore) -> None:
    mapped = [_mapped_files(store.path) for _ in store.batches(90)]
    assert mapped[0] == {"00000.safetensors"}
    assert mapped[3] == {"00000.safetensors", "00002.safetensors"}  # a batch of both
    assert mapped[-1] == {"00003.safetensors"}


def _mapped_files(folder: Path) -> set[str]:
    maps = Path("/proc/self/maps").read_text().splitlines()
    return {Path(line.split()[-1]).name for line in maps if f"{folder}/" in line}


def _anonymous_bytes() -> int:
    """Memory of this process that no file stands behind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


def test_a_hostile_file_name_in_skipped_csv_is_no_formula_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = [
        "=HYPERLINK(1).png",
        "+1.png",
        "-1.png",
        "@x.png",
        "\ty.png",
        "'=z.png",
        'a,"\rb.png',
    ]
    skipped = [Skipped(path, "sketch", "=damaged") for path in hostile]
    monkeypatch.setitem(globals(), "skipped_of", lambda shard: [] if shard else skipped)
    write_shards(tmp_path / "store").finish()
    path = tmp_path / "store" / "skipped.csv"
    assert read_skipped(path) == skipped
    with path.open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r")]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_values_that_are_no_numbers_are_refused_where_they_are_read(
    tmp_path: Path, dtype: str
) -> None:
    x = torch.full((6, 1, 1000), 60_000.0)  # their sum is beyond float16, and all of them finite
    x[4, 0, 7] = torch.nan
    store = write_store(tmp_path / "store", x, dtype=dtype)
    assert store.read(np.arange(4)).isfinite().all()
    for rows in ([4], [0, 5, 4]):
        with pytest.raises(UserError, match=r"00002\.safetensors: .* row 4 \(4.png\) is not"):
            store.read(np.array(rows))
    with pytest.raises(UserError, match="row 4 "):
        list(store.batches(2))
    with pytest.raises(UserError, match="row 4 "):
        store.read_tokens(np.array([1, 4]), torch.empty(2, 1000, dtype=torch_dtype(dtype)))
