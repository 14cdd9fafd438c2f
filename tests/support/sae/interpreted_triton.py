"""The Triton engine under Triton's interpreter, on the CPU. `test_triton.py` starts this in
a process of its own: TRITON_INTERPRET=1 must be set before anything imports Triton.
"""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sae.core.errors import UserError
from sae.training.engines import self_check
from sae.training.engines.choice import engine_for
from sae.training.engines.interface import Objective
from sae.training.engines.losses import LEAK
from sae.training.engines.plain import PlainEngine
from sae.training.engines.triton import select as selection
from sae.training.engines.triton.engine import LOW, TritonEngine
from sae.training.engines.triton.gradients import by_latent
from sae.training.engines.triton.ops import Encoded, Kept, Tiles, decode, encode, group_size
from sae.training.engines.triton.select import keep_strongest, rescore, select
from tests.support.paths import BENCHMARKS
from tests.support.sae.engine_pairs import (
    assert_same_result,
    assert_same_state,
    assert_same_steps,
    assert_same_weights,
    mask,
    random_batches,
    random_model,
    twins,
)

sys.path.append(str(BENCHMARKS))
from train_parts import Shape, parts

SMALL = Tiles(tokens=16, latents=32, depth=32, chunk=4)
D, N_LATENTS, K = 36, 44, 5
TINY = 20, 12, 2
"""Where the sizes mean nothing: the interpreter takes a second for each step of the larger one."""
OBJECTIVE = Objective(k_aux=3, alpha=0.5)


def encoded(pre: Tensor, group: int) -> Encoded:
    n_groups = -(-pre.shape[1] // group)
    padded = F.pad(pre, (0, n_groups * group - pre.shape[1]), value=-torch.inf)
    return Encoded(pre, padded.unflatten(1, (n_groups, group)).amax(2), group)


def assert_is_top(kept: Kept, pre: Tensor) -> None:
    k = kept.values.shape[1]
    top = torch.topk(pre, k, dim=1).values
    assert torch.equal(kept.values.sort(dim=1, descending=True).values, top)
    assert torch.equal(pre.gather(1, kept.latents.long()), kept.values)
    assert all(len(set(row)) == k for row in kept.latents.tolist())


@pytest.mark.parametrize(("n", "d", "n_latents"), [(5, 40, 70), (17, 32, 128)])
def test_encode_is_a_linear_layer_and_knows_each_groups_maximum(n, d, n_latents) -> None:
    x, W = random_batches(n, d, 1)[0], random_batches(n_latents, d, 1, seed=2)[0]
    b = torch.arange(n_latents) / 10
    b[-8:] = -50.0  # where the last group is not full, nothing may stand in for a latent
    found = encode(x, W, b, k=1, tiles=SMALL)
    torch.testing.assert_close(found.pre, F.linear(x, W, b))
    assert torch.equal(found.maxima, encoded(found.pre, found.group).maxima)


def test_group_size_balances_groups_and_candidates() -> None:
    assert [group_size(24_576, 40), group_size(4096, 128), group_size(64, 32)] == [32, 8, 4]


@pytest.mark.parametrize("k", [1, 3, 16, 17, 61, 62])
def test_select_takes_the_largest_at_every_k(k: int) -> None:
    pre = random_batches(3, 62, 1)[0]
    assert_is_top(select(encoded(pre, group=4), k), pre)


def test_select_keeps_ties_once_and_tells_signs() -> None:
    pre = torch.tensor(
        [
            [1.0] * 10,
            [0.0, -0.0, 2.0, 2.0, 2.0, 2.0, -3.0, 5.0, 5.0, 1.0],
            [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0, -9.0, -0.5],
            [-torch.inf, 1e-40, 3e38, -3e38, 0.0, 1e-30, torch.inf, 7.0, 7.0, 7.0],
        ]
    )
    kept = select(encoded(pre, group=4), 4)
    assert_is_top(kept, pre)
    assert kept.latents[0].tolist() == [0, 1, 2, 3]  # the first of equals


def test_select_of_rows_too_long_for_registers_is_the_same(monkeypatch) -> None:
    pre = random_batches(4, 62, 1)[0]
    by_counting = select(encoded(pre, group=4), 7)
    monkeypatch.setattr(selection, "MAX_KEYS", 32)
    by_sorting = select(encoded(pre, group=4), 7)
    assert torch.equal(by_counting.latents.sort().values, by_sorting.latents.sort().values)
    assert_is_top(by_sorting, pre)


def test_rescoring_corrects_order_and_values() -> None:
    x, W = random_batches(3, D, 1)[0], random_batches(20, D, 1, seed=2)[0]
    b, candidates = torch.arange(20) / 7, torch.tensor([[3, 19, 0, 7, 11, 2, 5]] * 3).int()
    kept = rescore(x, W, b, candidates, k=4)
    among = F.linear(x, W, b).gather(1, candidates.long())
    top = torch.topk(among, 4, dim=1)
    order = kept.values.argsort(dim=1, descending=True)
    torch.testing.assert_close(kept.values.gather(1, order), top.values)
    expected = candidates.long().gather(1, top.indices)
    assert torch.equal(kept.latents.long().gather(1, order), expected)


def test_decode_gives_the_residual_and_what_active_latents_pull() -> None:
    x, W = random_batches(3, 40, 1)[0], random_batches(9, 40, 1, seed=2)[0]
    latents = torch.tensor([[0, 8, 3], [1, 2, 3], [4, 5, 6]]).int()
    values = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0], [3.0, 2.0, 1.0]])
    found = decode(x, W, Kept(values, latents))
    residual = x - torch.einsum("nk,nkd->nd", values.relu(), W[latents.long()])
    torch.testing.assert_close(found.residual, residual)
    torch.testing.assert_close(found.squares, residual.square().sum(1))
    pulls = torch.einsum("nkd,nd->nk", W[latents.long()], residual) * (values > 0)
    torch.testing.assert_close(found.pulls, pulls)


@pytest.mark.parametrize("max_keys", [1 << 14, 4])
@pytest.mark.parametrize(("n_valid", "k"), [(11, 3), (6, 9), (11, 11), (1, 1), (0, 2)])
def test_auxk_keeps_the_strongest_dead_with_a_leak(n_valid, k, max_keys, monkeypatch) -> None:
    monkeypatch.setattr(selection, "MAX_KEYS", max_keys)
    pre = random_batches(4, 11, 1)[0]
    pre[0, 2] = 0.0
    acts, slopes = keep_strongest(pre, torch.tensor(n_valid, dtype=torch.int32), k)
    kept = torch.zeros_like(pre)
    top = torch.topk(pre[:, :n_valid], min(k, n_valid), dim=1).indices
    kept.scatter_(1, top, 1.0)
    assert torch.equal(acts, F.leaky_relu(pre, LEAK) * kept)
    assert torch.equal(slopes, torch.where(pre > 0, 1.0, LEAK) * kept)


def test_entries_are_sorted_by_latent_and_leave_out_what_is_not_active() -> None:
    acts = torch.tensor([[2.0, -1.0], [3.0, 1.0], [0.0, 4.0]])
    latents = torch.tensor([[4, 0], [1, 4], [2, 1]]).int()
    entries = by_latent(acts, latents, n_latents=5)
    assert entries.starts.tolist() == [0, 0, 2, 2, 2, 4]
    assert entries.order[:4].tolist() == [2, 5, 0, 3]


@pytest.mark.slow
def test_three_steps_equal_those_of_the_plain_engine() -> None:
    """With duplicates among the tokens, latents that never fire, one that fires on all of them
    (its entries fill whole chunks), dead latents of which only some are chosen, and k rising.
    """
    start = random_model(D, N_LATENTS, K)
    with torch.no_grad():
        start.b_enc[20:34] = -100.0
        start.b_enc[7] = 10.0
        start.W_enc[40], start.b_enc[40] = start.W_enc[41], start.b_enc[41]
    batches = random_batches(7, D, 3)
    batches[:, 4:6] = batches[:, :1]
    models = twins(start)
    ours = TritonEngine(models[0], OBJECTIVE, tiles=SMALL)
    dead = mask(N_LATENTS, [*range(20, 28), 43])
    theirs = PlainEngine(models[1], OBJECTIVE)
    assert_same_steps(ours, theirs, models, batches, dead, ks=[3, K, 8])


@pytest.mark.parametrize(
    "dead",
    [
        pytest.param(range(0), id="none", marks=pytest.mark.slow),
        pytest.param(range(N_LATENTS), id="all", marks=pytest.mark.slow),
        pytest.param(range(2), id="2"),
    ],
)
def test_a_step_equals_the_plain_one_whatever_is_dead(dead: range) -> None:
    models = twins(random_model(D, N_LATENTS, K))
    engines = TritonEngine(models[0], OBJECTIVE, tiles=SMALL), PlainEngine(models[1], OBJECTIVE)
    batch = random_batches(5, D, 1)
    assert_same_steps(*engines, models, batch, mask(N_LATENTS, dead), ks=[K])


def test_two_processes_with_a_part_each_equal_one_with_the_whole() -> None:
    """Both parts are the same here: the sum over processes is then twice one's own."""

    def reduce(tensors: list[Tensor]) -> None:
        for tensor in tensors:
            tensor.mul_(2)

    models, part = twins(random_model(*TINY)), random_batches(3, TINY[0], 1)[0]
    dead = mask(TINY[1], range(5))
    ours = TritonEngine(models[0], OBJECTIVE, tiles=SMALL, reduce=reduce)
    theirs = PlainEngine(models[1], OBJECTIVE)
    result = ours.step(part, k=TINY[2], lr=1e-3, dead=dead)
    whole = theirs.step(torch.cat([part, part]), k=TINY[2], lr=1e-3, dead=dead)
    assert_same_result(result, whole)
    assert_same_weights(*models)
    assert_same_state(ours, theirs)


def test_selection_in_fewer_bits_changes_nothing_but_rounding() -> None:
    models = twins(random_model(D, N_LATENTS, K))
    ours = TritonEngine(models[0], OBJECTIVE, tiles=SMALL, precision="selection")
    theirs = PlainEngine(models[1], OBJECTIVE)
    dead = mask(N_LATENTS, range(5))
    assert_same_steps(ours, theirs, models, random_batches(5, D, 1), dead, ks=[K])


@pytest.mark.slow
def test_copies_in_fewer_bits_follow_the_weights_whoever_changes_them() -> None:
    models = twins(random_model(*TINY))
    x, dead = random_batches(5, TINY[0], 1)[0], mask(TINY[1], range(5))
    ours = TritonEngine(models[0], OBJECTIVE, tiles=SMALL, precision="bfloat16")
    theirs = PlainEngine(models[1], OBJECTIVE)
    ours.step(x, k=TINY[2], lr=1e-3, dead=dead)
    for name, copy in ours._low.items():
        assert torch.equal(copy, getattr(models[0], name).to(LOW)), name
    models[0].load_state_dict(random_model(*TINY, seed=5).state_dict())
    models[1].load_state_dict(models[0].state_dict())
    results = [engine.step(x, k=TINY[2], lr=1e-3, dead=dead) for engine in (ours, theirs)]
    torch.testing.assert_close(results[0].fvu, results[1].fvu, rtol=0.01, atol=0)
    torch.testing.assert_close(results[0].aux, results[1].aux, rtol=0.01, atol=0)


def test_room_for_some_dead_latents_revives_the_first_of_them() -> None:
    models = twins(random_model(*TINY))
    ours = TritonEngine(models[0], OBJECTIVE, tiles=SMALL, max_dead=2)
    theirs = PlainEngine(models[1], OBJECTIVE)
    x = random_batches(5, TINY[0], 1)[0]
    results = (
        ours.step(x, k=TINY[2], lr=1e-3, dead=mask(TINY[1], [1, 5, 9])),
        theirs.step(x, k=TINY[2], lr=1e-3, dead=mask(TINY[1], [1, 5])),
    )
    assert_same_result(*results)
    assert_same_weights(*models)


def test_a_restored_engine_goes_on_bit_for_bit() -> None:
    model, batches = random_model(*TINY), random_batches(3, TINY[0], 2)
    dead = mask(TINY[1], [])
    engine = TritonEngine(model, OBJECTIVE, tiles=SMALL)
    engine.step(batches[0], k=TINY[2], lr=1e-3, dead=dead)
    again = twins(model)[0]
    restored = TritonEngine(again, OBJECTIVE, tiles=SMALL)
    restored.restore(engine.state())
    for e in (engine, restored):
        e.step(batches[1], k=TINY[2], lr=1e-3, dead=dead)
    for name, value in model.named_parameters():
        assert torch.equal(value, getattr(again, name)), name


def test_a_value_that_is_not_a_number_reaches_the_loss_and_the_weights() -> None:
    model = random_model(*TINY)
    with torch.no_grad():
        model.W_enc[3, 4] = torch.nan
    engine = TritonEngine(model, OBJECTIVE, tiles=SMALL)
    result = engine.step(
        random_batches(3, TINY[0], 1)[0], k=TINY[2], lr=1e-3, dead=mask(TINY[1], [])
    )
    assert result.loss.isnan()
    assert model.W_dec.isnan().any()


def test_the_backend_can_be_forced_where_the_interpreter_is_on() -> None:
    model = random_model(D, N_LATENTS, K)
    assert engine_for(model, OBJECTIVE, "triton").name == "triton"
    with pytest.raises(UserError, match="does not know dropout"):
        engine_for(model, Objective(k_aux=3, dropout=0.1), "triton")
    with pytest.raises(UserError, match="float32 weights"):
        engine_for(model.double(), OBJECTIVE, "triton")


@pytest.mark.slow
def test_the_engine_passes_its_rehearsal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "N_TOKENS", 5)
    monkeypatch.setattr(self_check, "N_STEPS", 2)
    assert self_check.obstacle(TritonEngine, random_model(*TINY), OBJECTIVE) == ""


@pytest.mark.slow
def test_every_part_of_the_benchmark_runs() -> None:
    shape = Shape(n=2, d=16, n_latents=12, k=2, n_dead=3)
    names = [part.name for part in parts(shape, "cpu") if part.run() is not NotImplemented]
    assert names[:2] == ["floor", "encode"]
    assert {"select", "decode", "rows", "step_selection", "step_plain"} <= set(names)
