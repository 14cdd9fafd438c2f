"""The questions of one latent are asked together, and end together."""

from __future__ import annotations

import asyncio
import gc
import json
from weakref import ref

import pytest
from PIL import Image

from interp.llm.types import Question, Reply, Usage
from interp.records.types import Example
from interp.score.kinds.detect import VlmJudge
from interp.score.latent import score_latent
from sae.core.errors import UserError
from tests.support.interp.latents import explained, make_evidence, paint
from tests.support.interp.scoring import score


class Waiting:
    """A `VisionModel` that answers once `after` questions were asked, or then raises `error`."""

    name = "fake/vision"

    def __init__(self, after: int, error: Exception | None = None) -> None:
        self.after, self.error = after, error
        self.n_asked, self.n_cancelled, self.most_images = 0, 0, 0
        self.images: list[ref[Image.Image]] = []
        self.all_asked = asyncio.Event()

    async def ask(self, question: Question) -> Reply:
        self.n_asked += 1
        if self.n_asked == self.after:
            self.all_asked.set()
            if self.error:
                raise self.error
        try:
            await self.all_asked.wait()
            gc.collect()
            self.most_images = max(self.most_images, sum(i() is not None for i in self.images))
            if self.error:
                await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.n_cancelled += 1
            raise
        codes = question.schema["required"] if question.schema else ()
        key = question.pictures[0].sha256
        text = json.dumps({code: (int(key[:4], 16) + 7 * n) % 101 for n, code in enumerate(codes)})
        return Reply(text, self.name, None, Usage(1, 1, 0.5), "stop", key)


def test_the_grids_of_a_latent_are_asked_together_and_their_answers_stay_in_order() -> None:
    model = Waiting(4)  # with fewer than four in flight nothing would ever be answered
    result = asyncio.run(
        asyncio.wait_for(score_latent(make_evidence(), explained(), VlmJudge(model), paint), 20)
    )
    one_by_one = score(VlmJudge(Waiting(1)))
    assert result == one_by_one
    assert len(set(result.calls)) == 4


def test_while_questions_wait_no_image_is_held() -> None:
    model = Waiting(4)

    def images(example: Example) -> Image.Image:
        image = paint(example)
        model.images.append(ref(image))
        return image

    score(VlmJudge(model), images=images)
    assert (model.n_asked, len(model.images)) == (4, 40)
    assert model.most_images == 0


def test_an_error_that_stops_the_run_ends_the_other_questions_of_the_latent() -> None:
    async def main(model: Waiting) -> int:
        with pytest.raises(UserError, match="no credit"):
            await score_latent(make_evidence(), explained(), VlmJudge(model), paint)
        return len(asyncio.all_tasks())

    model = Waiting(4, UserError("no credit"))
    assert asyncio.run(main(model)) == 1
    assert model.n_cancelled == 3


def test_a_cancelled_latent_leaves_no_question_behind() -> None:
    async def main(model: Waiting) -> int:
        task = asyncio.ensure_future(
            score_latent(make_evidence(), explained(), VlmJudge(model), paint)
        )
        while model.n_asked < 4:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return len(asyncio.all_tasks())

    model = Waiting(5)
    assert asyncio.run(main(model)) == 1
    assert model.n_cancelled == 4
