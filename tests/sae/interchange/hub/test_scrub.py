"""Texts that leave this machine: places and keys are cut out."""

from __future__ import annotations

import json

import pytest

from sae.interchange.hub.scrub import cut_places, mask_keys


def test_paths_are_cut_to_their_last_part_and_nothing_else() -> None:
    kept = "and/or, 1/2, https://host.org/home/page/x, a.replace(/data/g, ''), </b>, ~ // x, */ /"
    assert cut_places(kept) == (kept, 0)
    cut = {
        "/home/ann/store": "store",
        '"local-dir:/home/ann/clips/vit"': '"local-dir:vit"',
        "/home/ann": "~",
        "/Users/Ann/x.png,": "x.png,",
        "at ../../home/ann/store/": "at store/",
        "file:///data/x/y.png": "y.png",
        "(/cluster/group/ann/z)": "(z)",
        r'"C:\\Users\\ann\\x.png"': '"x.png"',
        r"C:\Users\ann": "~",
        "D:/work/images": "images",
    }
    assert {text: cut_places(text).text for text in cut} == cut


def test_a_path_with_blanks_is_cut_whole() -> None:
    cut = {
        "see /home/ann/My Photos/cats/x.png and then a/b": "see x.png and then a/b",
        "/home/ann/Ann's photos/x.png": "x.png",
        "(/mnt/new folder 2/x/y.png)": "(y.png)",
        "/Volumes/Bilder/große Bilder/x.png": "x.png",
        "/data/sets/My Images/x.png": "x.png",
        "file:///home/ann/My Photos/x.png": "x.png",
        r"at C:\Users\Ann\Google Drive\x.png now": "at x.png now",
        "C:/Users/Ann Lee/x.png": "x.png",
        # In quotes, in a cell or on a line by itself, whatever the words are like:
        '"/home/ann/my photos/x y.png"': '"x y.png"',
        "'/home/ann/my photos/x.png'": "'x.png'",
        "1,/home/ann/my photos/cat 1.png,cat": "1,cat 1.png,cat",
        "/home/ann/my photos/x.png\n/home/ann/old photos/y.png": "x.png\ny.png",
        json.dumps({"path": "C:\\Users\\Ann Lee\\my pictures\\a b.png"}): '{"path": "a b.png"}',
        "C:\\Users\\Ann Lee": "~",
        "'/home/ann lee'": "'~'",
    }
    assert {text: cut_places(text).text for text in cut} == cut


def test_words_behind_a_path_stay() -> None:
    kept = {
        "sae embed photo=/home/ann/a sketch=/home/ann/b --out work/s": (
            "sae embed photo=a sketch=b --out work/s"
        ),
        "sae eval /home/ann/sae work/store": "sae eval sae work/store",
        "/home/ann/store has no store.json; run it --out a/b again": (
            "store has no store.json; run it --out a/b again"
        ),
        "cp /home/ann/a ./B/c and /home/ann/x and/or Y/z": "cp a ./B/c and x and/or Y/z",
    }
    assert {text: cut_places(text).text for text in kept} == kept
    urls = "https://host.org/home/ann/My Photos/x.png, http://a.org/Users/Ann Lee/b"
    assert cut_places(urls) == (urls, 0)


def test_a_home_folder_with_a_blank_is_cut_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/Ann Lee")
    assert "Lee" not in cut_places('{"store": "/home/Ann Lee/store"}').text
    monkeypatch.setenv("HOME", "/home/jörg")
    assert "rg" not in cut_places(json.dumps({"store": "/home/jörg/x"})).text


def test_keys_are_masked_in_what_is_printed() -> None:
    masked = mask_keys("Bearer secret123 and hf_" + "a" * 30, "secret123", None)
    assert masked == "Bearer *** and ***"
