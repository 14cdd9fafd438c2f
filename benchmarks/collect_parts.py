"""What `interp collect` needs beside the latents of tokens -> CPU seconds, on one thread.

`python -m benchmarks.collect_parts`, from the repository: random vectors, untrained SAEs.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from interp.evidence.collect import collect
from interp.evidence.config import CollectConfig
from sae.model.init import start
from sae.model.sae import SAEConfig
from sae.planning.roads import SECONDS_A_KEPT, SECONDS_A_LATENT
from tests.support.sae.stores import write_store

CASES = (  # images, tokens, width, latents, k
    (16_000, 1, 256, 2_048, 32),
    (4_000, 1, 256, 8_192, 32),
    (16_000, 1, 256, 8_192, 32),
    (1_000, 49, 128, 4_096, 16),
    (4_000, 49, 128, 4_096, 16),
    (4_000, 49, 256, 4_096, 16),
    (4_000, 1, 768, 24_576, 32),
)


def main() -> None:
    torch.set_num_threads(1)
    print("images tokens latents k: latents alone, collect, what the plan says is between them")
    for n, t, d, n_latents, k in CASES:
        with tempfile.TemporaryDirectory() as folder:
            store = write_store(Path(folder) / "store", torch.randn(n, t, d), dtype="float16")
            model = start(SAEConfig(d=d, n_latents=n_latents, k=k), torch.randn(2_048, d))
            x = torch.randn(1_024, d)
            with torch.inference_mode():
                model.encode(x)
                began = time.process_time()
                model.encode(x)
                alone = (time.process_time() - began) / len(x) * n * t
            began = time.process_time()
            collect(store, model, Path(folder) / "run", CollectConfig(no_groups=True))
            spent = time.process_time() - began
        told = n * t * k * SECONDS_A_KEPT + n_latents * SECONDS_A_LATENT
        print(f"{n} {t} {n_latents} {k}: {alone:.1f} {spent:.1f} {told:.1f}", flush=True)


if __name__ == "__main__":
    main()
