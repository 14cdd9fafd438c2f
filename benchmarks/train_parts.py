"""Where the time of a Triton training step goes on a GPU, against what the encode product costs.

    python benchmarks/train_parts.py --json parts.json

Every line is the median of many runs of one part on the same random data, with the L2 cache cleared
before each. The floor is the dense product alone, as cuBLAS does it; the table ends with whole
steps. Without a CUDA GPU there is nothing to measure.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.model.sae import SAE, SAEConfig
from sae.training.engines.choice import engine_for
from sae.training.engines.interface import Objective

if TYPE_CHECKING:
    from sae.training.engines.triton.ops import Kept

_LR = 1e-4


class Shape(NamedTuple):
    """The sizes of a step."""

    n: int = 8192
    """Tokens."""
    d: int = 768
    n_latents: int = 24_576
    k: int = 32
    n_dead: int = 1000
    """Dead latents in the steps with AuxK."""


class Part(NamedTuple):
    name: str
    """Also the key in the JSON file."""
    label: str
    run: Callable[[], object]


class Timed(NamedTuple):
    name: str
    label: str
    ms: float


def main() -> int:
    """Measure, print a table, and write it as JSON when asked to."""
    given = _options().parse_args()
    if not torch.cuda.is_available():
        print("train_parts measures a CUDA GPU, and there is none here", file=sys.stderr)
        return 2
    import triton

    shape = Shape(*(getattr(given, name) for name in Shape._fields))
    found = []
    for part in parts(shape, "cuda"):
        found.append(Timed(part.name, part.label, _milliseconds(part.run, given.repeat)))
    print(table(found))
    if given.json is not None:
        where = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
        flat = {**shape._asdict(), **where, "triton": triton.__version__}
        flat |= {f"{timed.name}_ms": timed.ms for timed in found}
        given.json.write_text(json.dumps(flat, indent=1) + "\n", encoding="utf-8")
    return 0


def parts(shape: Shape, device: str) -> Iterator[Part]:
    """The kernels one by one in the order of a step, then whole steps."""
    model = _model(shape).to(device)
    x = torch.randn(shape.n, shape.d, device=device)
    yield from _kernels(copy.deepcopy(model), x, shape.k)
    yield from _steps(model, x, shape)


def table(found: Sequence[Timed]) -> str:
    """Milliseconds, and how many times those of the first line."""
    lines = [f"{'':44}{'ms':>10}{'x floor':>10}"]
    lines += [f"{label:44}{ms:>10.3f}{ms / found[0].ms:>10.2f}" for _, label, ms in found]
    return "\n".join(lines)


def _kernels(model: SAE, x: Tensor, k: int) -> Iterator[Part]:
    from sae.training.engines.triton import ops
    from sae.training.engines.triton.engine import LOW, MARGIN, TritonEngine
    from sae.training.engines.triton.select import rescore, select

    W_enc, W_dec, b_enc = (getattr(model, name).detach() for name in ("W_enc", "W_dec", "b_enc"))
    tiles = TritonEngine(model, Objective(k_aux=1), precision="selection").tiles
    low, W_low, c = x.to(LOW), W_enc.to(LOW), min(k + MARGIN, len(b_enc))

    def encode() -> ops.Encoded:
        return ops.encode(low, W_low, b_enc, c, tiles)

    encoded = encode()
    wide = F.pad(W_low, (0, 0, 0, -len(b_enc) % encoded.group))

    def encode_apart() -> Tensor:
        return (low @ wide.T).unflatten(1, (-1, encoded.group)).amax(2)

    yield Part("floor", "encode product alone (floor)", lambda: low @ W_low.T)
    yield Part("encode", "encode + group maxima", encode)
    yield Part("encode_apart", "  instead: product, then maxima", encode_apart)
    yield Part("select", f"select k + {MARGIN}", lambda: select(encoded, c))
    yield Part("topk", "  instead: torch.topk", lambda: torch.topk(encoded.pre, c, sorted=False))
    candidates = select(encoded, c).latents
    kept = rescore(x, W_enc, b_enc, candidates, k)
    yield Part("rescore", "rescore", lambda: rescore(x, W_enc, b_enc, candidates, k))
    label = "decode + residual + sampled products"
    yield Part("decode", label, lambda: ops.decode(x, W_dec, kept))
    yield from _gradients(model, x, kept, W_low, tiles.chunk)


def _gradients(model: SAE, x: Tensor, kept: Kept, W_low: Tensor, chunk: int) -> Iterator[Part]:
    from sae.training.engines.triton.gradients import Entries, Pulled, bias_gradient, by_latent
    from sae.training.engines.triton.ops import decode
    from sae.training.engines.triton.rows import Moments, Rows, step_rows

    W_enc, W_dec = model.W_enc.detach(), model.W_dec.detach()
    decoded = decode(x, W_dec, kept)
    scale = x.new_full((), -1 / x.numel())
    pulled = Pulled(x, decoded.residual, kept.values, decoded.pulls, scale)
    zeros = [Moments(torch.zeros_like(W_enc), torch.zeros_like(W_enc)) for _ in range(2)]
    rows = Rows(W_enc, W_dec, *zeros, W_low, None)
    hyper = torch.tensor([_LR, 0.1, 0.001], device=x.device)

    def sort() -> Entries:
        return by_latent(kept.values, kept.latents, model.n_latents)

    entries = sort()
    yield Part("sort", "sort entries by latent", sort)
    yield Part("bias", "bias gradients", lambda: bias_gradient(entries, pulled, None) @ W_enc)
    label = "both gradients + Adam + unit rows"
    yield Part("rows", label, lambda: step_rows(rows, entries, pulled, None, hyper, chunk))


def _steps(start: SAE, x: Tensor, shape: Shape) -> Iterator[Part]:
    from sae.training.engines.triton.engine import TritonEngine

    objective = Objective(k_aux=max(1, shape.d // 2))
    none = torch.zeros(shape.n_latents, dtype=torch.bool, device=x.device)
    some = none.clone()
    some[: shape.n_dead] = True
    for precision in ("selection", "bfloat16"):
        engine = TritonEngine(copy.deepcopy(start), objective, precision=precision)
        for dead, name, label in (
            (none, "", ""),
            (some, "_auxk", f" with {shape.n_dead} dead"),
        ):
            yield Part(
                f"step_{precision}{name}",
                f"step, {precision}{label}",
                lambda e=engine, dead=dead: e.step(x, k=shape.k, lr=_LR, dead=dead),  # type: ignore[misc]
            )
    if x.is_cuda:
        yield Part("graph", "step, selection, as a CUDA graph", _graphed(start, x, shape, none))
    for backend in ("sparse", "plain"):
        other = engine_for(copy.deepcopy(start), objective, backend)
        yield Part(
            f"step_{backend}",
            f"step of the {backend} engine",
            lambda e=other: e.step(x, k=shape.k, lr=_LR, dead=none),  # type: ignore[misc]
        )


def _graphed(start: SAE, x: Tensor, shape: Shape, dead: Tensor) -> Callable[[], object]:
    """A step in one CUDA graph; AuxK's block is there, with room for 64 dead."""
    from sae.training.engines.triton.engine import TritonEngine

    engine = TritonEngine(copy.deepcopy(start), Objective(k_aux=64), max_dead=64)
    for _ in range(3):
        engine.step(x, k=shape.k, lr=_LR, dead=dead)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        engine.advance(x, k=shape.k, dead=dead)

    def replay() -> None:
        engine.prepare(_LR)
        graph.replay()

    return replay


def _model(shape: Shape) -> SAE:
    generator = torch.Generator().manual_seed(0)
    model = SAE(SAEConfig(d=shape.d, n_latents=shape.n_latents, k=shape.k))
    rows = torch.randn(shape.n_latents, shape.d, generator=generator)
    with torch.no_grad():
        model.W_dec.copy_(F.normalize(rows, dim=1))
        model.W_enc.copy_(model.W_dec)
    return model


def _milliseconds(run: Callable[[], object], repeat: int) -> float:
    """Median time on the GPU; `repeat` is how long to measure, in milliseconds."""
    from triton.testing import do_bench

    return float(do_bench(run, warmup=repeat // 4, rep=repeat, return_mode="median"))


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for name, value in Shape()._asdict().items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--repeat", type=int, default=400, help="milliseconds for each line")
    parser.add_argument("--json", type=Path, default=None, help="write the figures there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
