"""Foreign checkpoints become ours: one small file per format, each with `detect` and `read`."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from sae.core import disk
from sae.core.errors import UserError, quote
from sae.core.files import did_you_mean
from sae.data.store import EmbeddingStore
from sae.interchange import calibrate, measure
from sae.interchange.describe import Maths, maths_of
from sae.interchange.export import replacing_sae, require_room
from sae.interchange.foreign import Foreign, Rule, to_sae
from sae.interchange.origin import NAMES, Origin, differences, find_origin, names_of
from sae.interchange.registry import read_registry
from sae.model.sae import SAE, is_ours
from sae.model.sparsity import ALL_WITH_K, SMOOTH
from sae.untrusted.damage import errors_in_one_line, one_line
from sae.untrusted.found import Found

__all__ = [
    "FORMATS",
    "Asked",
    "Format",
    "Imported",
    "Looked",
    "Maths",
    "detect",
    "import_sae",
    "look",
    "read",
    "read_as",
]

FORMATS = (
    "saev",
    "visaebench",
    "dictlearn",
    "openai",
    "ttt",
    "clipsae",
    "patchsae",
    "fastsae",
    "sparsify",
    "saelens",
    "overcomplete",
    "msae",
)
"""Modules of this room, in the order in which they are asked."""
TORCH_FILES = (".pt", ".pth", ".pkl", ".pkl.gz", ".ckpt", "pytorch_model.bin")
"""Names of files that are looked at where a folder as such is of no format."""


class Format(Protocol):
    """One file of this room."""

    NAME: str
    ASIDE: Collection[str]
    """Keys and tensors of its files that change no latent, beside those that tell of training."""

    def detect(self, found: Found) -> bool: ...
    def read(self, found: Found) -> Foreign: ...


@dataclass(frozen=True)
class Imported:
    """A foreign SAE that is now ours."""

    model: SAE
    format: str
    notes: tuple[str, ...]
    """What the user should know."""
    maths: Maths
    """What its file says that it does to an embedding."""
    fvu: float | None = None
    """On the store, where one was given: above 1 the SAE does not fit it. NaN: all tokens equal."""
    n_tokens: int = 0
    """On which it was measured."""
    origin: Origin = field(default_factory=Origin)
    """Where it was trained, and who told it."""


class Asked(NamedTuple):
    """What a user says of a foreign SAE, beside its place."""

    form: str = ""
    """One of `FORMATS`, where the file is not to be recognised."""
    k: int = 0
    """Latents kept per token, where the file does not tell or another number is wanted."""
    ignore: Collection[str] = ()
    """Keys or tensors of the file that its reader does not know."""
    registry: Path | None = None
    """A registry of the user's own; see `registry`."""
    named: Mapping[str, str] = {}
    """Where it was trained, by `origin.NAMES`."""


class Looked(NamedTuple):
    """What is known of an SAE before it is brought here."""

    origin: Origin = Origin()
    d: int = 0
    """Width of its embeddings; 0 here and below: not known yet."""
    n_latents: int = 0


def look(
    path: Path | str, registry: Path | None = None, named: Mapping[str, str] | None = None
) -> Looked:
    """Where a foreign SAE was trained, and its size; nothing that it lacks is asked for."""
    found, asked = _found(path), Asked(registry=registry, named=named or {})
    foreign = _foreign(found, asked)
    n_latents, d = foreign.W_enc.shape
    return Looked(_origin(foreign, found, asked), d, n_latents)


def detect(path: Path | str) -> Format:
    """The format of a file or folder. Raises `UserError` that lists what was looked for."""
    return _detect(_found(path))


def read(
    path: Path | str,
    store: Path | str | None = None,
    *,
    form: str = "",
    k: int = 0,
    ignore: Collection[str] = (),
    registry: Path | None = None,
    named: Mapping[str, str] | None = None,
) -> Imported:
    """Read a foreign SAE; `store` gives what its file lacks, and the FVU. The rest: see `Asked`.

    Raises `UserError` when the format is unknown, the file damaged, a store is needed, or the file
    holds what may change the maths.
    """
    return _read(_found(path), store, Asked(form, k, ignore, registry, named or {}))


def read_as(form: Format, found: Found, ignore: Collection[str] = ()) -> Foreign:
    """Read what is of a format, if its `detect` says so; of damage, only `UserError` comes out."""
    with errors_in_one_line(f"{found.path}: no whole {form.NAME} file"):
        if form.detect(found):
            return _read_all(form, found, ignore)
    raise UserError(f"{found.path} is no {form.NAME} file")


def _read_all(form: Format, found: Found, ignore: Collection[str]) -> Foreign:
    """Read, and refuse what the reader has not looked at: it may change the latents."""
    found.forget()
    foreign = form.read(found)
    left = found.unused(form.ASIDE)
    unknown = sorted(set(ignore) - set(left))
    if unknown:
        raise UserError(
            f"--ignore {unknown[0]}: {found.path} has no such key or tensor that would have to be "
            f"ignored{did_you_mean(unknown[0], left)}"
        )
    left = [name for name in left if name not in ignore]
    if left:
        some = ", ".join(left[:6]) + (", ..." if len(left) > 6 else "")
        raise UserError(
            f"{foreign.format}: the file also holds {some}, of which its reader here knows nothing "
            f"and which may change the latents; if it does not, add --ignore {left[0]}"
        )
    return foreign


def import_sae(
    path: Path | str,
    out: Path | str,
    store: Path | str | None = None,
    *,
    form: str = "",
    k: int = 0,
    ignore: Collection[str] = (),
    registry: Path | None = None,
    named: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Imported:
    """Read a foreign SAE and save it as ours in the folder `out`; see `read`.

    Its config.json tells the format, the sha256 of the file that the weights came from, and where
    it was trained as far as that is known. With `overwrite` it takes the place of the SAE in `out`,
    once it has been read.
    """
    require_room(out, path, overwrite)
    found = _found(path)
    if is_ours(found.path):
        raise UserError(
            f"{path} is one of our own SAEs already: use it as it is, e.g. "
            f"`sae eval {quote(found.path)} STORE`"
        )
    asked = Asked(form, k, ignore, registry, named or {})
    imported = _read(found, store, asked, Path(out))
    model = imported.model
    model.config = replace(model.config, source_sha256=found.sha256())
    with replacing_sae(out) as part:
        model.save(part)
    return imported


def _read(
    found: Found, store: Path | str | None, asked: Asked, out: Path | None = None
) -> Imported:
    foreign = _foreign(found, asked)
    if out is not None:  # before anything is measured
        disk.require_room(out, 4 * (foreign.W_enc.numel() + foreign.W_dec.numel()))
    foreign = _with_k(foreign, asked.k) if asked.k else foreign
    if foreign.rule in ALL_WITH_K and not foreign.k:
        raise UserError(f"{found.path} ({foreign.format}) does not tell its k; add --k K")
    origin = _origin(foreign, found, asked)
    known: dict[str, Any] = {name: origin[name] for name in NAMES}
    if known["layer"].startswith("-"):  # of a CLIP whose depth is not known here
        known["layer"] = ""
    foreign = replace(foreign, **known)
    x = None if store is None else measure.sample(store, foreign.W_enc.shape[1])
    if foreign.lacks:
        foreign = calibrate.complete(foreign, x, found.path)
    with errors_in_one_line(f"{found.path}: damaged"):
        model = to_sae(foreign)
    notes = tuple(map(one_line, (*foreign.notes, *origin.notes)))
    imported = Imported(model, foreign.format, notes, maths_of(foreign), origin=origin)
    if x is None or store is None:
        return imported
    notes = (*notes, *differences(origin, EmbeddingStore.open(store).info))
    n_tokens = min(len(x), measure.N_MEASURED)
    return replace(imported, notes=notes, fvu=measure.fvu(model, x), n_tokens=n_tokens)


def _foreign(found: Found, asked: Asked) -> Foreign:
    if asked.form:
        return _forced(asked.form, found, asked.ignore)
    return read_as(_detect(found), found, asked.ignore)


def _origin(foreign: Foreign, found: Found, asked: Asked) -> Origin:
    own = {name: getattr(foreign, name) for name in NAMES}
    sought = names_of(found.path)._replace(format=(foreign.format,))
    return find_origin(own, sought, read_registry(asked.registry), asked.named)


def _forced(form: str, found: Found, ignore: Collection[str]) -> Foreign:
    if form not in FORMATS:
        near = did_you_mean(form, FORMATS)
        raise UserError(f"--format {form!r} is none of {', '.join(FORMATS)}{near}")
    with errors_in_one_line(f"{found.path}: it cannot be read as {form}"):
        return _read_all(_format(form), found, ignore)


def _with_k(foreign: Foreign, k: int) -> Foreign:
    """With so many latents kept per token. A file without k reads as a ReLU: it may be a TopK."""
    by_threshold = foreign.rule == "jumprelu" or (
        foreign.rule == "batch_topk" and foreign.k and foreign.lacks != "threshold"
    )
    if by_threshold or foreign.rule in SMOOTH:
        kept = "all latents" if foreign.rule in SMOOTH else "what exceeds its threshold"
        raise UserError(
            f"k {k} was asked for, but this {foreign.format} SAE keeps {kept} ({foreign.rule}), "
            "however many these are; leave --k out"
        )
    if not 1 <= k <= len(foreign.W_enc):
        raise UserError(f"--k {k} is not in 1..{len(foreign.W_enc)}, the SAE's latents")
    told = f"the file has k {foreign.k}" if foreign.k else "the file has no k"
    notes = (*foreign.notes, f"k is {k} as asked for; {told}")
    rule: Rule = "topk" if foreign.rule == "relu" else foreign.rule
    return replace(foreign, rule=rule, k=k, notes=notes)


def _format(name: str) -> Format:
    return cast(Format, importlib.import_module(f"sae.interchange.formats.{name}"))


def _found(path: Path | str) -> Found:
    """What lies there; of a folder that is of no format and has one torch file, that file."""
    found = Found.at(path)
    if found.is_file or is_ours(found.path) or _format_of(found) is not None:
        return found
    files = [name for name in found.names if name.endswith(TORCH_FILES)]
    if len(files) > 1:
        some = ", ".join(files[:6]) + (", ..." if len(files) > 6 else "")
        raise UserError(
            one_line(f"{path} has {len(files)} files that may be SAEs; name one: {some}")
        )
    return Found.at(found.folder / files[0]) if files else found


def _detect(found: Found) -> Format:
    form = _format_of(found)
    if form is not None:
        return form
    with errors_in_one_line(f"{found.path}: damaged"):
        summary = _summary(found)
    raise UserError(
        one_line(
            f"{found.path} is no SAE of a known format; looked for {', '.join(FORMATS)} "
            f"and our own config.json with sae.safetensors; found {summary}"
        )
    )


def _format_of(found: Found) -> Format | None:
    with errors_in_one_line(f"{found.path}: damaged"):
        forms = (_format(name) for name in FORMATS)
        return next((form for form in forms if form.detect(found)), None)


def _summary(found: Found) -> str:
    names = ", ".join(found.names[:6]) + (", ..." if len(found.names) > 6 else "")
    if held := found.torch():
        names += f" with {', '.join(str(key)[:40] for key in list(held)[:8])}"
    return names or "an empty folder"
