"""A model's name -> open_clip's model, transform and tokenizer; every failure in one line."""

from __future__ import annotations

import difflib
import importlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError

from sae.clip.adapters.maple import attach_maple
from sae.clip.hub_names import OPENAI, find_same_weights
from sae.core.clip_name import FILE, MAPLE, is_private, split_adapter
from sae.core.errors import UserError
from sae.core.files import did_you_mean
from sae.core.quiet import quiet
from sae.data.view import VIEWS, View, find_view

_TINY_CLIP = Path(__file__).resolve().parents[1] / "world" / "tiny_clip"
BUILT_IN = {"tiny": _TINY_CLIP / "weights", "tiny-conv": _TINY_CLIP / "weights_conv"}
"""Folders of the CLIPs that ship with the package; they know the built-in world alone."""
RANDOM = "random"
HF_EXTRA = "pip install 'sae-interp[hf]'"
NO_DOWNLOAD = (
    "`--clip tiny` needs no download, `--clip local-dir:FOLDER` reads weights from the disk"
)

# What open_clip, its hub clients and torch raise for a model that is not there or does not fit.
_LOADING_ERRORS = (
    RuntimeError,
    ValueError,
    OSError,
    KeyError,
    TypeError,
    AttributeError,
    AssertionError,
    ImportError,
    UnpicklingError,
    SafetensorError,
)


class Parts(NamedTuple):
    """What open_clip makes of a name."""

    name: str
    model: Any
    transform: Any
    make_tokenizer: Callable[[], Any]
    """It may need more libraries and files than the images do: made when texts are embedded."""
    d_embed: int
    image_size: int
    view: View
    adapter_sha: str = ""
    """First 16 hex digits of the sha256 of an adapter's file; "" without one."""


class Request(NamedTuple):
    """What open_clip is asked for."""

    name: str  # ours, as it is recorded
    model: str  # open_clip's, with its schema
    tag: str | None
    quick_gelu: bool
    adapter: str = ""
    """File of the adapter that is put on it; "" for none."""


def open_clip_parts(name: str, texts: bool = True) -> Parts:
    """Load a model. Raises `UserError` in one line for all that can go wrong with a name.

    `texts`: it is to read texts too, so what that needs must be installed.
    """
    request = resolve_name(name)
    with _one_line(name):
        _require_transformers(request, texts)
        parts = _random_parts(request) if request.tag == RANDOM else _load(request)
    return _adapted(parts, request) if request.adapter else parts


def _adapted(parts: Parts, request: Request) -> Parts:
    base, adapter = split_adapter(request.name)
    put = attach_maple(parts.model, base, Path(adapter))
    return parts._replace(
        adapter_sha=put.sha, make_tokenizer=lambda: put.tokenizer(parts.make_tokenizer())
    )


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    try:
        with _quiet():
            yield
    except _LOADING_ERRORS as error:
        why = " ".join(str(error).split())[:240] or type(error).__name__
        raise UserError(f"cannot load the CLIP model {name!r}: {why}; {NO_DOWNLOAD}") from None


def _require_transformers(request: Request, texts: bool) -> None:
    """Raise `UserError`, before weights are fetched, where a library is missing."""
    text = open_clip_module().get_model_config(request.model)["text_cfg"]
    is_siglip = ":" not in request.model and "siglip" in request.model.lower()
    has_tokenizer = text.get("hf_tokenizer_name") or is_siglip
    needed = text.get("hf_model_name") or (texts and has_tokenizer)
    if needed and find_spec("transformers") is None:
        raise UserError(
            f"{request.name} reads texts with the library transformers, which is not installed: "
            f"{HF_EXTRA}"
        )


def resolve_name(name: str) -> Request:
    """Which model and tag a name means. Raises `UserError` with near names when there is none."""
    base, adapter = split_adapter(name)
    if base != name:
        if not adapter:
            raise UserError(f"{name!r} names no file; write {base}{MAPLE}PATH, MaPLe's checkpoint")
        found = resolve_name(base)
        return found._replace(name=f"{found.name}{MAPLE}{adapter}", adapter=adapter)
    if name in BUILT_IN:
        folder = BUILT_IN[name]
        if not folder.is_dir():
            raise UserError(f"the built-in CLIP is missing at {folder}; install the package again")
        return Request(name, f"local-dir:{folder}", None, False)
    schema, colon, place = name.partition(":")
    if colon and schema in ("local-dir", "hf-hub"):
        return _by_schema(name, schema, place)
    if FILE in name:
        return _by_file(name)
    open_clip = open_clip_module()
    model, _, tag = name.rpartition("/")
    model = model.replace("/", "-")
    if name.replace("/", "-") in open_clip.list_models():  # "ViT-B/32" as OpenAI wrote it
        model, tag = name.replace("/", "-"), ""
    tags = open_clip.list_pretrained_tags_by_model(model)
    if model in open_clip.list_models() and not tag:
        raise UserError(f"{name!r} needs its weights' tag: {_listed(model, [*tags, RANDOM])}")
    if model in open_clip.list_models() and tag != RANDOM and tag not in tags:
        near = did_you_mean(tag, [*tags, RANDOM])
        raise UserError(
            f"{model} has no tag {tag!r}{near}; it has {_listed(model, [*tags, RANDOM])}"
        )
    if model not in open_clip.list_models():
        _refuse_other_form(name)
        raise UserError(f"no CLIP model {name!r}{_near(name)}; {NO_DOWNLOAD}")
    # open_clip 3 only warns of a mismatch, and then computes with the wrong activation.
    quick_gelu = bool(open_clip.get_pretrained_cfg(model, tag).get("quick_gelu", False))
    return Request(f"{model}/{tag}", model, tag, quick_gelu)


def name_told(told: str) -> str:
    """A CLIP as another lab's file calls it -> its name here; "" where its weights are not told.

    Files of a disk are none: the disk would be another machine's.
    """
    told = told.strip().removeprefix("open-clip:")
    if told in BUILT_IN:
        return told
    short = told.removeprefix("openai/").lower()
    if is_private(told) or short in OPENAI or "/" not in told:  # before open_clip is imported
        return "" if is_private(told) else OPENAI.get(short, "")
    open_clip = open_clip_module()
    if told.startswith("hf-hub:"):
        return find_same_weights(told, open_clip) or told
    model, _, tag = told.rpartition("/")
    known = tag in open_clip.list_pretrained_tags_by_model(model)
    return told if known else find_same_weights(told, open_clip)


def _by_schema(name: str, schema: str, place: str) -> Request:
    if schema == "hf-hub":
        _refuse_other_form(name)
    if not place:
        example = "FOLDER" if schema == "local-dir" else "org/name"
        raise UserError(f"{name!r} names nothing; write {schema}:{example}")
    if schema == "local-dir" and not (Path(place) / "open_clip_config.json").is_file():
        raise UserError(
            f"{place} has no open_clip_config.json; name a folder in open_clip's format"
        )
    if schema == "local-dir" and find_view(name) is None:  # open_clip fails without a word
        raise UserError(
            f"cannot load the CLIP model {name!r}: its open_clip_config.json tells no resize_mode "
            f"that is known ({', '.join(VIEWS)})"
        )
    return Request(name, name, None, False)


def _by_file(name: str) -> Request:
    """Weights in a file, for a model of open_clip's list."""
    model, _, place = name.partition(FILE)
    model = model.replace("/", "-")
    if model not in open_clip_module().list_models():
        raise UserError(f"{name!r}: no model {model!r} to load a file into{_near(model)}")
    if not Path(place).is_file():
        raise UserError(f"{name!r}: there is no file {place!r}; write {model}{FILE}WEIGHTS.pt")
    # Whole, so that it is never taken for a tag.
    return Request(f"{model}{FILE}{place}", model, str(Path(place).resolve()), False)


def _refuse_other_form(name: str) -> None:
    """Raise `UserError` for a repository of weights that open_clip has under another name."""
    if found := find_same_weights(name, open_clip_module()):
        raise UserError(
            f"no CLIP model {name!r} in open_clip's form; did you mean {found}, which are the same "
            f"weights? {NO_DOWNLOAD}"
        )


def _listed(model: str, tags: list[str]) -> str:
    return ", ".join(f"{model}/{tag}" for tag in tags)


def _near(name: str) -> str:
    open_clip = open_clip_module()
    known = [*BUILT_IN, *open_clip.list_models(), *open_clip.list_pretrained(as_str=True)]
    known = [candidate.replace(":", "/") for candidate in known]
    lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), list(lower), n=4, cutoff=0.6)
    return f"; did you mean {', '.join(lower[n] for n in near)}?" if near else ""


def _random_parts(request: Request) -> Parts:
    open_clip = open_clip_module()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, _, transform = open_clip.create_model_and_transforms(
            request.model, pretrained_image=False, pretrained_text=False
        )
    return _parts(request, model, transform)


def _load(request: Request) -> Parts:
    open_clip = open_clip_module()
    model, transform = open_clip.create_model_from_pretrained(
        request.model, request.tag, force_quick_gelu=request.quick_gelu
    )
    return _parts(request, model, transform)


def _parts(request: Request, model: Any, transform: Any) -> Parts:
    size, mode = (model.visual.preprocess_cfg[key] for key in ("size", "resize_mode"))
    return Parts(
        name=request.name,
        model=model,
        transform=transform,
        make_tokenizer=partial(_make_tokenizer, request, getattr(model, "vocab_size", None)),
        d_embed=int(open_clip_module().get_model_config(request.model)["embed_dim"]),
        image_size=int(size if isinstance(size, int) else size[0]),
        view=VIEWS[mode],
    )


_PLAIN = re.compile(r"[A-Za-z0-9 ,.'()-]*").fullmatch


def _make_tokenizer(request: Request, n_known: int | None) -> Any:
    """open_clip's tokenizer of a model that knows `n_known` words (None: it does not tell)."""
    _require_transformers(request, texts=True)
    with _one_line(request.name):
        arguments = _tokenizer_arguments(request.model)
        tokenizer = open_clip_module().get_tokenizer(request.model, **arguments)
        n_words = getattr(tokenizer, "vocab_size", 0)
        if n_known is not None and n_words > n_known:
            raise ValueError(f"the tokenizer has {n_words} tokens, the model only {n_known}")
    if hasattr(tokenizer, "clean_fn"):
        tokenizer.clean_fn = _quick(tokenizer.clean_fn)
    return tokenizer


def _quick(clean: Callable[[str], str]) -> Callable[[str], str]:
    """The same, without looking for wrong encodings (most of the time of a short text) where there
    are none: in plain words."""
    if clean("A,  b") != "a, b":
        return clean  # it does something else than to lower letters and join words by blanks
    return lambda text: " ".join(text.split()).lower() if _PLAIN(text) else clean(text)


def _tokenizer_arguments(model: str) -> dict[str, str]:
    """A vocabulary named in a local folder's config is meant relative to that folder."""
    schema, _, folder = model.partition(":")
    if schema != "local-dir":
        return {}
    config = json.loads((Path(folder) / "open_clip_config.json").read_text(encoding="utf-8"))
    vocabulary = config["model_cfg"]["text_cfg"].get("tokenizer_kwargs", {}).get("bpe_path")
    return {"bpe_path": str(Path(folder) / vocabulary)} if vocabulary else {}


def open_clip_module() -> Any:
    """Imported when first asked for: it takes seconds."""
    with _quiet():
        return importlib.import_module("open_clip")


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip logs through the root logger and warns of what we have settled: keep it down."""
    root = logging.getLogger()
    handlers, disabled = root.handlers[:], root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with quiet:
            yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers  # logging.info() adds one to a root that has none
