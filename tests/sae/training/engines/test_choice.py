"""Which engine trains what, and which is refused why."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from sae.core.errors import UserError
from sae.training.engines.choice import engine_for
from sae.training.engines.interface import Objective
from sae.training.engines.sparse.engine import SparseEngine
from tests.support.sae.sparse_steps import N_LATENTS, untrained


def test_the_sparse_engine_is_chosen_where_it_can_and_the_plain_one_elsewhere() -> None:
    usual = Objective(k_aux=4)
    assert engine_for(untrained(), usual).name == "sparse"
    assert engine_for(untrained(activation="batch_topk"), usual).name == "sparse"
    assert engine_for(untrained(activation="jumprelu"), usual).name == "plain"
    assert engine_for(untrained(), Objective(k_aux=4, dropout=0.1)).name == "plain"
    assert engine_for(untrained(), usual, backend="plain").name == "plain"


@pytest.mark.parametrize(
    ("activation", "changes", "backend", "message"),
    [
        ("relu", {}, "sparse", "knows the activations 'topk' and 'batch_topk', not 'relu'"),
        ("topk", {"multi_k": 4}, "sparse", "does not know multi_k"),
        ("topk", {"ghost": "ttt"}, "sparse", "does not know ghost"),
        ("topk", {"prefixes": (8, N_LATENTS)}, "sparse", "does not know prefixes"),
        ("topk", {}, "fast", "backend 'fast' is not known; known: auto, plain, sparse, triton"),
    ],
)
def test_a_forced_backend_that_cannot_do_it_says_why(
    activation: str, changes: dict[str, Any], backend: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        engine_for(untrained(activation=activation), Objective(k_aux=4, **changes), backend)


def test_weights_in_double_precision_are_left_to_the_plain_engine() -> None:
    assert engine_for(untrained().double(), Objective(k_aux=4)).name == "plain"


@pytest.mark.parametrize(
    ("activation", "selection", "message"),
    [("topk", "float16", "is none of"), ("batch_topk", "bfloat16", "selects in float32 only")],
)
def test_a_selection_that_is_not_there_is_refused(
    activation: str, selection: Literal["bfloat16"], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SparseEngine(untrained(activation=activation), Objective(k_aux=4), selection=selection)
