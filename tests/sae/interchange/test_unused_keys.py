"""What no reader looks at is refused by name: a tensor or a key of any format, at any depth."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae import interchange
from sae.core.errors import USAGE, UserError
from sae.untrusted.torch_file import torch_dict
from sae.untrusted.used import Used, is_of_training
from tests.support.paths import DATA

STRANGE = "output_gain"
"""Names a rule that no format has."""


def _in_torch(*keys: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        held = dict(torch_dict(path))
        _set(held, keys)
        torch.save(held, path)

    return change


def _in_safetensors(path: Path) -> None:
    save_file(load_file(path) | {STRANGE: torch.ones(4)}, path)


def _in_json(*keys: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        held = json.loads(path.read_text())
        _set(held, keys)
        path.write_text(json.dumps(held))

    return change


def _in_first_line(*keys: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        line, rest = path.read_bytes().split(b"\n", 1)
        held = json.loads(line)
        _set(held, keys)
        path.write_bytes(json.dumps(held).encode() + b"\n" + rest)

    return change


def _set(held: Any, keys: tuple[str, ...]) -> None:
    for key in keys:
        held = held[key]
    held[STRANGE] = torch.tensor(2.0) if isinstance(next(iter(held.values())), torch.Tensor) else 2


CHANGES: dict[str, tuple[str, str, Callable[[Path], None]]] = {
    "saev header": ("saev_schema5_topk", "sae.pt", _in_first_line("cfg", "activation", "params")),
    "saev legacy header": ("saev_legacy_relu", "sae.pt", _in_first_line()),
    "dictionary_learning tensor": ("dictlearn_topk", "ae.pt", _in_torch()),
    "dictionary_learning trainer": ("dictlearn_batchtopk", "config.json", _in_json("trainer")),
    "clip_sae tensor": ("clipsae_relu", "checkpoint.pt", _in_torch()),
    "msae tensor": ("msae_topk", ".pth", _in_torch("model")),
    "msae key": ("msae_topk", ".pth", _in_torch()),
    "overcomplete tensor": ("overcomplete_topk", "checkpoint.pt", _in_torch()),
    "sparsify tensor": ("sparsify_topk", "sae.safetensors", _in_safetensors),
    "sparsify key": ("sparsify_topk", "cfg.json", _in_json()),
    "saelens tensor": ("saelens_topk", "sae_weights.safetensors", _in_safetensors),
    "saelens key": ("saelens_standard", "cfg.json", _in_json()),
    "ttt tensor": ("ttt_topk_hf", "model.safetensors", _in_safetensors),
    "ttt key": ("ttt_topk_hf", "config.json", _in_json()),
    "visaebench tensor": ("visaebench_simple_topk", "sae.pt", _in_torch()),
    "visaebench key": ("visaebench_overcomplete_batchtopk", "config.json", _in_json()),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_strange_key_or_tensor_is_refused_by_name(tmp_path: Path, what: str) -> None:
    fixture, ending, change = CHANGES[what]
    folder = Path(shutil.copytree(DATA / fixture, tmp_path / "sae"))
    for name in ("expected.safetensors", "about.json"):
        (folder / name).unlink(missing_ok=True)
    (file,) = [path for path in folder.rglob("*") if path.is_file() and path.name.endswith(ending)]
    place = file if file.suffix in (".pt", ".pth") else folder
    interchange.read(place)  # as it was
    change(file)
    with pytest.raises(UserError, match=STRANGE) as refusal:
        interchange.read(place)
    assert refusal.value.exit_code == USAGE
    assert "\n" not in str(refusal.value)


def test_all_fixtures_are_read_to_the_last_key() -> None:
    read = 0
    for folder in sorted(DATA.iterdir()):
        files = [path for path in folder.glob("checkpoint*") if path.is_file()]
        files += list(folder.glob("*.pth"))
        place = files[0] if files else folder / "checkpoint"
        if (
            folder.name not in ("evil", "clipsae_latents", "saev_store_v21", "ttt_chunks")
            and place.exists()
        ):
            interchange.read(place)  # refuses what is left over
            read += 1
    assert read >= 20


def test_a_key_counts_as_used_only_when_asked_for_by_name() -> None:
    held = Used({"a": {"b": 1, "c": {"d": 2}}, "lr": 1e-3, "W": torch.ones(2), "none": None})
    assert held.unused(()) == ["a", "W"]
    list(held.items())
    assert {**held}.keys() == held.keys()
    assert held["a"]["b"] == 1
    assert held.unused(()) == ["W", "a.c"]
    held["a"]["c"].get("e")
    assert held.unused({"W"}) == ["a.c.d"]
    held.forget()
    assert held.unused(()) == ["a", "W"]


@pytest.mark.parametrize(
    ("name", "is_so"),
    [("l1_coefficient", True), ("wandb_project", True), ("_device", True), ("run_name", True)]
    + [(name, False) for name in ("activation_name", "threshold", "post_scale", "normalize")],
)
def test_words_of_training_are_told_from_those_of_the_maths(name: str, is_so: bool) -> None:
    assert is_of_training(name) is is_so
