"""Names of the hub -> open_clip's name of the same weights, which are in another form there."""

from __future__ import annotations

import re
from typing import Any

_SIZES = {"base": "B", "large": "L", "so400m": "SO400M", "giant-opt": "gopt"}
_PREFIX = re.compile(r"(https?://)?(www\.)?(huggingface\.co/|hf\.co/)?(hf-hub:|hf:)?", re.I)
OPENAI = {
    "clip-vit-base-patch32": "ViT-B-32/openai",
    "clip-vit-base-patch16": "ViT-B-16/openai",
    "clip-vit-large-patch14": "ViT-L-14/openai",
    "clip-vit-large-patch14-336": "ViT-L-14-336/openai",
}
_METACLIP = re.compile(r"metaclip-([blh])(\d\d)-(400m|fullcc2\.5b)")
_SIGLIP = re.compile(r"(siglip2?)-(base|large|so400m|giant-opt)-patch(\d+)-(?:(i18n)-)?(\d+)(.*)")


def find_same_weights(name: str, open_clip: Any) -> str:
    """ "openai/clip-vit-base-patch32" -> "ViT-B-32/openai"; "" where there are none, or it loads.

    The name may come with `hf-hub:` or as an address, and without its owner. `hf-hub:` in front of
    a repository in open_clip's own form is no mistake, and gives "".
    """
    place = _PREFIX.sub("", name, count=1).strip("/").lower()
    short = place.rpartition("/")[2]
    found = _transformers_name(short)
    model, _, tag = found.partition("/")
    if found and tag in open_clip.list_pretrained_tags_by_model(model):
        return found
    if name.startswith("hf-hub:"):
        return ""
    for model, tag in open_clip.list_pretrained():
        repository = open_clip.get_pretrained_cfg(model, tag).get("hf_hub", "").strip("/").lower()
        if repository and place in (repository, repository.rpartition("/")[2]):
            return f"{model}/{tag}"
    return ""


def _transformers_name(short: str) -> str:
    """Of a repository in the form of transformers, which open_clip cannot read."""
    if short in OPENAI:
        return OPENAI[short]
    if found := _METACLIP.fullmatch(short):
        size, patch, data = found.groups()
        tag = "metaclip_400m" if data == "400m" else "metaclip_fullcc"
        return f"ViT-{size.upper()}-{patch}-quickgelu/{tag}"
    if found := _SIGLIP.fullmatch(short):
        family, size, patch, i18n, pixels, rest = found.groups()
        form = "SigLIP" + ("2" if family.endswith("2") else "")
        if i18n or rest in ("-multilingual", "-i18n"):
            form += "-i18n"
        elif rest:
            return ""
        side = {("SigLIP2", "14", "384"): "378"}.get((form, patch, pixels), pixels)
        return f"ViT-{_SIZES[size]}-{patch}-{form}{'' if side == '224' else f'-{side}'}/webli"
    return ""
