"""`--latents 3,17,100-120` and `--part 3/8` -> the latents of a run that are worked on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from sae.core.errors import UserError

if TYPE_CHECKING:
    from interp.evidence.reader import EvidenceReader

_MOST = 100_000


class Part(NamedTuple):
    """Every `of`-th latent, from the latent `number - 1` on. It follows from a latent's number
    alone: not from what is done, nor from which latents are live."""

    number: int
    """From 1 to `of`."""
    of: int

    def has(self, latent: int) -> bool:
        """Whether the latent belongs to this part: to exactly one of all parts it does."""
        return latent % self.of == self.number - 1


def read_part(text: str) -> Part:
    """Of "3/8"; "" is the whole run. Raises `UserError` for anything else."""
    if not text:
        return Part(1, 1)
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    part = Part(*map(int, found.groups())) if found else Part(0, 0)
    if not 1 <= part.number <= part.of <= _MOST:
        raise UserError(
            f"--part {text!r} is no part of a run; write --part 3/8 for the third of eight"
        )
    return part


def choose_latents(reader: EvidenceReader, spec: str | None, dense: bool = False) -> list[int]:
    """Latents to work on: those of `spec` ("3,17,100-120"), else the live ones, and the dense ones
    too when asked.

    Raises `UserError` for what is no number or no latent of the run.
    """
    if spec is None:
        wanted = ("live", "dense") if dense else ("live",)
        return [latent for latent, status in enumerate(reader.status) if status in wanted]
    chosen: set[int] = set()
    for part in filter(None, (part.strip() for part in spec.split(","))):
        first, dash, last = part.partition("-")
        try:
            chosen |= set(range(int(first), int(last if dash else first) + 1))
        except ValueError:
            raise UserError(
                f"--latents {spec!r}: {part!r} is no number or range like 100-120"
            ) from None
    beyond = [latent for latent in sorted(chosen) if latent >= reader.info.n_latents]
    if beyond or not chosen:
        what = f"there is no latent {beyond[0]}" if beyond else "it names no latent"
        raise UserError(
            f"--latents {spec!r}: {what}; they go from 0 to {reader.info.n_latents - 1}"
        )
    return sorted(chosen)
