"""SAEs and runs that go to a fake hub, with words in them that must not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from sae.model.sae import SAE, SAEConfig
from tests.support.paths import ROOT

REPO = "ann/sketch-sae"
CANARY = "/home/canary/secret stuff/vit"
GALLERY = ROOT / "interp" / "report" / "gallery" / "page"
FIGURES = {"format": 1, "store": "0" * 16, "fvu": 0.25, "l0": 3.0, "n_images": 40, "r2": None}
DOMAINS = {"sketch/fvu": 0.2, "photo/fvu": 0.3, "sketch/dead": 0.5}


def saved(folder: Path, seed: int = 0, **settings: object) -> Path:
    torch.manual_seed(seed)
    made = SAE(SAEConfig(d=6, n_latents=12, k=3, **settings))  # type: ignore[arg-type]
    for value in made.parameters():
        torch.nn.init.normal_(value)
    made.mean.normal_()
    made.scale.fill_(2.5)
    made.save(folder)
    (folder / "eval.json").write_text(json.dumps(FIGURES | DOMAINS, indent=1) + "\n")
    return folder


def a_run(folder: Path, model: Path, canary: str = "") -> Path:
    """A run's folder as `interp cards` leaves it."""
    shutil.copytree(model, folder / "sae")
    (folder / "labels.csv").write_text(
        f"latent_id,interpretation\n0,and/or a wheel {canary}\n1,\n2,black/white/red\n"
    )
    (folder / "gallery" / "data").mkdir(parents=True)
    for name in ("index.html", "app.css", "app.js", "list.js"):
        shutil.copyfile(GALLERY / name, folder / "gallery" / name)
    call = json.dumps({"meta": {"clip": f"local-dir:{canary}"}})
    (folder / "gallery" / "data" / "index.js").write_text(f"G.index({call});\n")
    (folder / "gallery" / "thumbs" / "ab").mkdir(parents=True)
    (folder / "gallery" / "thumbs" / "ab" / "ab12.webp").write_bytes(b"RIFF\0\xff\xfe")
    (folder / "calls.sqlite").write_bytes(b"what was paid")
    (folder / "gallery" / ".secret").write_text("no")
    return folder
