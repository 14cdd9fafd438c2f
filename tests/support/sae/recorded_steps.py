"""Training by the command line, with the state before and after every step kept, or compared.

Two runs of the same training part for good once a rounding error turns one choice (which latents a
token keeps): whether it does depends on the processor. From equal states they can be compared.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sae.__main__ import main
from sae.training.engines.interface import StepResult
from sae.training.loop import Trainer


def record(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The training that follows leaves the states of its steps in `folder`."""
    folder.mkdir()
    step = Trainer.step

    def recorded(self: Trainer, x: Tensor, *more: Any) -> StepResult:
        before, n_done = _state_of(self), self.n_done
        result = step(self, x, *more)
        torch.save((before, _state_of(self), list(result)), folder / f"{n_done}.pt")
        return result

    monkeypatch.setattr(Trainer, "step", recorded)


def compare(monkeypatch: pytest.MonkeyPatch, folder: Path, out: Path) -> None:
    """Each step that follows starts from a recorded state; how far it ends from the record is kept.

    `out` gets one object a step: the largest difference of any weight, and of any figure.
    """
    step = Trainer.step

    def compared(self: Trainer, x: Tensor, *more: Any) -> StepResult:
        before, after, figures = torch.load(folder / f"{self.n_done}.pt", weights_only=True)
        self.model.load_state_dict(before["model"])
        self.restore(before["trainer"])
        result = step(self, x, *more)
        now = _state_of(self)
        far = {
            "weights": max(
                _distance(now["model"][name], after["model"][name]) for name in after["model"]
            ),
            "figures": max(
                _distance(*pair)
                for pair in zip(result, figures, strict=True)
                if pair != (None, None)
            ),
        }
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(far) + "\n")
        return result

    monkeypatch.setattr(Trainer, "step", compared)


def compare_rank(states: Path, differences: Path, rank: int) -> None:
    """`compare` in a process that ends with this training; one file of differences a rank."""
    compare(pytest.MonkeyPatch(), states, Path(f"{differences}.{rank}"))


def _state_of(trainer: Trainer) -> dict[str, dict[str, Tensor]]:
    state = {"model": trainer.model.state_dict(), "trainer": trainer.state()}
    return {of: {name: value.clone() for name, value in s.items()} for of, s in state.items()}


def _distance(a: Any, b: Any) -> float:
    return float((torch.as_tensor(a).double() - torch.as_tensor(b).double()).abs().max())


if __name__ == "__main__":
    states, differences, *words = sys.argv[1:]
    compare_rank(Path(states), Path(differences), int(os.environ["RANK"]))
    sys.argv = ["sae", *words]
    sys.exit(main())
