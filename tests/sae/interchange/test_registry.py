"""registry.toml: what it tells is there, what fits is found, and a fault is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from sae.clip.ahead import block_ahead
from sae.clip.names import name_told, resolve_name
from sae.core.errors import UserError
from sae.interchange.registry import VARIABLE, Sought, find_facts, read_registry

VLM = "top_k/imagenet_train_activations_clip-vit-large-patch14-336_{}_post_mlp_residual_top_k_x8"


def _told(registry: Path | None = None, **sought: tuple[str, ...]) -> dict[str, str]:
    facts = find_facts(read_registry(registry), Sought(**sought))
    return {name: told.value for name, told in facts.told.items()}


def _file(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_every_clip_of_ours_is_there_and_has_the_layer_and_every_entry_says_who_told_it() -> None:
    for entry in read_registry():
        assert entry.source, entry.name
        if entry.clip:
            assert resolve_name(entry.clip).name == entry.clip
        if entry.clip and str(entry.layer).isdigit():
            last = int(block_ahead(entry.clip, "-1"))
            assert int(entry.layer) <= last


@pytest.mark.parametrize(
    ("sought", "facts"),
    [
        (
            {"repo": ("osunlp/SAE_CLIP_24K_ViT-B-16_IN1K",), "format": ("saev legacy",)},
            {"clip": "ViT-B-16/openai", "layer": "10", "tokens": "patch"},
        ),
        (
            {"repo": ("hyesulim/fastsae-models",)},
            {"clip": "ViT-B-16/openai", "layer": "10", "tokens": "all"},
        ),
        (
            {"file": (f"/data/{VLM.format(22)}/trainer_0/ae.pt",)},
            {"clip": "ViT-L-14-336/openai", "layer": "22"},
        ),
        ({"file": (f"my-{VLM.format(22).rpartition('/')[2]}",)}, {}),
        (
            {"repo": ("visaebench/clip-vitb16-saes",), "format": ("visaebench",)},
            {"clip": "ViT-B-16/openai", "layer": "11", "tokens": "patch"},
        ),
        (
            {"repo": ("prisma-multimodal/sae-top_k-64-cls_only-layer_9-hook_resid_post",)},
            {"clip": "ViT-B-32/datacomp_xl_s13b_b90k", "layer": "9", "tokens": "cls"},
        ),
        ({"repo": ("Prisma-Multimodal/sae-top_k-64-cls_only-layer_9-hook_mlp_out",)}, {}),
        ({"format": ("sparsify",)}, {}),
    ],
)
def test_a_public_family_is_known_by_its_names(sought, facts) -> None:
    assert _told(**sought) == facts


def test_the_first_entry_that_fits_tells_and_the_next_ones_fill_what_it_leaves_open(
    tmp_path, monkeypatch
) -> None:
    mine = _file(tmp_path / "mine.toml", '[[sae]]\nformat = "MSAE"\nclip = "tiny"\n')
    of_all = _file(
        tmp_path / "all.toml",
        '[[sae]]\nformat = "MSAE"\nclip = "tiny-conv"\nnormalise = true\nlayer = "projected"\n',
    )
    sought = {"format": ("MSAE",)}
    assert _told(**sought) == {"layer": "projected"}
    assert _told(mine, **sought) == {"layer": "projected", "clip": "tiny"}
    monkeypatch.setenv(VARIABLE, str(of_all))
    known = {"layer": "projected", "rows": "unit"}
    assert _told(**sought) == known | {"clip": "tiny-conv"}
    assert _told(mine, **sought) == known | {"clip": "tiny"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[[sae]\n", "is not valid TOML"),
        ("", r"has no \[\[sae\]\]"),
        ("[sae]\nrepo = 'a/b'\n", r"has no \[\[sae\]\]"),
        ("[[saes]]\nrepo = 'a/b'\n", "unknown key 'saes'; write .*did you mean 'sae'"),
        ("[[sae]]\nclip = 'tiny'\n", "1, does not fit: it names none of repo, file, format"),
        ("[[sae]]\nrepo = 'a'\n[[sae]]\nrepos = 'a/b'\n", "2, has the unknown key 'repos'; did"),
        ("[[sae]]\nrepo = 'a'\nlayer = 'last'\n", "'last' is neither projected nor a block's"),
        ("[[sae]]\nrepo = 'a'\ntokens = 'class'\n", "tokens 'class' is none of cls, patch, all"),
        ("[[sae]]\nrepo = 'a'\nlayer = 3\nnormalise = true\n", "is for layer projected alone"),
        ("[[sae]]\nrepo = 'a'\nlayer = 'projected'\ntokens = 'all'\n", "which has no all"),
        ("[[sae]]\nrepo = 'a{layer}'\nlayer = 3\n", "leave one out"),
        ("[[sae]]\nrepo = 'a{layer}'\nfile = '{layer}'\n", "more than once"),
        ("[[sae]]\nrepo = 'a'\nnormalise = 'yes'\n", "has 'normalise' 'yes'"),
    ],
)
def test_a_fault_of_a_registry_is_one_line_that_names_the_file(text, fault, tmp_path) -> None:
    path = _file(tmp_path / "mine.toml", text)
    with pytest.raises(UserError, match=fault) as raised:
        read_registry(path)
    said = str(raised.value)
    assert f"the registry {path}" in said
    assert "\n" not in said


def test_a_registry_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match=r"none\.toml does not exist"):
        read_registry(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("openai/clip-vit-base-patch16", "ViT-B-16/openai"),
        ("clip-vit-large-patch14-336", "ViT-L-14-336/openai"),
        (
            "open-clip:laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
            "ViT-B-32/datacomp_xl_s13b_b90k",
        ),
        ("ViT-B-32/openai", "ViT-B-32/openai"),
        ("tiny", "tiny"),
        ("ViT-B-32", ""),
        ("gpt2-small", ""),
        ("google/vit-base-patch16-224", ""),
        ("local-dir:/somewhere", ""),
        ("ViT-B-32/file:weights.pt", ""),
        ("", ""),
    ],
)
def test_a_clip_as_others_call_it_has_a_name_here_or_none(told, name) -> None:
    assert name_told(told) == name
