"""A run of many kinds of latents, some with hostile text, and what its gallery holds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from interp.records.types import Evidence
from tests.support.interp import synthetic_run as synthetic

N_LATENTS = 70  # more than one shard
DEAD, FAILED, UNREACHED, UNSCORED, STALE, DENSE = 3, 4, 5, 6, 7, 8
XSS = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<!--<script>alert(1)",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    '" autofocus onfocus="alert(1)',
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<a href=javascript:alert(1)>x</a>",
    "<style>@import 'http://example.org/x'</style>",
    "<link rel=stylesheet href=http://example.org/x>",
    "<meta http-equiv=refresh content='0;url=http://example.org'>",
    "<base href=http://example.org/>",
    "]]><script>alert(1)</script>",
    "\\u003cscript>alert(1)\\u003c/script>",
    "\u2028alert(1)\u2029",
    "\u202egnp.exe",
    "`${alert(1)}`",
    "{{constructor.constructor('alert(1)')()}}",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "*/alert(1)/*",
    "\\');alert(1);//",
    "__proto__",
    "<math><mi//xlink:href='data:x,<script>alert(1)</script>'>",
)


def label_of(latent: int) -> str:
    return XSS[latent - 20] if 20 <= latent < 20 + len(XSS) else f"wheel number {latent}"


def hostile(one: Evidence, payload: str) -> Evidence:
    """The payload as every class name; file names stay true, so that the images load."""
    stats = dataclasses.replace(one.stats, top_classes=((payload, 3),))
    examples = tuple(dataclasses.replace(e, label=payload) for e in one.examples[::8])
    return Evidence(stats, examples)


def index_of(run: Path) -> dict[str, Any]:
    """data/index.js with its columns as the page sees them: a value a latent."""
    text = (run / "gallery/data/index.js").read_text("ascii")
    assert text.startswith("G.index(")
    assert text.endswith(");\n")
    columns: dict[str, Any] = json.loads(text[8:-3])
    for name in ("state", "status", "failure", "supported", "transfer"):
        if name in columns:
            names, codes = columns[name]["names"], columns[name]["codes"]
            columns[name] = [names[int(code, 36)] for code in codes]
    return columns


def cards_of(run: Path) -> list[dict[str, Any]]:
    cards = []
    for k, path in enumerate(sorted((run / "gallery/data").glob("c*.js"))):
        text = path.read_text("ascii")
        assert text.startswith(f"G.shard({k},")
        cards += json.loads(text[len(f"G.shard({k},") : -3])
    return cards


def small_run(tmp_path: Path, **options: Any) -> Path:
    domains = options.pop("domains", ("sketch", "photo"))
    painter = options.pop("painter", synthetic.paint)
    images = synthetic.make_images(tmp_path / "images", domains, 6, painter)
    change = options.pop("change", lambda one: one)
    evidence = [*map(change, synthetic.make_evidence(tmp_path / "images", images, 2, **options))]
    grid = options.get("grid", ())
    said = [synthetic.explanation(i, f"label {i}") for i in range(2)]
    scores = [synthetic.scored(one, f"label {i}") for i, one in enumerate(evidence)]
    run = tmp_path / "results/small"
    return synthetic.write_run(run, tmp_path / "images", images, evidence, said, scores, grid)
