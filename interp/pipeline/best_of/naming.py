"""The settings of a run -> the stages that name its latents, and what they have still to ask."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from interp.explain.run import ExplainSummary
from interp.llm.cost.estimate import Estimate
from interp.pipeline.best_of.disambiguate import DisambiguateStage, ToldApart
from interp.pipeline.best_of.settings import NamingSettings
from interp.pipeline.best_of.stages import BestOf, Made
from interp.pipeline.explain import ExplainStage
from interp.run.run import Run


class Named(NamedTuple):
    """What `Naming.run` came to."""

    summary: ExplainSummary
    choice: Made | None
    """None where one label of each latent was made."""
    rounds: tuple[ToldApart, ...]
    """Of telling equal labels apart."""
    refusals: list[str]


class Naming:
    """A label of each latent, or the best of several; then what tells equal ones apart."""

    def __init__(self, run: Run, settings: NamingSettings, latents: Sequence[int]) -> None:
        """Raises `UserError` where the evidence keeps no images to choose labels on."""
        self._run, self._settings, self._latents = run, settings, latents
        asked = (settings.explainer, latents, settings.work)
        self._first: ExplainStage | BestOf
        if settings.is_choice:
            self._first = BestOf(run, settings.best_of, *asked)
        else:
            self._first = ExplainStage(run, *asked)

    @cached_property
    def n_unnamed(self) -> int:
        """Latents that are still to be named. Which labels are equal is known once none is left."""
        return len(self._first.pending)

    @cached_property
    def n_pending(self) -> int:
        """Latents to be named; once all are, those to be told apart."""
        return self.n_unnamed or (len(self._apart().pending) if self._settings.disambiguate else 0)

    def estimates(self) -> list[Estimate]:
        """What paid models would be asked, before names are told apart or then."""
        if not self.n_unnamed:
            is_paid = self._settings.disambiguate and not self._settings.explainer.is_local
            return [self._apart().estimate()] if is_paid else []
        if not self._settings.is_paid:
            return []
        first = self._first
        return first.estimates() if isinstance(first, BestOf) else [first.estimate()]

    def run(self, label: str) -> Named:
        """Ask what is pending; `label` stands before the progress.

        Labels are told apart until no latent whose label is shared is left unasked: a new label can
        be that of a further latent. Raises what `Stage.run` does.
        """
        made = self._first.run(label)
        choice = made if isinstance(made, Made) else None
        rounds: list[ToldApart] = []
        while self._settings.disambiguate:
            stage = self._apart()
            if rounds and not (rounds[-1].n_new and stage.pending):
                break
            rounds.append(stage.tell_apart(f"{label}, tell apart"))
        summary = made.explained if isinstance(made, Made) else made
        return Named(summary, choice, tuple(rounds), self._first.refusals())

    def _apart(self) -> DisambiguateStage:
        """Made anew for each round: it begins with the labels that are there."""
        settings = self._settings
        return DisambiguateStage(self._run, settings.explainer, self._latents, settings.work)
