"""MaPLe's checkpoint, as dassl writes it -> its prompts by block; every key is known or refused.

Khattak et al., "MaPLe: Multi-modal Prompt Learning", CVPR 2023: prompts of the text tower are
learned, and those of the image tower are linear projections of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from sae.core.errors import UserError
from sae.untrusted.fields import tensor
from sae.untrusted.torch_file import torch_dict

AROUND = ("state_dict", "epoch", "optimizer", "scheduler", "val_result")
"""What dassl writes beside the weights; of it only the weights are used."""
LEARNER = "prompt_learner."
SUFFIX = f"{LEARNER}token_suffix"
OF_CLASSES = (f"{LEARNER}token_prefix", SUFFIX)
"""Embedded texts of the classes that the prompts were learned with, before and behind them: other
classes have others. What stands behind tells which words the prompts do not stand for."""
TOWERS = {"image_encoder.": "visual.", "text_encoder.": "", "logit_scale": "logit_scale"}
"""The CLIP that the prompts were learned on, and open_clip's names for its parts."""
_DEEP = re.compile(
    r"prompt_learner\.(?:compound_prompts_text\.(\d+)"
    r"|compound_prompt_projections\.(\d+)\.(?:weight|bias))"
)
REMEDY = "name the whole checkpoint, e.g. MultiModalPromptLearner/model.pth.tar-5"


class MapleWeights(NamedTuple):
    """Prompts by block, from the first; those of both towers are as many."""

    texts: list[Tensor]  # depth times (n_ctx, width of the text tower)
    images: list[Tensor]  # depth times (n_ctx, width of the image tower)
    backbone: dict[str, Tensor]
    """Weights of the CLIP that it was learned on, as far as they are in the file."""
    behind: Tensor | None = None
    """(n_classes, tokens, width of the text tower) embedded tokens that stood behind them."""

    @property
    def n_ctx(self) -> int:
        """Prompts that stand in a row of tokens."""
        return self.texts[0].shape[0]


def read_maple(path: Path) -> MapleWeights:
    """Raises `UserError` for a file that is not there or not MaPLe's, by the key that is at fault.

    Nothing of the file is executed; n_ctx and depth follow from the tensors.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}; behind +maple: {REMEDY}")
    state = _weights_in(path)
    depth = _depth(state, path)
    texts: list[Tensor] = []
    images: list[Tensor] = []
    for block in range(depth):
        place, maps = _names(block)
        prompts = tensor(state, place, str(path), 2)  # (n_ctx, text width)
        weight = tensor(state, f"{maps}.weight", str(path), 2)  # (image width, text width)
        bias = tensor(state, f"{maps}.bias", str(path))
        _require_shape(path, place, prompts, texts[0] if texts else prompts)
        _require_shape(path, f"{maps}.bias", bias, weight[:, 0])
        if weight.shape[1] != prompts.shape[1] or (images and len(weight) != images[0].shape[1]):
            raise UserError(
                f"{path}: {maps}.weight of shape {tuple(weight.shape)} takes no prompts of width "
                f"{prompts.shape[1]} to the width of the others; {REMEDY}"
            )
        texts.append(prompts)
        images.append(F.linear(prompts, weight, bias))
    if not all(x.isfinite().all() for x in (*texts, *images)):
        raise UserError(f"{path}: its prompts hold values that are no numbers; fetch it again")
    behind = tensor(state, SUFFIX, str(path), 3) if SUFFIX in state else None
    if behind is not None and behind.shape[2] != texts[0].shape[1]:
        raise UserError(
            f"{path}: {SUFFIX} is {behind.shape[2]} wide, but the prompts {texts[0].shape[1]}; "
            f"{REMEDY}"
        )
    return MapleWeights(texts, images, _backbone(state), behind)


def _weights_in(path: Path) -> Mapping[str, Any]:
    """The state dict, alone or among what dassl writes around it."""
    held = torch_dict(path, wide=True)
    if not isinstance(held, dict):
        raise UserError(f"{path} is no torch file with weights; {REMEDY}")
    if "state_dict" not in held:
        return _known(held, path)
    others = [str(key) for key in held if key not in AROUND]
    if others:
        raise UserError(f"{path} holds {_listed(others)}, which no checkpoint of MaPLe does")
    if not isinstance(held["state_dict"], dict):
        raise UserError(f"{path}: its state_dict is no dict of weights; {REMEDY}")
    return _known(held["state_dict"], path)


def _known(state: dict[Any, Any], path: Path) -> Mapping[str, Any]:
    """The state dict, of which every key is MaPLe's."""
    others = [
        str(key)
        for key in state
        if key not in (f"{LEARNER}ctx", f"{LEARNER}proj.weight", f"{LEARNER}proj.bias", *OF_CLASSES)
        and not _DEEP.fullmatch(str(key))
        and not str(key).startswith(tuple(TOWERS))
    ]
    if others:
        raise UserError(
            f"{path}: MaPLe has no {_listed(others)}; the prompts of another method (CoOp, CoCoOp, "
            "VPT, IVLP) or of a changed MaPLe cannot be put on a CLIP"
        )
    return state


def _depth(state: Mapping[str, Any], path: Path) -> int:
    """Blocks with prompts of their own. Raises `UserError` for a gap, or a part that is missing."""
    found = [_DEEP.fullmatch(key) for key in state]
    numbers = [int(one[1] or one[2]) for one in found if one]
    depth = 2 + max(numbers, default=-1)
    if depth > len(state) + 1:
        raise UserError(f"{path}: prompts are numbered to {depth - 2}, but not one after the other")
    for block in range(depth):
        place, maps = _names(block)
        for name in (place, f"{maps}.weight", f"{maps}.bias"):
            if name not in state:
                raise UserError(
                    f"{path} lacks {name!r}, which MaPLe of depth {depth} has; {REMEDY}"
                )
    return depth


def _names(block: int) -> tuple[str, str]:
    """Keys of the prompts at a block, and of the layer that takes them to the image tower."""
    if block == 0:
        return f"{LEARNER}ctx", f"{LEARNER}proj"
    deep = block - 1
    return f"{LEARNER}compound_prompts_text.{deep}", f"{LEARNER}compound_prompt_projections.{deep}"


def _require_shape(path: Path, name: str, found: Tensor, wanted: Tensor) -> None:
    if found.shape != wanted.shape:
        raise UserError(
            f"{path}: {name} has shape {tuple(found.shape)}, not {tuple(wanted.shape)} as the "
            f"others; {REMEDY}"
        )


def _backbone(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """What is in the file of the CLIP itself, under open_clip's names."""
    return {
        ours + name.removeprefix(theirs): value
        for theirs, ours in TOWERS.items()
        for name, value in state.items()
        if name.startswith(theirs) and isinstance(value, Tensor)
    }


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name[:80]) for name in names[:3])
    return shown + (f" (and {len(names) - 3} more)" if len(names) > 3 else "")
