"""Tiny pipelines of diffusers with random weights, as folders; needs the extra `generate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae.clip.model import Clip


def write_kandinsky(folder: Path, d: int, **how: Any) -> Path:
    """A decoder of Kandinsky 2.2 for embeddings of width d."""
    import diffusers

    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        in_channels=4,
        out_channels=8,
        addition_embed_type="image",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=(32, 64),
        layers_per_block=1,
        encoder_hid_dim=d,
        encoder_hid_dim_type="image_proj",
        cross_attention_dim=32,
        attention_head_dim=4,
        resnet_time_scale_shift="scale_shift",
    )
    movq = diffusers.VQModel(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        norm_num_groups=8,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=4,
    )
    scheduler = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    pipe = diffusers.KandinskyV22Pipeline(unet=unet, scheduler=scheduler, movq=movq)
    pipe.save_pretrained(folder, **how)
    return folder


def write_unclip(folder: Path, clip: Clip) -> Path:
    """Stable unCLIP whose image encoder is `clip`, a small ViT of open_clip."""
    import diffusers
    import transformers
    from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer

    torch.manual_seed(0)
    d, d_text = clip.d_embed, 32
    texts = transformers.CLIPTextConfig(
        hidden_size=d_text, intermediate_size=37, num_attention_heads=4, num_hidden_layers=1,
        vocab_size=16, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(32, 64),
        attention_head_dim=(2, 4),
        class_embed_type="projection",
        projection_class_embeddings_input_dim=2 * d,
        cross_attention_dim=d_text,
        layers_per_block=1,
        use_linear_projection=True,
    )
    diffusers.StableUnCLIPImg2ImgPipeline(
        feature_extractor=transformers.CLIPImageProcessor(crop_size=64, size=64),
        image_encoder=vision_model(clip),
        image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=d),
        image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=_tokenizer(folder.parent / f"{folder.name}-words"),
        text_encoder=transformers.CLIPTextModel(texts),
        unet=unet,
        scheduler=diffusers.DDIMScheduler(set_alpha_to_one=False, steps_offset=1),
        vae=diffusers.AutoencoderKL(),
    ).save_pretrained(folder)
    return folder


def vision_model(clip: Clip) -> Any:
    """The image tower of `clip` in the form of transformers: the same numbers."""
    import transformers

    weights = dict(clip._model.visual.state_dict())
    width = weights["class_embedding"].shape[0]
    config = transformers.CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=clip.n_blocks,
        num_attention_heads=width // 32,
        image_size=clip.image_size,
        patch_size=weights["conv1.weight"].shape[-1],
        projection_dim=clip.d_embed,
        hidden_act="gelu",
    )
    model = transformers.CLIPVisionModelWithProjection(config)
    model.load_state_dict(_renamed(weights, clip.n_blocks, set(model.state_dict())), strict=False)
    return model.eval()


def _renamed(weights: dict[str, Tensor], n_blocks: int, wanted: set[str]) -> dict[str, Tensor]:
    top = "vision_model."
    found = {
        f"{top}embeddings.class_embedding": weights["class_embedding"],
        f"{top}embeddings.patch_embedding.weight": weights["conv1.weight"],
        f"{top}embeddings.position_embedding.weight": weights["positional_embedding"],
        "visual_projection.weight": weights["proj"].T.contiguous(),
    }
    names = {"ln_pre": f"{top}pre_layrnorm", "ln_post": f"{top}post_layernorm"}
    for block in range(n_blocks):
        ours, theirs = f"transformer.resblocks.{block}", f"{top}encoder.layers.{block}"
        names |= {
            f"{ours}.ln_1": f"{theirs}.layer_norm1",
            f"{ours}.ln_2": f"{theirs}.layer_norm2",
            f"{ours}.attn.out_proj": f"{theirs}.self_attn.out_proj",
            f"{ours}.mlp.c_fc": f"{theirs}.mlp.fc1",
            f"{ours}.mlp.c_proj": f"{theirs}.mlp.fc2",
        }
        for end in ("weight", "bias"):
            parts = weights[f"{ours}.attn.in_proj_{end}"].chunk(3)
            for letter, part in zip("qkv", parts, strict=True):
                found[f"{theirs}.self_attn.{letter}_proj.{end}"] = part
    for ours, theirs in names.items():
        found |= {f"{theirs}.{end}": weights[f"{ours}.{end}"] for end in ("weight", "bias")}
    missing = wanted - set(found)
    assert all("position_ids" in name for name in missing), missing
    return found


def _tokenizer(folder: Path) -> Any:
    """A vocabulary of a few letters."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    words = ["<|startoftext|>", "<|endoftext|>", "a", "b", "a</w>", "b</w>"]
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=77)
