"""Canaries before any label is tested, half way and at the end -> has the judge changed meanwhile?

The same few questions are asked at the three moments, their pictures in another order each time.
"""

from __future__ import annotations

from itertools import islice

from interp.pipeline.judging.tasks import TaskStage
from interp.pipeline.score import ScoreStage
from interp.pipeline.settings import ModelSettings, Work
from interp.records.tasks import CANARY_HALF, CANARY_START
from interp.run.run import Run
from interp.score.kinds.canary import N_REPEATED, first_in_turn, repeat_canaries
from interp.score.kinds.task import Case, TaskKind
from interp.score.run import ScoreSummary


class RepeatedCanaries:
    """Those of a few latents, and when they are asked; at the end they are canaries as any other.

    When is a matter of all labels that are to be tested, however many commands that takes.
    """

    def __init__(
        self,
        run: Run,
        settings: ModelSettings,
        canary: TaskKind,
        detect: ScoreStage,
        labelled: list[int],
        work: Work,
    ) -> None:
        """`labelled`: the latents whose labels are tested, `canary`: what is asked at the end."""
        self._detect = detect
        in_turn = (
            n
            for n in first_in_turn(labelled)
            if canary.draw(Case(run.evidence.of(n), None, config=detect.sample))
        )
        self.latents = frozenset(islice(in_turn, N_REPEATED))
        bare = dict.fromkeys(sorted(self.latents))
        self.start, self.half = (
            TaskStage(run, settings, repeat_canaries(name, canary), bare, work, detect.sample)
            for name in (CANARY_START, CANARY_HALF)
        )
        n_done = len(labelled) - len(detect.all_pending)
        self._n_left = max(len(labelled) // 2 - n_done, 0)
        # Where labels were tested before, it is too late for a start.
        self.are_asked = bool(self.latents) and (not n_done or not self.start.all_pending)
        self.is_half_due = self.are_asked and self._n_left <= len(detect.pending)

    @property
    def stages(self) -> list[TaskStage]:
        """What this command asks beside the end."""
        return [self.start] * self.are_asked + [self.half] * self.is_half_due

    def score(self) -> ScoreSummary:
        """Test the labels, with canaries before and half way."""
        if not self.is_half_due:
            for stage in self.stages:
                stage.run()
            return self._detect.run()
        self.start.run()
        first, rest = self._detect.split(self._n_left)
        first.run("score, first half")
        self.half.run()
        return rest.run("score, second half" if first.pending else "")
