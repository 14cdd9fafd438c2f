"""The name of a CLIP -> its parts: a model, a file or folder of weights, the file of an adapter."""

from __future__ import annotations

from pathlib import Path

MAPLE = "+maple:"
"""Between a CLIP and the checkpoint of MaPLe that is put on it."""
FILE = "/file:"
"""Between a model of open_clip and a file of weights for it."""
LOCAL = "local-dir:"


def split_adapter(name: str) -> tuple[str, str]:
    """ "ViT-B-16/openai+maple:best.pth" -> ("ViT-B-16/openai", "best.pth"); "" without one."""
    base, _, adapter = name.partition(MAPLE)
    return base, adapter


def without_place(name: str) -> str:
    """A name as it may be published: of each path only the last part."""
    base, plus, adapter = name.partition(MAPLE)
    for mark in (LOCAL, FILE):
        model, found, place = base.partition(mark)
        if found:
            base = model + mark + Path(place).name
            break
    return base + plus + Path(adapter).name


def is_private(name: str) -> bool:
    """Whether a name tells of files that only its owner has."""
    return name.startswith(LOCAL) or FILE in name or MAPLE in name


def is_adapted_from(name: str, base: str) -> bool:
    """Whether `name` is the model of `base` with an adapter or with weights of one's own, as far as
    names tell: "ViT-B-16-quickgelu/file:tuned.pt+maple:best.pth" of "ViT-B-16/openai".
    """
    if split_adapter(name)[0] == base:
        return name != base
    model, in_file, _ = name.partition(FILE)
    known = split_adapter(base)[0].partition("/")[0]
    return bool(in_file) and model.removesuffix(_QUICK) == known.removesuffix(_QUICK)


_QUICK = "-quickgelu"
"""The end of open_clip's names of models with the activation of OpenAI's weights."""
