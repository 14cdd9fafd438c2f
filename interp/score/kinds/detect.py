"""A label and lettered images -> the question `detect`, and a grade of each image: does it fit?"""

from __future__ import annotations

from collections.abc import Sequence

from interp.llm.types import VisionModel
from interp.pictures.painter import Layout
from interp.records.tasks import DETECT
from interp.records.wording import cut_description, cut_label
from interp.score.judge import Judgement, Pictures
from interp.score.kinds.asking import GridAsker, GridQuestion, foils_prompt, grid_prompt


class VlmJudge(GridAsker):
    """Asks a vision model about some lettered images; on an unusable answer it asks once again."""

    def __init__(
        self, model: VisionModel, layout: Layout = "grid", *, again: bool = False, server: str = ""
    ) -> None:
        """See `GridAsker`."""
        super().__init__(model, DETECT, layout, again=again, server=server)

    @property
    def prompt_with_foils(self) -> str:
        """As `prompt`, of a question with foils."""
        return foils_prompt(self._painter.layout)

    async def judge(
        self,
        label: str,
        description: str,
        pictures: Pictures,
        about: str = "",
        foils: Sequence[str] = (),
    ) -> Judgement:
        """A score for each letter; None for those that a usable answer leaves out.

        `foils`: other labels that the same question has graded behind this one.
        """
        return await self.answer(lambda: self.question(label, description, pictures, about, foils))

    def question(
        self,
        label: str,
        description: str,
        pictures: Pictures,
        about: str = "",
        foils: Sequence[str] = (),
    ) -> GridQuestion | None:
        """What `judge` asks first; None where no picture can be read."""
        shorter = [cut_label(foil)[0] for foil in foils]
        return self.pose(pictures(), told(label, description), about, foils=shorter)


def told(label: str, description: str) -> dict[str, str]:
    """All that a judge is told: no truth, no base rate, no class, no file name."""
    return {"label": cut_label(label)[0], "description": cut_description(description)[0]}


def judge_prompt(layout: Layout) -> str:
    """Fingerprint of the judge's templates, schema and settings."""
    return grid_prompt(DETECT, layout)
