"""What an SAE's own files, the registry and a user say -> where it was trained, and who told what.

What a user names goes before what the files tell, and both before the registry; where two of them
differ, it is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sae.core.clip_name import without_place
from sae.core.errors import UserError
from sae.interchange.registry import Entry, Sought, find_facts

if TYPE_CHECKING:
    from sae.data.store_format import StoreInfo

NAMES = ("clip", "layer", "tokens", "rows")
"""Of the facts, as in `SAEConfig`."""
NAMED, OWN = "as named", "its own files"
OPTIONS = {
    "clip": "--clip NAME",
    "layer": "--layer BLOCK|projected",
    "tokens": "--tokens cls|patch|all",
}
"""How a user names what nobody told."""
_CACHED = re.compile(r"models--(.+?)--(.+)")
"""A repository's folder in huggingface_hub's cache."""


class Fact(NamedTuple):
    """Where an SAE was trained, in one respect."""

    value: str
    where: str
    """Who told it: `NAMED`, `OWN`, or an entry of the registry."""


NOBODY = Fact("", "")


@dataclass(frozen=True)
class Origin:
    """Where an SAE was trained, as far as that is known."""

    facts: Mapping[str, Fact] = field(default_factory=dict)
    """By one of `NAMES`; what is not known is not there."""
    notes: tuple[str, ...] = ()
    """Where two tell different things, and what the registry has to say."""

    def __getitem__(self, name: str) -> str:
        """What is known of one of `NAMES`; "" for what is not."""
        return self.facts[name].value if name in self.facts else ""

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of what is not known and would be needed."""
        return tuple(name for name in OPTIONS if name not in self.facts)

    def line(self) -> str:
        """ "clip tiny, layer 1 (its own files); tokens cls (registry: format MSAE)"."""
        wheres = list(dict.fromkeys(fact.where for fact in self.facts.values()))
        parts = []
        for where in wheres:
            told = (f"{n} {fact.value}" for n, fact in self.facts.items() if fact.where == where)
            parts.append(f"{', '.join(told)} ({where})")
        if self.missing:
            parts.append(f"not known: {', '.join(self.missing)}")
        return "; ".join(parts)

    def remedy(self) -> str:
        """The options that name what is missing: "--clip NAME --tokens cls|patch|all"."""
        return " ".join(OPTIONS[name] for name in self.missing)


def find_origin(
    own: Mapping[str, str],
    sought: Sought,
    registry: Sequence[Entry],
    named: Mapping[str, str] | None = None,
) -> Origin:
    """Where an SAE was trained. `own` and `named` have what files and a user tell, by `NAMES`."""
    found = find_facts(registry, sought)
    tellers = (
        (NAMED, dict(named or {})),
        (OWN, dict(own)),
        *((f"registry: {told.entry}", {name: told.value}) for name, told in found.told.items()),
    )
    facts: dict[str, Fact] = {}
    notes: list[str] = []
    for name in NAMES:
        for where, values in tellers:
            value = values.get(name, "")
            if not value:
                continue
            if name == "layer":
                value = _block(facts["clip"].value if "clip" in facts else "", value)
            first = facts.setdefault(name, Fact(value, where))
            if first.value != value:
                told = f"{name} {first.value} ({first.where}) is taken, not {value} ({where})"
                notes.append(f"{told}; where the FVU is poor, try the other")
    layer = facts.get("layer")
    if layer is not None and layer.value == "projected":
        if "tokens" not in facts or facts["tokens"].where != NAMED:
            facts["tokens"] = Fact("cls", layer.where)
    elif layer is not None and facts.get("rows", NOBODY).value == "unit":
        del facts["rows"]  # a block's are never brought to length 1
    return Origin({name: facts[name] for name in NAMES if name in facts}, (*notes, *found.notes))


def differences(origin: Origin, info: StoreInfo) -> tuple[str, ...]:
    """Where a store is of other embeddings than the SAE was trained on."""
    lines = []
    for name in NAMES:
        theirs, fact = str(getattr(info, name)), origin.facts.get(name)
        if fact is None or theirs in ("", fact.value, without_place(fact.value)):
            continue
        lines.append(f"the store has {name} {theirs}, the SAE {fact.value} ({fact.where})")
    return tuple(lines)


def names_of(path: Path) -> Sought:
    """What a path tells of the repository that it is from, and of the file."""
    whole = path.absolute()
    cached = [hit for part in whole.parts if (hit := _CACHED.fullmatch(part))]
    if cached:
        repos = [f"{cached[-1][1]}/{cached[-1][2]}"]
    else:
        repos = ["/".join(pair) for pair in zip(whole.parts[1:], whole.parts[2:], strict=False)]
    return Sought(repo=tuple(repos), file=(whole.as_posix(),))


def _block(clip: str, layer: str) -> str:
    """Counted from the beginning, where the CLIP's depth is known."""
    from sae.clip.ahead import block_ahead

    if not clip or re.fullmatch(r"-\d+", layer) is None:
        return layer
    try:
        return block_ahead(clip, layer) or layer
    except UserError:  # a name that no CLIP here has: who loads it is told
        return layer
