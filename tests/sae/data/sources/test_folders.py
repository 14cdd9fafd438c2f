import warnings
from pathlib import Path

import pytest

from sae.core.errors import Notice, UserError
from sae.data.classes.names import class_of, read_class_names
from sae.data.sources.folders import (
    FolderConfig,
    ImageFile,
    find_images,
    name_lost_classes,
    parse_domains,
)


def listed(root: Path, **options: object) -> tuple[list[tuple[str, str]], list[str]]:
    """(path, class) of the candidates of a domain `x`, and what is said of them."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = find_images({"x": root}, FolderConfig(**options))  # type: ignore[arg-type]
    names = [(file.path.relative_to(root).as_posix(), file.label) for file in found]
    return names, [str(notice.message) for notice in said if notice.category is Notice]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_candidates_come_by_domain_and_path_with_their_class(tmp_path: Path) -> None:
    s, p = tmp_path / "s", tmp_path / "p"
    touch(s / "cat" / "b.PNG", s / "cat" / "a.jpg", s / "cat-2" / "x" / "c.webp", s / "top.jpeg")
    touch(s / "notes.txt", s / ".hidden" / "a.png", s / ".a.png", s / "png", p / "cat" / "z.gif")
    (s / "dog" / "folder.png").mkdir(parents=True)
    touch(s / "dog" / "folder.png" / "inside.png")
    (s / "broken.jpg").symlink_to("nowhere")
    found = find_images({"sketch": s, "photo": p})
    assert [(f.path.relative_to(tmp_path).as_posix(), f.domain, f.label) for f in found] == [
        ("s/broken.jpg", "sketch", ""),
        ("s/cat-2/x/c.webp", "sketch", "cat-2"),
        ("s/cat/a.jpg", "sketch", "cat"),
        ("s/cat/b.PNG", "sketch", "cat"),
        ("s/dog/folder.png", "sketch", "dog"),
        ("s/top.jpeg", "sketch", ""),
        ("p/cat/z.gif", "photo", "cat"),
    ]


def test_a_link_that_leads_back_to_its_own_folder_ends(tmp_path: Path) -> None:
    touch(tmp_path / "cat" / "a.png")
    (tmp_path / "cat" / "loop").symlink_to(tmp_path)
    assert [f.path.name for f in find_images({"x": tmp_path})] == ["a.png"]


def test_a_missing_or_empty_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        find_images({"x": tmp_path / "nowhere"})
    touch(tmp_path / "a.txt")
    with pytest.raises(UserError, match="has no image"):
        find_images({"x": tmp_path})


def test_domains_are_read_in_order() -> None:
    assert parse_domains(["sketch=a/b", "photo=c=d"]) == {
        "sketch": Path("a/b"),
        "photo": Path("c=d"),
    }
    assert list(parse_domains(["z=1", "a=2"])) == ["z", "a"]


@pytest.mark.parametrize(
    ("items", "says"),
    [
        (["data/sketch"], "NAME=DIR"),
        (["=x"], "NAME=DIR"),
        (["a b=x"], "NAME=DIR"),
        (["a="], "NAME=DIR"),
        (["a=x", "a=y"], "given twice"),
        (["a=x", "b=./x"], "same folder"),
        ([], "no images were named"),
    ],
)
def test_a_domain_that_makes_no_sense_is_refused(items: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse_domains(items)


@pytest.mark.parametrize("items", [["a=x", "b=x/y"], ["a=x/y/z", "b=./x"], ["a=x", "b=link"]])
def test_one_domain_inside_another_is_refused(
    items: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x" / "y").mkdir(parents=True)
    (tmp_path / "link").symlink_to("x/y")
    with pytest.raises(UserError, match="lies in that of"):
        parse_domains(items)
    assert list(parse_domains(["a=x", "b=xy"])) == ["a", "b"]


def test_splits_are_no_classes(tmp_path: Path) -> None:
    touch(*(tmp_path / p for p in ("train/cat/a.png", "train/dog/b.png", "val/cat/c.png")))
    names, said = listed(tmp_path)
    assert names == [
        ("train/cat/a.png", "cat"),
        ("train/dog/b.png", "dog"),
        ("val/cat/c.png", "cat"),
    ]
    assert len(said) == 1
    assert "x: train, val are splits, not classes" in said[0]
    assert listed(tmp_path, split="val") == ([("val/cat/c.png", "cat")], [])
    with pytest.raises(UserError, match=r"--split 'test' .* they are train, val"):
        listed(tmp_path, split="test")


def test_a_lone_split_folder_and_splits_without_classes(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "Train" / "cat" / "1.png", tmp_path / "b" / "test" / "2.png")
    touch(tmp_path / "b" / "train" / "3.png", tmp_path / "c" / "train" / "4.png")
    touch(tmp_path / "d" / "bus" / "5.png", tmp_path / "d" / "train" / "6.png")
    assert listed(tmp_path / "a")[0] == [("Train/cat/1.png", "cat")]
    assert [label for _, label in listed(tmp_path / "b")[0]] == ["", ""]
    assert listed(tmp_path / "c") == ([("train/4.png", "train")], [])  # the vehicle
    assert listed(tmp_path / "d") == ([("bus/5.png", "bus"), ("train/6.png", "train")], [])
    with pytest.raises(UserError, match="it has none"):
        listed(tmp_path / "d", split="train")


def test_wordnet_ids_get_imagenets_names_and_others_are_told(tmp_path: Path) -> None:
    touch(*(tmp_path / folder / "a.png" for folder in ("n01440764", "n00000001", "tench2")))
    names, said = listed(tmp_path)
    assert dict(names) == {
        "n00000001/a.png": "n00000001",
        "n01440764/a.png": "tench",
        "tench2/a.png": "tench2",
    }
    assert said[0] == "x: 1 of 3 classes renamed: n01440764 -> tench"
    assert "1 classes are ids" in said[1]
    assert "--classes FILE" in said[1]


def test_all_thousand_ids_have_names_of_their_own() -> None:
    names = read_class_names(Path(class_of.__code__.co_filename).with_name("imagenet.csv"))
    assert len(names) == len(set(names.values())) == 1000
    known = {"n01440764": "tench", "n02123045": "tabby cat", "n15075141": "toilet paper"}
    assert known.items() <= names.items()


def test_a_file_names_classes(tmp_path: Path) -> None:
    touch(*(tmp_path / "x" / folder / "a.png" for folder in ("0", "1", "n01440764")))
    table = tmp_path / "names.csv"
    table.write_text('\ufefffolder,name\n0,"a cat, sitting"\n1,dog\nn01440764,dog\n7,unused\n')
    names, said = listed(tmp_path / "x", classes=table)
    assert [label for _, label in names] == ["a cat, sitting", "dog", "dog"]
    assert said[0].startswith("x: 3 of 3 classes renamed: 0 -> a cat, sitting, 1 -> dog")
    assert said[1] == "x: several folders are one class: dog"


@pytest.mark.parametrize(
    ("text", "says"),
    [("0;cat\n", "line 1"), ("0,cat\n0,dog\n", "line 2"), ("0,\n", "line 1"), ("", "no line")],
)
def test_a_table_of_classes_that_is_none_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text(text)
    with pytest.raises(UserError, match=says):
        read_class_names(tmp_path / "names.csv")
    with pytest.raises(UserError, match=r"gone\.csv cannot be read"):
        read_class_names(tmp_path / "gone.csv")


def test_a_link_never_takes_over_a_class_and_each_is_told(tmp_path: Path) -> None:
    root, other = tmp_path / "x", tmp_path / "y"
    touch(root / "zebra" / "a.png", tmp_path / "far" / "b.png", other / "c.png")
    (root / "aardvark").symlink_to("zebra")
    assert listed(root) == (
        [("zebra/a.png", "zebra")],
        [f"x: the link aardvark is left out: {root / 'zebra'} is read anyway"],
    )
    (root / "bear").symlink_to(tmp_path / "far")
    (root / "one.png").symlink_to(tmp_path / "far" / "b.png")
    with pytest.raises(UserError, match=r"is a link out of .* 1 more; add --follow-links"):
        listed(root)
    names, said = listed(root, follow_links=True)
    assert names == [("bear/b.png", "bear"), ("one.png", ""), ("zebra/a.png", "zebra")]
    assert f"x: the link bear is followed to {tmp_path / 'far'}" in said
    (root / "bear").unlink()
    (root / "bear").symlink_to(other)
    found = find_images({"x": root, "y": other}, FolderConfig(follow_links=True))
    assert [f.domain for f in found if f.path.name == "c.png"] == ["y"]


def test_what_has_no_images_name_is_counted_by_suffix(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a.png", "b.svg", "c.SVG", "noext", "d.jpg?width=300")))
    said = listed(tmp_path)[1]
    assert said == ["x: 4 other files are left out: .svg 2, .jpg?width=300 1, no suffix 1"]


def test_one_folder_around_all_classes_is_told(tmp_path: Path) -> None:
    touch(tmp_path / "images" / "cat" / "a.png", tmp_path / "images" / "dog" / "b.png")
    names, said = listed(tmp_path)
    assert {label for _, label in names} == {"images"}
    assert f"write x={tmp_path / 'images'}" in said[0]


def test_domains_and_classes_without_an_image_are_named(tmp_path: Path) -> None:
    files = [
        ImageFile(tmp_path / f"{i}.png", domain, label)
        for i, (domain, label) in enumerate(
            [("s", "cat"), ("s", "dog"), ("s", "dog"), ("p", "cat")]
        )
    ]
    assert name_lost_classes(files, {("s", "cat"): 1}) == [
        "no image of the domain 'p' was embedded: see skipped.csv",
        "no image of 1 classes was embedded, see skipped.csv: s/dog (2)",
    ]
    assert name_lost_classes(files, {("s", "cat"): 1, ("s", "dog"): 1, ("p", "cat"): 1}) == []
