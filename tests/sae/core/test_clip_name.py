"""The parts of a CLIP's name, and what of it may be published."""

from __future__ import annotations

import pytest

from sae.core.clip_name import is_adapted_from, is_private, split_adapter, without_place
from sae.data.view import find_view
from sae.interchange.hub.model_card import base_model


@pytest.mark.parametrize(
    ("name", "base", "adapter", "published"),
    [
        ("tiny", "tiny", "", "tiny"),
        ("ViT-B-16/openai", "ViT-B-16/openai", "", "ViT-B-16/openai"),
        ("hf-hub:org/name", "hf-hub:org/name", "", "hf-hub:org/name"),
        ("local-dir:/home/me/vit", "local-dir:/home/me/vit", "", "local-dir:vit"),
        ("ViT-B-16/file:/home/me/a.pt", "ViT-B-16/file:/home/me/a.pt", "", "ViT-B-16/file:a.pt"),
        ("tiny+maple:/home/me/m.pth", "tiny", "/home/me/m.pth", "tiny+maple:m.pth"),
        (
            "local-dir:/home/me/vit+maple:/home/me/m.pth",
            "local-dir:/home/me/vit",
            "/home/me/m.pth",
            "local-dir:vit+maple:m.pth",
        ),
    ],
)
def test_a_name_is_split_and_published_without_places(
    name: str, base: str, adapter: str, published: str
) -> None:
    assert split_adapter(name) == (base, adapter)
    assert without_place(name) == published
    assert without_place(published) == published
    assert is_private(name) == is_private(published) == ("me/" in name)


@pytest.mark.parametrize(
    ("name", "view"),
    [
        ("tiny+maple:/a/m.pth", "squash"),
        ("ViT-B-16/openai+maple:/a/siglip.pth", "crop"),
        ("ViT-B-16-SigLIP/webli+maple:/a/m.pth", "squash"),
        ("ViT-B-16-SigLIP/file:/a/tuned.pt", "crop"),
        ("local-dir:/nowhere+maple:/a/m.pth", None),
    ],
)
def test_how_images_are_cut_follows_from_the_model_not_from_its_files(
    name: str, view: str | None
) -> None:
    assert find_view(name) == view


def test_the_hub_is_told_the_model_below_an_adapter() -> None:
    assert base_model("ViT-B-32/laion2b_s34b_b79k+maple:m.pth").startswith("laion/")
    assert base_model("ViT-B-32/file:tuned.pt") == ""


@pytest.mark.parametrize(
    ("name", "base", "is_adapted"),
    [
        ("tiny+maple:/a/m.pth", "tiny", True),
        ("ViT-B-16/file:/a/tuned.pt", "ViT-B-16/laion2b_s34b_b88k", True),
        ("ViT-B-16-quickgelu/file:/a/tuned.pt+maple:/a/m.pth", "ViT-B-16/openai", True),
        ("ViT-B-16/file:/a/tuned.pt", "ViT-B-16/openai+maple:/a/m.pth", True),
        ("tiny", "tiny", False),
        ("tiny", "tiny+maple:/a/m.pth", False),
        ("tiny-conv+maple:/a/m.pth", "tiny", False),
        ("ViT-B-16/laion2b_s34b_b88k", "ViT-B-16/openai", False),
        ("ViT-B-32/file:/a/tuned.pt", "ViT-B-16/openai", False),
    ],
)
def test_adapted_are_an_adapter_and_weights_of_ones_own_on_the_same_model(
    name: str, base: str, is_adapted: bool
) -> None:
    assert is_adapted_from(name, base) == is_adapted
