from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch

import sae.training.engines.triton
from sae.core.errors import UserError
from sae.model.sae import SAE
from sae.training.engines.choice import engine_for
from sae.training.engines.interface import Objective
from sae.training.engines.plain import PlainEngine
from tests.support.paths import BENCHMARKS, ROOT
from tests.support.sae.engine_pairs import mask, random_batches, random_model, twins

KERNELS = {"_encode", "_select", "_rescore", "_decode", "_keep"}
KERNELS |= {"_bias", "_partial", "_rows", "_vector"}
D, N_LATENTS, K, N = 768, 8192, 32, 2048
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own with one thread: Triton decides at its import what it is."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, check=False)


@needs_triton
@pytest.mark.parametrize("tier", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_the_engine_keeps_its_promises_under_the_interpreter(tier: str) -> None:
    file = "tests/support/sae/interpreted_triton.py"
    words = ("-m", "pytest", "-n0", "--noconftest", "-p", "no:cacheprovider", "-m", tier, file)
    done = run(*words, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@needs_triton
def test_every_kernel_compiles_for_a_hopper_gpu_and_fits_its_registers() -> None:
    done = run("-W", "ignore", "-m", "tests.support.sae.triton_compiled", TRITON_INTERPRET="0")
    assert done.returncode == 0, done.stderr
    kernels = [json.loads(line) for line in done.stdout.splitlines()]
    assert {kernel["kernel"] for kernel in kernels} == KERNELS
    assert [kernel for kernel in kernels if kernel["stack"]] == []
    assert max(kernel["shared"] for kernel in kernels) <= 227 << 10
    assert [kernel["kernel"] for kernel in kernels if kernel["wgmma"]] == ["_encode"]


@needs_triton
def test_the_engine_is_refused_without_a_gpu() -> None:
    model = random_model(d=8, n_latents=16, k=2)
    with pytest.raises(UserError, match=r"'triton' cannot do this: it needs a CUDA GPU .* 'cpu'"):
        engine_for(model, Objective(k_aux=4), "triton")


def test_auto_does_not_choose_the_engine_on_a_cpu() -> None:
    model = random_model(d=8, n_latents=16, k=2)
    assert engine_for(model, Objective(k_aux=4)).name != "triton"


def test_a_missing_triton_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    for name in [name for name in sys.modules if name.startswith("sae.training.engines.triton.")]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(sae.training.engines.triton, name.rpartition(".")[2])
    with pytest.raises(UserError, match="triton is not installed"):
        engine_for(random_model(d=8, n_latents=16, k=2), Objective(k_aux=4), "triton")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_the_table_of_parts_is_refused_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import train_parts

    monkeypatch.setattr(sys, "argv", ["train_parts.py"])
    assert train_parts.main() == 2
    assert capsys.readouterr().err == "train_parts measures a CUDA GPU, and there is none here\n"


def on_gpu() -> tuple[SAE, SAE]:
    ours, theirs = twins(random_model(D, N_LATENTS, K))
    return ours.cuda(), theirs.cuda()


def share_apart(ours: SAE, theirs: SAE) -> float:
    """Share of the weights that differ by more than 1e-5: a tie decided otherwise costs a few."""
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    apart = [(a - b).detach().abs().flatten() > 1e-5 for a, b in pairs]
    return float(torch.cat(apart).float().mean())


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "selection"])
@pytest.mark.parametrize("n_dead", [0, 300, 4000])
def test_steps_on_a_gpu_equal_the_plain_ones(precision: str, n_dead: int) -> None:
    from sae.training.engines.triton.engine import TritonEngine

    models, objective = on_gpu(), Objective(k_aux=D // 2)
    dead = mask(N_LATENTS, range(n_dead)).cuda()
    with torch.no_grad():
        for model in models:
            model.b_enc[5000] = 10.0  # fires on every token
            model.b_enc[:n_dead] = -10.0
    ours = TritonEngine(models[0], objective, precision=precision)
    theirs = PlainEngine(models[1], objective)
    for number, x in enumerate(random_batches(N, D, 3).cuda()):
        results = [e.step(x, k=K - number, lr=1e-3, dead=dead) for e in (ours, theirs)]
        for name in ("loss", "fvu", "aux", "l0"):
            a, b = (getattr(result, name) for result in results)
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)
        assert (results[0].fired != results[1].fired).float().mean() <= 1e-3
        assert share_apart(*models) <= 1e-3


@pytest.mark.cuda
def test_products_in_bfloat16_train_as_well_on_a_gpu() -> None:
    from sae.training.engines.triton.engine import TritonEngine

    models, objective = on_gpu(), Objective(k_aux=D // 2)
    dead = mask(N_LATENTS, range(300)).cuda()
    ours = TritonEngine(models[0], objective, precision="bfloat16")
    theirs = PlainEngine(models[1], objective)
    for x in random_batches(N, D, 20).cuda():
        results = [e.step(x, k=K, lr=1e-3, dead=dead) for e in (ours, theirs)]
    torch.testing.assert_close(results[0].fvu, results[1].fvu, rtol=0.01, atol=0)


@pytest.mark.cuda
def test_auto_chooses_the_engine_on_a_gpu() -> None:
    assert engine_for(on_gpu()[0], Objective(k_aux=4)).name == "triton"
    assert engine_for(on_gpu()[0], Objective(k_aux=4, dropout=0.1)).name == "plain"


@pytest.mark.cuda
def test_equal_steps_on_a_gpu_give_equal_bits() -> None:
    models, objective = on_gpu(), Objective(k_aux=D // 2)
    dead = mask(N_LATENTS, range(300)).cuda()
    engines = [engine_for(model, objective, "triton") for model in models]
    for x in random_batches(N, D, 3).cuda():
        for engine in engines:
            engine.step(x, k=K, lr=1e-3, dead=dead)
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in models), strict=True))


@pytest.mark.cuda
def test_a_cuda_graph_of_the_step_replays_what_the_step_does() -> None:
    from sae.training.engines.triton.engine import TritonEngine

    models, objective = on_gpu(), Objective(k_aux=D // 2)
    dead = mask(N_LATENTS, range(300)).cuda()
    graphed, eager = (TritonEngine(model, objective, max_dead=512) for model in models)
    batches = random_batches(N, D, 5).cuda()
    for x in batches[:2]:  # compiles, and fills the caches of the libraries
        for engine in (graphed, eager):
            engine.step(x, k=K, lr=1e-3, dead=dead)
    x, graph = batches[0].clone(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = graphed.advance(x, k=K, dead=dead)
    for number, batch in enumerate(batches[2:]):
        lr = 1e-3 * (number + 1)
        x.copy_(batch)
        graphed.prepare(lr)
        graph.replay()
        assert torch.equal(result.loss, eager.step(batch, k=K, lr=lr, dead=dead).loss)
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in models), strict=True))
