"""A model's name -> who made it: a judge favours the words of its own family."""

from __future__ import annotations

import re

LOCAL = "local"
"""The model name that stands for CLIP on this machine: no key, no network."""
LINEAR = "local:linear"
"""The baseline: a regression on its similarities. In records the CLIP's name stands behind it."""
_MAKERS = {
    "openai": "gpt|chatgpt|o[134]",
    "anthropic": "claude",
    "google": "gemini|gemma|paligemma",
    "qwen": "qwen|qwq|qvq",
    "meta": "llama",
    "mistral": "mistral|ministral|pixtral|magistral",
    "x-ai": "grok",
    "amazon": "nova",
    "microsoft": "phi",
    "opengvlab": "internvl",
    "z-ai": "glm",
    "moonshot": "kimi",
    "deepseek": "deepseek",
}
"""By maker, how the names of its models begin; hosts put their own name before the slash."""


def family_of(model: str) -> str:
    """`openai` for "openai/gpt-5-mini" and "gpt-4o"; what stands before the slash where the name
    says nothing; `local` for CLIP on this machine; "" where nobody can tell."""
    if model.partition(":")[0] == LOCAL:
        return LOCAL
    host, slash, name = model.lower().rpartition("/")
    for maker, begins in _MAKERS.items():
        if re.match(rf"(?:meta-)?(?:{begins})(?![a-z])", name):
            return maker
    return host.rpartition("/")[2] if slash else ""


def is_linear(model: str) -> bool:
    """Whether a label is by the linear baseline."""
    return f"{model}:".startswith(f"{LINEAR}:")


def is_one_family(explainer: str, judge: str) -> bool:
    """Whether both are known to be of one family; CLIP on this machine is none, and its judge may
    be circular (`interp.records.circular`)."""
    return family_of(explainer) == family_of(judge) not in ("", LOCAL)
