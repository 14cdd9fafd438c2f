"""A linear head on a CLIP's own vectors: its record, its folder, and the file of saev's heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from sae.core.errors import UserError, quote
from sae.core.files import FORMAT, package_version, read_config, write_json, write_tensors
from sae.untrusted.fields import number, require_size, tensor
from sae.untrusted.finite import require_finite
from sae.untrusted.found import Found

if TYPE_CHECKING:
    from sae.clip.model import Clip

INFO, WEIGHTS = "probe.json", "probe.safetensors"


@dataclass(frozen=True, kw_only=True)
class ProbeInfo:
    """probe.json: what a head reads, and how well it does on images that it was not fitted on."""

    format: int = FORMAT
    reads: str
    """"pooled": the vector after the last norm, before the projection; "patches": the last block's
    patch tokens after that norm."""
    clip: str
    clip_sha: str
    d: int
    classes: list[str]
    """In the order of the weights' rows."""
    c: float
    """Inverse strength of the L2 penalty, as in scikit-learn, on standardised dimensions."""
    cv_accuracy: dict[str, float] = field(default_factory=dict)
    """By C that was tried, the mean accuracy of the five folds."""
    store: str
    """Identity of the store."""
    holdout: float
    n_train: int
    n_test: int
    """Vectors that it was fitted on, and those held out."""
    accuracy: float | None
    """Of those held out; then its 95% interval. None: nothing is held out."""
    accuracy_low: float | None
    accuracy_high: float | None
    by_domain: dict[str, float] = field(default_factory=dict)
    """The same accuracy of each domain."""
    version: str = field(default_factory=package_version)

    def __post_init__(self) -> None:
        if self.reads not in ("pooled", "patches"):
            raise UserError(f"reads {self.reads!r} is neither 'pooled' nor 'patches'")


class Probe(NamedTuple):
    """logits = x weight^T + bias."""

    weight: Tensor  # (n_classes, d) float32
    bias: Tensor  # (n_classes,)
    classes: tuple[str, ...]
    info: ProbeInfo | None = None
    """None: another lab's, which does not say what it was fitted on."""

    def logits(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., n_classes)."""
        return x.float() @ self.weight.to(x.device).T + self.bias.to(x.device)

    def save(self, folder: Path) -> None:
        """Write probe.safetensors, then probe.json: a folder without the latter is unfinished."""
        (folder / INFO).unlink(missing_ok=True)
        tensors = {"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}
        write_tensors(folder / WEIGHTS, tensors)
        write_json(folder / INFO, self.info)


def load_probe(path: Path, classes: Sequence[str] = ()) -> Probe:
    """A folder that `sae probe` wrote, or the `model.pt` of one of saev's heads.

    That file holds no class names: they are `classes` where these are as many, else numbers.
    Raises `UserError` for what is unfinished, damaged, or of another form.
    """
    if (path / INFO).exists() or (path / WEIGHTS).exists():
        return _load_own(path)
    if path.is_dir() and (path / "model.pt").exists():
        path = path / "model.pt"
    if not path.is_file():
        missing = "holds no probe" if path.exists() else "does not exist"
        raise UserError(f"{path} {missing}; `sae probe STORE --out {quote(path)}` makes one")
    return _load_saev(path, classes)


def require_fits(probe: Probe, clip: Clip, place: Path) -> None:
    """Raise `UserError` unless the probe reads the pooled vectors of this very CLIP."""
    info, d = probe.info, probe.weight.shape[1]
    if info is not None and info.reads != "pooled":
        raise UserError(f"{place} reads patches; name a probe that `sae probe` made")
    if info is not None and info.clip_sha != clip.sha:
        raise UserError(
            f"{place} was fitted on {info.clip} with weights {info.clip_sha}, but this is "
            f"{clip.name} with {clip.sha}; run `sae probe` on a store of {clip.name}"
        )
    width = clip.width(0)
    if d != width:
        raise UserError(f"{place} reads vectors of {d} numbers, but {clip.name} pools {width}")


def _load_own(folder: Path) -> Probe:
    remedy = f"run `sae probe STORE --out {quote(folder)}` again"
    info = read_config(folder / INFO, ProbeInfo, remedy)
    state = Found.at(folder).tensors(WEIGHTS)
    return _checked(state, str(folder / WEIGHTS), (len(info.classes), info.d), info.classes, info)


def _load_saev(file: Path, classes: Sequence[str]) -> Probe:
    found = Found.at(file)
    header, state = found.header(file.name), found.torch()
    if not {"in_features", "out_features"} <= header.keys():
        raise UserError(
            f"{file} is no probe: neither a folder of `sae probe` nor saev's model.pt, which "
            'begins with {"in_features": ..., "out_features": ...}'
        )
    shape = tuple(number(header, name, str(file)) for name in ("out_features", "in_features"))
    names = classes if len(classes) == shape[0] else [str(n) for n in range(shape[0])]
    return _checked(state, str(file), shape, names, None)


def _checked(
    state: dict[str, Tensor],
    place: str,
    shape: tuple[int, ...],
    classes: Sequence[str],
    info: ProbeInfo | None,
) -> Probe:
    weight, bias = tensor(state, "weight", place, ndim=2), tensor(state, "bias", place)
    for name, told, there in zip(
        ("classes", "width", "biases"), (*shape, shape[0]), (*weight.shape, len(bias)), strict=True
    ):
        require_size(place, name, told, there)
    for name, value in (("weight", weight), ("bias", bias)):
        require_finite(place, name, value, "it is damaged; fetch or fit it again")
    return Probe(weight, bias, tuple(classes), info)
