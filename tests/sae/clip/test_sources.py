"""The same images as a folder, tar archives, a table or a list: the same embeddings and classes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sae.clip.model import Clip
from sae.core.errors import Notice, UserError
from sae.data.images import BadImage, check_known, content_id, read_known
from sae.data.sources.folders import FolderConfig, find_images, find_roots, parse_domains
from sae.data.store import EmbeddingStore
from tests.support.sae.embedded import Images, run, skipped
from tests.support.sae.small_clip import write_images
from tests.support.sae.sources import write_list, write_shards, write_table, write_tar

N = 13
Labelled = list[tuple[str, bytes]]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in folders by class."""
    root = tmp_path_factory.mktemp("images") / "photo"
    write_images(root, N)
    return root


def labelled(folder: Path) -> Labelled:
    files = sorted(folder.rglob("*.png"))
    return [
        (file.parent.name if file.parent != folder else "", file.read_bytes()) for file in files
    ]


def embed(place: Path, out: Path, clip: Clip, **options: object) -> EmbeddingStore:
    places = parse_domains([f"photo={place}"])
    run(Images(find_roots(places), find_images(places)), out, clip, **options)
    return EmbeddingStore.open(out)


def as_shards(folder: Path, into: Path) -> Path:
    write_shards(into, labelled(folder), 3)
    return into


def as_span(folder: Path, into: Path) -> Path:
    write_shards(into, labelled(folder), 3)
    return into / "{000000..000002}.tar"


def as_folders_in_a_tar(folder: Path, into: Path) -> Path:
    files = sorted(folder.rglob("*.png"))
    return write_tar(
        into / "all.tar", ((f"./{f.relative_to(folder).as_posix()}", f.read_bytes()) for f in files)
    )


def as_table(folder: Path, into: Path) -> Path:
    return write_table(into / "train-00000-of-00001.parquet", labelled(folder))


def as_tables(folder: Path, into: Path) -> Path:
    images = labelled(folder)
    write_table(into / "data" / "0.parquet", images[:6])
    write_table(into / "data" / "1.parquet", images[6:])
    return into / "data"


def as_list(folder: Path, into: Path) -> Path:
    shutil.copytree(folder, into / "flat")
    rows = (
        {"path": str((into / "flat" / f.relative_to(folder)).absolute()), "label": f.parent.name}
        for f in folder.rglob("*.png")
    )
    return write_list(into / "list.csv", rows)


def as_parquet_list(folder: Path, into: Path) -> Path:
    place = as_list(folder, into)
    names = [f.relative_to(folder) for f in sorted(folder.rglob("*.png"))]
    table = {
        "path": [f"flat/{name.as_posix()}" for name in names] + ["elsewhere/x.png"],
        "label": [name.parent.name for name in names] + ["x"],
        "domain": ["photo"] * N + ["sketch"],
    }
    place.unlink()
    pq.write_table(pa.table(table), into / "list.parquet")
    return into / "list.parquet"


FORMS = [
    as_shards,
    as_span,
    as_folders_in_a_tar,
    as_table,
    as_tables,
    as_list,
    as_parquet_list,
]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_folders_embeddings_classes_and_pictures(
    form: Callable[[Path, Path], Path], drawn: Path, clip: Clip, tmp_path: Path
) -> None:
    wanted = embed(drawn, tmp_path / "wanted", clip)
    (tmp_path / "other").mkdir()
    store = embed(form(drawn, tmp_path / "other"), tmp_path / "store", clip)
    assert len(store.images) == N
    assert set(store.images["image_id"]) == set(wanted.images["image_id"])
    for name in ("label", "width", "height"):
        values = store.images.set_index("image_id")[name]
        assert values.to_dict() == wanted.images.set_index("image_id")[name].to_dict()
    order = wanted.images.set_index("image_id").index.get_indexer(store.images["image_id"])
    torch.testing.assert_close(store.read(np.arange(N)), wanted.read(order), rtol=0, atol=2e-3)
    for row in range(N):  # pictures for grids and cards
        image_id = store.images["image_id"][row]
        assert content_id(read_known(store.image_path(row), image_id)) == image_id
        check_known(store.image_path(row), image_id)


def test_workers_read_archives_like_this_process(drawn: Path, clip: Clip, tmp_path: Path) -> None:
    place = as_shards(drawn, tmp_path / "shards")
    alone = embed(place, tmp_path / "alone", clip)
    helped = embed(place, tmp_path / "helped", clip, workers=2)
    assert helped.info.identity == alone.info.identity
    assert torch.equal(helped.read(np.arange(N)), alone.read(np.arange(N)))


def test_bad_members_of_an_archive_are_listed_with_their_reasons(
    drawn: Path, clip: Clip, tmp_path: Path
) -> None:
    good = [(f"{n:03d}.png", data) for n, (_, data) in enumerate(labelled(drawn))]
    whole = good[0][1]
    bad = [("cut.png", whole[: len(whole) // 2]), ("empty.jpg", b""), ("../out.png", whole + b"x")]
    bad += [("text.png", b"hello, this is no image at all")]
    place = write_tar(tmp_path / "mixed.tar", [*good[:5], *bad, *good[5:]])
    store = embed(place, tmp_path / "store", clip, allow_skipped=True)
    assert len(store.images) == N
    reasons = {path: reason for path, _, reason in skipped(store.path)[1:]}
    assert set(reasons) == {"mixed.tar/" + name for name, _ in bad}
    assert "cut short" in reasons["mixed.tar/cut.png"]
    assert "empty" in reasons["mixed.tar/empty.jpg"]
    assert "leads out of the archive" in reasons["mixed.tar/../out.png"]
    assert "JPEG" in reasons["mixed.tar/text.png"]


def test_links_in_an_archive_are_no_images(drawn: Path, clip: Clip, tmp_path: Path) -> None:
    import tarfile

    place = write_tar(tmp_path / "all.tar", [("a.png", labelled(drawn)[0][1])])
    with tarfile.open(place, "a") as tar:
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    store = embed(place, tmp_path / "store", clip, allow_skipped=True)
    [[path, _, reason]] = skipped(store.path)[1:]
    assert path == "all.tar/b.png"
    assert "a link, a folder or a device" in reason


@pytest.mark.parametrize("where", ["in a file", "in a header"])
def test_a_damaged_archive_gives_what_lies_before_the_damage_and_says_so(
    where: str, drawn: Path, clip: Clip, tmp_path: Path
) -> None:
    images = labelled(drawn)
    place = write_tar(
        tmp_path / "all.tar", ((f"{n:03d}.png", d) for n, (_, d) in enumerate(images))
    )
    data = bytearray(place.read_bytes())
    start = data.index(b"007.png")
    if where == "in a file":
        place.write_bytes(data[: start + 512 + 40])
    else:
        data[start : start + 512] = b"\xff" * 512
        place.write_bytes(data)
    with pytest.warns(Notice, match="damaged behind [78] of its files"):
        found = find_images({"photo": place})
    names = [file.path.name for file in found]
    assert names == [f"{n:03d}.png" for n in range(8 if where == "in a file" else 7)]
    if where == "in a file":
        store = embed(place, tmp_path / "store", clip, allow_skipped=True)
        [[path, _, reason]] = skipped(store.path)[1:]
        assert (path, "ends in the middle of it" in reason) == ("all.tar/007.png", True)


def test_an_archive_that_was_written_anew_is_noticed(
    drawn: Path, clip: Clip, tmp_path: Path
) -> None:
    images = labelled(drawn)
    place = write_tar(tmp_path / "all.tar", [("a.png", images[0][1]), ("b.png", images[1][1])])
    store = embed(place, tmp_path / "store", clip)
    path, image_id = store.image_path(0), store.images["image_id"][0]
    check_known(path, image_id)
    write_tar(place, [("a.png", images[2][1] + b"\0" * 600), ("b.png", images[1][1])])
    for look in (check_known, read_known):
        with pytest.raises(BadImage, match="changed"):
            look(path, image_id)
    write_tar(place, [("b.png", images[1][1])])
    with pytest.raises(BadImage, match="no longer in the archive"):
        read_known(path, image_id)
    place.unlink()
    with pytest.raises(BadImage, match="gone"):
        read_known(path, image_id)


def test_rows_of_a_table_that_have_no_image_are_listed(
    drawn: Path, clip: Clip, tmp_path: Path
) -> None:
    images = [data for _, data in labelled(drawn)]
    pq.write_table(pa.table({"jpg": [images[0], None, images[1]]}), tmp_path / "a.parquet")
    store = embed(tmp_path / "a.parquet", tmp_path / "store", clip, allow_skipped=True)
    assert store.images["path"].tolist() == ["a.parquet/0", "a.parquet/2"]
    assert skipped(store.path)[1:] == [
        ["a.parquet/1", "photo", "it cannot be read: the row has no image"]
    ]


def test_archives_lie_among_files_and_what_lies_beside_is_left_out(
    drawn: Path, tmp_path: Path
) -> None:
    root = tmp_path / "photo"
    shutil.copytree(drawn, root)
    write_shards(root / "more", [("boat", b"1"), ("car", b"2")], 2)
    pq.write_table(
        pa.table({"key": ["1"], "caption": ["a boat"]}), root / "more" / "000000.parquet"
    )
    (root / "more" / "000000_stats.json").write_text("{}")
    with pytest.warns(
        Notice, match=r"2 other files are left out: \.(parquet|json) 1, \.(parquet|json) 1"
    ):
        found = find_images({"photo": root})
    inside = [file for file in found if ".tar" in str(file.path)]
    assert len(found) == N + 2
    assert {file.label for file in inside} == {"boat", "car"}


def test_list_of_two_domains(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn, tmp_path / "all")
    names = [f"all/{f.relative_to(drawn).as_posix()}" for f in sorted(drawn.rglob("*.png"))]
    rows = [
        {"path": name, "domain": "sketch" if n % 2 else "photo", "label": "x"}
        for n, name in enumerate(names)
    ]
    place = write_list(tmp_path / "list.csv", rows)
    places = parse_domains([f"sketch={place}", f"photo={place}"])
    found = find_images(places)
    assert {f.domain for f in found if f.path.name == "000.png"} <= {"sketch", "photo"}
    assert [sum(f.domain == d for f in found) for d in places] == [N // 2, N - N // 2]
    assert find_roots(places) == {"sketch": tmp_path, "photo": tmp_path}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"file": "a.png"}, "no column path"),
        ({"path": "../a.png"}, "row 1: '../a.png' does not lie in the list's folder"),
        ({"path": "/etc/a.png"}, "does not lie in the list's folder"),
        ({"path": "a.png", "domain": "other"}, "no image of the domain 'photo'.*other"),
    ],
)
def test_a_wrong_list_is_refused_in_one_line(
    columns: dict[str, str], said: str, tmp_path: Path
) -> None:
    place = write_list(tmp_path / "list.csv", [columns])
    with pytest.raises(UserError, match=said):
        find_images({"photo": place})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.tar", b"no archive", "no plain tar archive"),
        ("a.tar", b"\x1f\x8b\x08" + b"0" * 600, "no plain tar archive"),
        ("a.txt", b"hello", "is no folder of images, tar archive"),
        ("a.parquet", b"hello", "is no folder|cannot be read"),
    ],
)
def test_other_files_are_refused_in_one_line(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        find_images({"photo": tmp_path / name})
    with pytest.raises(UserError, match="does not exist"):
        find_images({"photo": tmp_path / "{00..02}.tar"})


def test_split_folders_are_seen_around_archives(drawn: Path, tmp_path: Path) -> None:
    write_shards(tmp_path / "train", labelled(drawn)[:4], 1)
    write_shards(tmp_path / "val", labelled(drawn)[4:], 1)
    with pytest.warns(Notice, match="splits"):
        assert len(find_images({"photo": tmp_path})) == N
    assert len(find_images({"photo": tmp_path}, FolderConfig(split="val"))) == N - 4
