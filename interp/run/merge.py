"""The journals of parts of a run -> lines that the whole run's journals lack, none of them twice.

A part begins as a copy of the run. What it has said of a latent beyond that is appended in its
order; a latent of which two have each said something else is refused, as nothing tells which of
them counts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from interp.evidence.config import EXAMPLES, FOLDER
from interp.records.codec import from_json
from interp.records.effect import CausalEffect
from interp.records.tasks import TaskScore
from interp.records.types import Explanation, Score
from interp.run.results import CAUSAL, EXPLANATIONS, SCORES, TASKS
from interp.run.run import CANDIDATES, DISAMBIGUATION, EDITED, TRANSFER, Run
from sae.core.errors import UserError, quote
from sae.core.files import append_jsonl, repair_jsonl, walk_jsonl

RECORDS: dict[str, type[Any]] = {
    EXPLANATIONS: Explanation,
    SCORES: Score,
    TASKS: TaskScore,
    CAUSAL: CausalEffect,
}
JOURNALS = (
    *RECORDS,
    *(
        f"{folder}/{name}"
        for folder in (CANDIDATES, DISAMBIGUATION, TRANSFER, EDITED)
        for name in (EXPLANATIONS, SCORES)
    ),
)
"""Of a run, from its folder on. What people said is not among them: `interp verdicts` takes it."""
_APART = ("latent", "control", "kind")
"""Lines that differ in one of these say nothing of each other."""
_ELSEWHERE = ("version", "store")
"""Of collect.json, what may differ between two copies of one run."""

_Key = tuple[Any, ...]
_Lines = dict[_Key, list[bytes]]
"""By what they are about, what tells the lines of a journal from others, in their order."""


class Lacking(NamedTuple):
    """Lines of one journal of a part that the run lacks."""

    source: Path
    target: Path
    numbers: frozenset[int]

    def append(self) -> None:
        """Append them to the run's journal, on the disk when this returns."""
        lines = (line.values for line in walk_jsonl(self.source) if line.number in self.numbers)
        repair_jsonl(self.target)
        append_jsonl(self.target, lines, durable=True)


def require_part(run: Run, part: Run) -> None:
    """Raise `UserError` where `part` is no copy of the run, made after `interp collect`."""
    ours, theirs = run.info, part.info
    for name, what in (("sae_identity", "SAE"), ("store_identity", "store")):
        if getattr(ours, name) != getattr(theirs, name):
            raise UserError(f"{part.path} is the run of another {what} than {run.path}")
    collected = [dataclasses.asdict(one.evidence.info) for one in (run, part)]
    for name in collected[0]:
        if name not in _ELSEWHERE and collected[0][name] != collected[1][name]:
            raise _other_evidence(run, part, f"its {name} is {collected[1][name]}")
    if not _have_equal_examples(run, part):
        raise _other_evidence(run, part, "it has other examples")


def find_lacking(run: Run, parts: Sequence[Run]) -> list[Lacking]:
    """What is to be appended, journal by journal and part by part. Writes nothing.

    Raises `UserError` where a line is damaged, or two runs contradict each other.
    """
    found: list[Lacking] = []
    for name in JOURNALS:
        target = run.path / name
        here = _read(target) if any((part.path / name).exists() for part in parts) else {}
        for part in parts:
            source = part.path / name
            numbers = _compare(source, target, here)
            if numbers:
                found.append(Lacking(source, target, frozenset(numbers)))
    return found


def take_settings(run: Run, parts: Sequence[Run]) -> None:
    """Write down how each stage was set that the run itself has not seen."""
    for part in parts:
        for stage, settings in part.info.settings.items():
            if stage not in run.info.settings:
                run.remember(stage, settings)


def _compare(source: Path, target: Path, here: _Lines) -> list[int]:
    """Numbers of the lines that `here` lacks; it takes them in.

    Of each latent either journal must go on where the other one ends.
    """
    numbers: list[int] = []
    seen: dict[_Key, int] = {}
    for number, key, line in _walk(source):
        known, place = here.setdefault(key, []), seen.get(key, 0)
        seen[key] = place + 1
        if place < len(known) and known[place] != line:
            raise UserError(
                f"{source} says of latent {key[0]} something else than {target} or another part "
                "does: both asked about it; leave one of these runs out"
            )
        if place == len(known):
            known.append(line)
            numbers.append(number)
    return numbers


def _read(journal: Path) -> _Lines:
    lines: _Lines = {}
    for _, key, line in _walk(journal):
        lines.setdefault(key, []).append(line)
    return lines


def _walk(journal: Path) -> Iterator[tuple[int, _Key, bytes]]:
    """Number, what it is about, and a hash of each line, which is a record of ours."""
    cls = RECORDS[journal.name]
    for line in walk_jsonl(journal):
        from_json(cls, line.values, f"{journal}, line {line.number},")
        yield line.number, _about(line.values), _hash(line.values)


def _about(values: Mapping[str, Any]) -> _Key:
    return tuple(values.get(name, "") for name in _APART)


def _hash(values: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).digest()[:16]


def _have_equal_examples(run: Run, part: Run) -> bool:
    import pyarrow.parquet as pq

    columns = ["latent", "side", "kind", "image_id"]
    ours, theirs = (
        pq.read_table(one.path / FOLDER / EXAMPLES, columns=columns) for one in (run, part)
    )
    return bool(ours.equals(theirs))


def _other_evidence(run: Run, part: Run, what: str) -> UserError:
    return UserError(
        f"{part.path} was collected otherwise than {run.path} ({what}): a part is a copy of the "
        f"run's folder: cp -r {quote(run.path)} PART"
    )
