from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sae.core.errors import Notice
from sae.training.engines import self_check
from sae.training.engines.interface import Objective, StepResult
from sae.training.engines.plain import PlainEngine
from sae.training.engines.sparse.engine import SparseEngine
from tests.support.sae.engine_pairs import random_model

pytest.importorskip("triton")
MODEL, OBJECTIVE = random_model(d=24, n_latents=96, k=4), Objective(k_aux=8)


class Hasty(PlainEngine):
    """Goes too far."""

    def step(self, x: Tensor, *, k: int, lr: float, dead: Tensor) -> StepResult:
        return super().step(x, k=k, lr=1.2 * lr, dead=dead)


class Forgetful(PlainEngine):
    """Never revives the dead."""

    def step(self, x: Tensor, *, k: int, lr: float, dead: Tensor) -> StepResult:
        return super().step(x, k=k, lr=lr, dead=torch.zeros_like(dead))


class Broken(PlainEngine):
    def step(self, x: Tensor, *, k: int, lr: float, dead: Tensor) -> StepResult:
        result = super().step(x, k=k, lr=lr, dead=dead)
        with torch.no_grad():
            self.model.W_dec[0, 0] = torch.nan
        return result


class Crashing(PlainEngine):
    def step(self, x: Tensor, *, k: int, lr: float, dead: Tensor) -> StepResult:
        raise RuntimeError("out of resource: shared memory\nHardware limit: 1")


@pytest.mark.parametrize("engine", [PlainEngine, SparseEngine])
def test_an_engine_that_is_right_has_no_obstacle(engine: type) -> None:
    before = {name: value.clone() for name, value in MODEL.state_dict().items()}
    assert self_check.obstacle(engine, MODEL, OBJECTIVE) == ""
    assert all(torch.equal(before[name], value) for name, value in MODEL.state_dict().items())


@pytest.mark.parametrize("engine", [Hasty, Forgetful, Broken])
def test_an_engine_that_is_wrong_is_found_out(engine: type) -> None:
    assert "of their way from the plain" in self_check.obstacle(engine, MODEL, OBJECTIVE)


def test_an_engine_that_fails_is_said_in_one_line() -> None:
    found = self_check.obstacle(Crashing, MODEL, OBJECTIVE)
    assert found == "it fails here (out of resource: shared memory)"


def test_wide_models_are_rehearsed_small() -> None:
    sizes = []

    class Noted(PlainEngine):
        def __init__(self, model, objective) -> None:
            sizes.append(model.n_latents)
            super().__init__(model, objective)

    wide = random_model(d=8, n_latents=self_check.MAX_LATENTS + 8, k=2)
    assert self_check.obstacle(Noted, wide, OBJECTIVE) == ""
    assert sizes == [self_check.MAX_LATENTS]


def test_one_process_that_fails_keeps_all_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def reduce(tensors: list[Tensor]) -> None:  # another process had no obstacle
        tensors[0].add_(0)

    monkeypatch.setattr(self_check, "obstacle", lambda *_: "")
    assert self_check.rehearse(PlainEngine, MODEL, OBJECTIVE, reduce)
    assert not self_check.rehearse(
        PlainEngine, MODEL, OBJECTIVE, lambda tensors: tensors[0].add_(1)
    )
    monkeypatch.setattr(self_check, "obstacle", lambda *_: "it fails here")
    with pytest.warns(Notice, match="Triton engine is not used: it fails here"):
        assert not self_check.rehearse(PlainEngine, MODEL, OBJECTIVE, reduce)
