"""Pipelines of diffusers that draw from CLIP's image embedding -> one way to draw with them.

Only safetensors are loaded, and no code that comes with a pipeline.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sae.clip.model import Clip
from sae.core.errors import UserError
from sae.steering.generate.config import GenerateConfig

EXTRA = "pip install 'sae-interp[generate]'"
KANDINSKY_CLIP = "ViT-bigG-14/laion2b_s39b_b160k"
LIBRARIES = ("diffusers", "transformers", "stable_diffusion")
"""Where a pipeline's parts may come from; the last is a part of the first."""
SAME = 0.999
"""Cosine of two encoders' embeddings from which on they are the same, in half precision too."""
_LOADING_ERRORS = (OSError, ValueError, RuntimeError, TypeError, KeyError, ImportError)


class Painter(Protocol):
    """What draws pictures of embeddings."""

    name: str
    kind: str
    """Class of the pipeline."""
    encoder: str
    """Name of the CLIP whose embeddings it takes."""

    def draw(self, embedding: Tensor, seed: int) -> Image.Image:
        """A picture of one raw embedding (1, d_embed)."""
        ...


class Pipe:
    """One of diffusers' pipelines, and how it is called."""

    def __init__(self, pipe: Any, name: str, encoder: str, arguments: Mapping[str, Any]) -> None:
        self.name, self.encoder = name, encoder
        self.kind = type(pipe).__name__
        self._pipe = pipe
        self._arguments = arguments

    def draw(self, embedding: Tensor, seed: int) -> Image.Image:
        """The noise depends on the seed alone: what differs between strengths is the edit.

        Raises `UserError` where the pipeline cannot draw so, or its device has no room.
        """
        unet = self._pipe.unet
        try:
            drawn = self._pipe(
                image_embeds=embedding.to(unet.device, unet.dtype),
                generator=torch.Generator("cpu").manual_seed(seed),
                **self._arguments,
            )
        except (ValueError, RuntimeError) as error:
            why = " ".join(str(error).split())[:240]
            raise UserError(
                f"{self.name} could not draw: {why}; try another --size, --steps or --device"
            ) from None
        picture: Image.Image = drawn.images[0]
        return picture.convert("RGB")


def load_pipeline(said: GenerateConfig, clip: Clip, image: Image.Image) -> Painter:
    """The pipeline, on the CLIP's device, for embeddings of that CLIP.

    Raises `UserError` where diffusers is not installed, for a pipeline that cannot be had or takes
    no image embedding, and where its image encoder is not `clip`; `image` is what both look at.
    """
    kind = _kind_of(said.pipeline)
    half = torch.float16 if clip.device.type == "cuda" else torch.float32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pipe = getattr(_diffusers(), kind).from_pretrained(
                said.pipeline, use_safetensors=True, torch_dtype=half
            )
        except _LOADING_ERRORS as error:
            raise _cannot_load(said.pipeline, error) from None
    pipe = pipe.to(clip.device)
    pipe.set_progress_bar_config(disable=True)
    return make_painter(pipe, said, clip, image)


def make_painter(pipe: Any, said: GenerateConfig, clip: Clip, image: Image.Image) -> Painter:
    """The pipeline once it is loaded, checked against the CLIP."""
    settings = {
        "num_inference_steps": said.steps,
        "guidance_scale": said.guidance,
        "height": said.size,
        "width": said.size,
    }
    arguments: dict[str, Any] = {name: value for name, value in settings.items() if value}
    encoder = getattr(pipe, "image_encoder", None)
    if encoder is None:
        name = said.encoder or KANDINSKY_CLIP
        _require_width(said.pipeline, name, int(pipe.unet.config.encoder_hid_dim), clip)
        if name != clip.name:
            raise _other_clip(said.pipeline, name, clip)
        # What Kandinsky's prior gives in the place of a negative text: nothing, seen by CLIP.
        blank = torch.zeros(1, 3, clip.image_size, clip.image_size)
        negative = clip.embed_images(blank)[:, 0]
        arguments["negative_image_embeds"] = negative.to(pipe.unet.device, pipe.unet.dtype)
    else:
        name = _name_of(encoder)
        _require_width(said.pipeline, name, int(encoder.config.projection_dim), clip)
        _require_same_embedding(said.pipeline, name, encoder, clip, image)
        arguments |= {"prompt": "", "noise_level": 0}
    return Pipe(pipe, said.pipeline, name, arguments)


def _diffusers() -> Any:
    """Imported when first asked for: it takes seconds, and is an extra."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("accelerate")
            importlib.import_module("transformers")
            diffusers: Any = importlib.import_module("diffusers")
            diffusers.utils.logging.disable_progress_bar()  # our own counts the pictures
            return diffusers
    except ImportError as error:
        raise UserError(
            f"pictures are drawn with diffusers, transformers and accelerate, which are not all "
            f"installed ({error}): {EXTRA}"
        ) from None


def _kind_of(pipeline: str) -> str:
    """The class in model_index.json, looked at before any weights are fetched."""
    diffusers = _diffusers()
    try:
        config = diffusers.DiffusionPipeline.load_config(pipeline)
    except _LOADING_ERRORS as error:
        raise _cannot_load(pipeline, error) from None
    kind = str(config.get("_class_name", ""))
    if kind not in ("KandinskyV22Pipeline", "StableUnCLIPImg2ImgPipeline"):
        raise UserError(
            f"{pipeline} is a {kind or 'folder without a pipeline'}, which draws from no image "
            "embedding; use a KandinskyV22Pipeline (kandinsky-community/kandinsky-2-2-decoder) or "
            "a StableUnCLIPImg2ImgPipeline"
        )
    for part, place in config.items():
        if isinstance(place, list | tuple) and place[0] not in (*LIBRARIES, None):
            raise UserError(
                f"{pipeline} has its {part} from {place[0]!r}, which is not loaded: only parts of "
                "diffusers and transformers are"
            )
    return kind


def _cannot_load(pipeline: str, error: Exception) -> UserError:
    why = " ".join(str(error).split())[:240] or type(error).__name__
    return UserError(
        f"cannot load the pipeline {pipeline!r}: {why}; name a folder or a repository of the hub "
        "in diffusers' form, with weights in safetensors"
    )


def _require_width(pipeline: str, name: str, width: int, clip: Clip) -> None:
    if width != clip.d_embed:
        raise UserError(
            f"{pipeline} takes embeddings of {name}, of width {width}, but the SAE reads those of "
            f"{clip.name}, of width {clip.d_embed}; train an SAE on that CLIP, or name a pipeline "
            "of this one"
        )


def _other_clip(pipeline: str, name: str, clip: Clip) -> UserError:
    return UserError(
        f"{pipeline} takes embeddings of {name} (width {clip.d_embed}), but the SAE reads those of "
        f"{clip.name} (width {clip.d_embed}); where they are the same, --encoder {clip.name}"
    )


def _name_of(encoder: Any) -> str:
    """What is known of a pipeline's own image encoder."""
    config = encoder.config
    told = str(getattr(config, "_name_or_path", "") or "").rstrip("/").split("/")[-1]
    shape = f"{config.hidden_size} wide, {config.num_hidden_layers} blocks"
    patch = f"patches of {config.patch_size}"
    return f"its {told or 'image encoder'} ({shape}, {patch})"


def _require_same_embedding(
    pipeline: str, name: str, encoder: Any, clip: Clip, image: Image.Image
) -> None:
    """Raise `UserError` unless both encoders see the same in an image: names can be alike."""
    size = int(encoder.config.image_size)
    pixels = clip.preprocess(image)[None]
    cosine = -1.0
    if size == clip.image_size:
        with torch.no_grad():
            theirs = encoder(pixels.to(encoder.device, encoder.dtype)).image_embeds.float()
        ours = clip.embed_images(pixels)[:, 0]
        cosine = float(F.cosine_similarity(theirs.cpu(), ours.cpu())[0])
    if cosine < SAME:
        seen = f"cosine {cosine:.3f}" if size == clip.image_size else f"{size} pixels a side"
        raise UserError(
            f"{pipeline} takes embeddings of {name}, of width {clip.d_embed}, which is not the "
            f"SAE's {clip.name}, of width {clip.d_embed}: of the image it makes another embedding "
            f"({seen}); name a pipeline of that CLIP"
        )
