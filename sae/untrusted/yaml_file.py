"""A foreign YAML file of settings -> a dict, as JSON has it; references within it are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sae.core.errors import UserError
from sae.untrusted.damage import first_bytes
from sae.untrusted.json_file import MAX_JSON


def yaml_object(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file of reasonable size holds, of plain values alone."""
    import yaml  # type: ignore[import-untyped]

    first_bytes(path)
    try:
        if path.stat().st_size > MAX_JSON:
            raise ValueError(f"{path.stat().st_size} bytes are too many for settings")
        text = path.read_text(encoding="utf-8-sig")
        # A few references to references unfold to more than any memory holds.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("it refers to parts of itself")
        values = yaml.safe_load(text)
    except (OSError, RecursionError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} does not hold a YAML mapping")
    return {str(name): value for name, value in values.items()}
