"""A tiny vision-language model made from nothing, for tests against real servers.

    python tests/support/servers/tiny_vlm.py OUT [--fit] [--text-only]

Qwen2-VL with 0.4 million random weights (1.6 MB) and a tokenizer of its own; nothing is downloaded.
As it comes it answers garbage. `--fit` overfits it, for about two minutes on one thread, until its
greedy answer to any chat with pictures is {"label": "<their main colour>", "confidence": 0.9}: an
answer that depends on the pixels and on nothing else. `--text-only` writes a tiny Qwen2 that takes
no pictures. Any server that loads Qwen2-VL folders can serve it; it is a stub for the plumbing, and
no evidence of what real models answer.

Needs torch, torchvision, pillow and transformers 5 (the extra `server`).
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

if TYPE_CHECKING:
    import torch

RGB = {
    "red": (210, 30, 30),
    "green": (30, 170, 50),
    "blue": (30, 60, 210),
    "yellow": (230, 210, 40),
    "black": (15, 15, 15),
    "white": (240, 240, 240),
}
"""The colours that a fitted model knows; the nearest of them names any other."""

N_STEPS = 600
"""Of fitting; loss about 0.001 at the end."""

_SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] in ('image', 'image_url') %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif c['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{% elif 'text' in c %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_PHRASES = (
    "You label latents of a sparse autoencoder. "
    "Look at the grid of images and say what they share.",
    "Which of these tiles match the explanation? Answer with JSON only.",
    "a sketch of a dog",
    "a photo of a red car",
    "user assistant system image images label explanation confidence score answer yes no",
    "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,:;!?()[]{}<>\"'-_/\\",
)
_LONGEST = 8192
"""Tokens of a chat."""


class Tiny(NamedTuple):
    """A model and what makes tensors of a chat (the tokenizer alone when it takes no pictures)."""

    model: Any
    processor: Any


def answer(colour: str) -> str:
    """What a fitted model says of pictures of one colour."""
    return f'{{"label": "{colour}", "confidence": 0.9}}'


def build(*, text_only: bool = False) -> Tiny:
    """Random weights; the same on every machine."""
    import torch

    torch.manual_seed(0)
    tokenizer = _tokenizer()
    tiny = _text_model(tokenizer) if text_only else _vision_model(tokenizer)
    tiny.model.generation_config = _greedy(tokenizer)
    return Tiny(tiny.model.float(), tiny.processor)


def fit(tiny: Tiny, n_steps: int = N_STEPS, seed: int = 0) -> float:
    """Overfit in place; the last loss comes back."""
    import torch

    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(tiny.model.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=n_steps)
    tiny.model.train()
    for step in range(n_steps):
        sides = (112, 112, 112, 168, 224, 448) if step < 0.8 * n_steps else (112, 448)
        side = rng.choice(sides)
        loss = _loss(tiny, [_Chat.draw(rng, side) for _ in range(10 if side < 300 else 2)])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(tiny.model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == n_steps - 1:
            print(f"step {step} loss {loss.item():.4f}", flush=True)
    tiny.model.eval()
    return loss.item()


def save(tiny: Tiny, out: Path) -> None:
    """As a folder that `from_pretrained` and servers read."""
    tiny.model.save_pretrained(out)
    tiny.processor.save_pretrained(out)


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--fit", action="store_true", help="teach it to name colours")
    parser.add_argument("--text-only", action="store_true", help="a model that takes no pictures")
    given = parser.parse_args(words)
    if given.fit and given.text_only:
        parser.error("--fit needs pictures: leave --text-only out")
    import torch

    torch.set_num_threads(1)
    tiny = build(text_only=given.text_only)
    if given.fit:
        fit(tiny)
    save(tiny, given.out)
    n_weights = sum(weights.numel() for weights in tiny.model.parameters())
    print(f"{n_weights:,} parameters -> {given.out}")


def _tokenizer() -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated")
    raw.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=504, special_tokens=[], initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator([*(answer(colour) for colour in RGB)] * 40 + [*_PHRASES], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=_LONGEST,
        padding_side="left",
    )
    tokenizer.add_special_tokens({"additional_special_tokens": _SPECIAL})
    tokenizer.image_token, tokenizer.video_token = "<|image_pad|>", "<|video_pad|>"
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def _ids(tokenizer: Any) -> dict[str, int]:
    """Where a sequence ends and begins, for every config."""
    names = {"bos": "<|endoftext|>", "eos": "<|im_end|>", "pad": "<|endoftext|>"}
    return {f"{n}_token_id": tokenizer.convert_tokens_to_ids(t) for n, t in names.items()}


def _text_settings(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": _LONGEST,
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-6,
        **_ids(tokenizer),
    }


def _text_model(tokenizer: Any) -> Tiny:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Tiny(Qwen2ForCausalLM(Qwen2Config(**_text_settings(tokenizer))), tokenizer)


def _vision_model(tokenizer: Any) -> Tiny:
    import transformers

    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    # llama.cpp's converter finds the merger by its block number: with less depth it finds none.
    vision = {"depth": 3, "embed_dim": 64, "num_heads": 2, "hidden_size": 64, "mlp_ratio": 2}
    patches = {"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
    tokens = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start"}
    tokens["vision_end"] = "vision_end"
    places = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in tokens.items()
    }
    config = transformers.Qwen2VLConfig(
        text_config={**_text_settings(tokenizer), "rope_parameters": rope},
        vision_config={**vision, **patches, "in_channels": 3},
        tie_word_embeddings=False,
        **places,
        **_ids(tokenizer),
    )
    size = {"shortest_edge": 56 * 56, "longest_edge": 448 * 448}  # pixels of area
    processor = transformers.Qwen2VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=transformers.Qwen2VLVideoProcessor(size=size),
        chat_template=_TEMPLATE,
    )
    return Tiny(transformers.Qwen2VLForConditionalGeneration(config), processor)


def _greedy(tokenizer: Any) -> Any:
    from transformers import GenerationConfig

    ids = _ids(tokenizer)
    ends = [ids["eos_token_id"], ids["pad_token_id"]]
    return GenerationConfig(do_sample=False, max_new_tokens=64, **{**ids, "eos_token_id": ends})


class _Chat(NamedTuple):
    """One example: pictures of one colour among random words, and its answer."""

    messages: list[dict[str, Any]]
    pictures: list[Image.Image]
    answer: str

    @classmethod
    def draw(cls, rng: random.Random, side: int) -> _Chat:
        colour = rng.choice(list(RGB))
        pictures = [_paint(rng, side, colour)] * rng.choice((1, 1, 1, 2, 4))
        parts = [{"type": "image", "image": picture} for picture in pictures]
        parts.insert(rng.choice((0, len(parts))), _words(rng, 0, 80))
        messages = [{"role": "user", "content": parts}]
        if rng.random() < 0.5:
            messages.insert(0, {"role": "system", "content": [_words(rng, 1, 30)]})
        return cls(messages, pictures, answer(colour) + "<|im_end|>")


def _paint(rng: random.Random, side: int, colour: str) -> Image.Image:
    shade = tuple(min(255, max(0, value + rng.randint(-25, 25))) for value in RGB[colour])
    picture = Image.new("RGB", (side, side), shade)
    if rng.random() < 0.5:
        x, y = rng.randrange(side - 20), rng.randrange(side - 20)
        picture.paste(tuple(rng.randrange(256) for _ in range(3)), (x, y, x + 20, y + 20))
    return picture


def _words(rng: random.Random, least: int, most: int) -> dict[str, Any]:
    known = " ".join(_PHRASES).split()
    return {"type": "text", "text": " ".join(rng.choices(known, k=rng.randint(least, most)))}


def _loss(tiny: Tiny, chats: list[_Chat]) -> torch.Tensor:
    """Cross-entropy of the answers alone."""
    import torch

    render = tiny.processor.apply_chat_template
    asked = [render(chat.messages, add_generation_prompt=True, tokenize=False) for chat in chats]
    encoded = tiny.processor(
        text=[text + chat.answer for text, chat in zip(asked, chats, strict=True)],
        images=[chat.pictures for chat in chats],
        return_tensors="pt",
        padding=True,
    )
    labels = torch.full_like(encoded["input_ids"], -100)
    for row, chat in enumerate(chats):  # padded on the left: the answer ends every row
        n_tokens = len(tiny.processor.tokenizer(chat.answer)["input_ids"])
        labels[row, -n_tokens:] = encoded["input_ids"][row, -n_tokens:]
    loss: torch.Tensor = tiny.model(**encoded, labels=labels).loss
    return loss


if __name__ == "__main__":
    main()
