"""Compile every kernel for a Hopper GPU, as the Triton engine launches it, on a machine without
one: the interpreter accepts more than the compiler does. `test_triton_engine.py` starts this in a
process of its own; it prints a line of JSON for each kernel.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from sae.training.engines.interface import Objective
from sae.training.engines.triton import engine as room
from sae.training.engines.triton.ops import Tiles
from tests.support.sae.engine_pairs import mask, random_batches, random_model

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
D, N_LATENTS, K = 768, 24_576, 32


class Hopper:
    """As much of a driver as compiling asks for."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def stack_bytes(cubin: bytes) -> int:
    """Bytes of local memory per thread: 0 where all fits into registers."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        words = [CUOBJDUMP, "-res-usage", file.name]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = re.search(r"STACK:(\d+)", done.stdout + done.stderr)
    assert found is not None
    return int(found[1])


def main() -> None:
    driver.set_active(Hopper())
    launch, seen = JITFunction.run, set()

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = launch(self, *args, grid=grid, warmup=True, **options)
        if kernel.hash not in seen:
            seen.add(kernel.hash)
            line = {
                "kernel": self.__name__,
                "shared": kernel.metadata.shared,
                "stack": stack_bytes(kernel.asm["cubin"]),
                "wgmma": "wgmma" in kernel.asm["ptx"],
            }
            print(json.dumps(line), flush=True)
        return kernel

    JITFunction.run = compile_only
    room.INTERPRETED = True  # takes a model on the CPU
    x, dead = random_batches(16, D, 1)[0], mask(N_LATENTS, range(100))
    for reduce in (None, lambda tensors: None):
        engine = room.TritonEngine(
            random_model(D, N_LATENTS, K),
            Objective(k_aux=D // 2),
            reduce=reduce,
            precision="selection",
            tiles=Tiles(),
        )
        engine.step(x, k=K, lr=1e-3, dead=dead)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
