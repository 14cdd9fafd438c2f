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


def test_a_home_folder_with_a_blank_is_cut_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/Ann Lee")
    assert "Lee" not in cut_places('{"store": "/home/Ann Lee/store"}').text
    monkeypatch.setenv("HOME", "/home/jörg")
    assert "rg" not in cut_places(json.dumps({"store": "/home/jörg/x"})).text


def test_keys_are_masked_in_what_is_printed() -> None:
    masked = mask_keys("Bearer secret123 and hf_" + "a" * 30, "secret123", None)
    assert masked == "Bearer *** and ***"
