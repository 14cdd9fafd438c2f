"""Entries of a list of models."""

from __future__ import annotations

from typing import Any


def entry(**changes: Any) -> dict[str, Any]:
    """One model as OpenRouter lists it."""
    return {
        "id": "acme/eyes-1",
        "canonical_slug": "acme/eyes-1-20261101",
        "name": "Acme: Eyes 1",
        "context_length": 131072,
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
        "pricing": {"prompt": "0.0000001", "completion": "0.0000005", "image": "0.0002"},
        "top_provider": {"context_length": 65536, "max_completion_tokens": 8192},
        "supported_parameters": ["max_tokens", "response_format", "structured_outputs"],
        **changes,
    }
