"""What the gallery of a large run costs: building it, and using it in a browser.

    OMP_NUM_THREADS=1 python benchmarks/gallery.py work/gallery --json gallery.json

Makes a run of 24,576 latents, 2.7 million examples and 12,000 images (`gallery_run.py`), builds its
gallery, and opens that from the disk in headless Chromium. README.md says what was measured.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import time
from pathlib import Path
from statistics import median
from typing import Any

import interp.report.gallery.build as build
import interp.report.gallery.shards as shards
from interp.evidence.reader import EvidenceReader
from interp.report.gallery.shown import ShownReader
from interp.report.gallery.thumbs import Thumbs
from interp.run.results import Results
from interp.run.run import Run

PARTS = (
    *((build, name) for name in ("find_places", "find_related", "_read_known", "make_overview")),
    *((shards, name) for name in ("make_facts", "to_text", "write_script", "make_row")),
    (shards._Cards, "write"),
    (Thumbs, "ensure"),
    (EvidenceReader, "stats"),
    (ShownReader, "of"),
    (Results, "read_verdicts"),
)
WORDS = ("g", "gr", "gra", "gras", "grass")
CARD = """(at) => new Promise((done) => {
  const start = performance.now();
  location.hash = `#/${at}`;
  const look = () => (document.body.dataset.shown === String(at)
    ? requestAnimationFrame(() => done(performance.now() - start)) : requestAnimationFrame(look));
  look();
})"""
USABLE = """new MutationObserver((_, watch) => {
  if (!document.querySelector('.row')) return;
  watch.disconnect();
  requestAnimationFrame(() => { window.usable = performance.now(); });
}).observe(document, { childList: true, subtree: true });"""
"""When the list's rows are drawn, by the page's own clock: the answer to a question from outside
comes later, the more the more else is at work."""
KEY = """(words) => {
  const field = document.getElementById('query');
  field.value = words;
  const start = performance.now();
  field.dispatchEvent(new Event('input'));
  document.body.offsetHeight;
  return performance.now() - start;
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latents", type=int, default=24576)
    parser.add_argument("--images", type=int, default=12000)
    parser.add_argument("--d", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    run = asked.folder / "run"
    if not (run / "scores.jsonl").exists():
        from gallery_run import write_run  # brings torch: build again for the peak memory

        write_run(asked.folder, asked.latents, asked.images, asked.d)
    shutil.rmtree(run / "gallery", ignore_errors=True)
    figures = {**time_build(run), **time_page(run / "gallery/index.html", asked)}
    text = json.dumps(figures, indent=1)
    print(text)
    if asked.json:
        asked.json.write_text(text + "\n")


def time_build(run: Path) -> dict[str, Any]:
    """CPU seconds, also by part (one may hold another); peak memory; size of the index."""
    spent: dict[str, float] = {}
    for owner, name in PARTS:
        _time(owner, name, spent)
    cpu, wall = time.process_time(), time.perf_counter()
    build.build_gallery(Run(run))
    return {
        "cpu_s": round(time.process_time() - cpu, 1),
        "wall_s": round(time.perf_counter() - wall, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "index_mb": round((run / "gallery/data/index.js").stat().st_size / 1e6, 2),
        "parts_cpu_s": {name: round(seconds, 1) for name, seconds in spent.items()},
    }


def _time(owner: Any, name: str, spent: dict[str, float]) -> None:
    inner = getattr(owner, name)

    def timed(*args: Any, **options: Any) -> Any:
        start = time.process_time()
        result = inner(*args, **options)
        spent[name] = spent.get(name, 0.0) + time.process_time() - start
        return result

    setattr(owner, name, timed)


def time_page(page_file: Path, asked: argparse.Namespace) -> dict[str, float]:
    """Medians over fresh browsers: ms to list and card, of the slowest key; MB of heap."""
    from playwright.sync_api import sync_playwright

    found: dict[str, list[float]] = {"usable_ms": [], "card_ms": [], "key_ms": [], "heap_mb": []}
    flags = ["--no-sandbox", "--disable-gpu", "--enable-precise-memory-info"]
    with sync_playwright() as playwright:
        for repeat in range(asked.repeats):
            path = shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=path, args=flags)
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.add_init_script(USABLE)
            page.goto(page_file.as_uri(), wait_until="commit")
            page.wait_for_selector(".row")
            page.wait_for_timeout(1500)
            found["usable_ms"].append(page.evaluate("window.usable"))
            found["card_ms"].append(page.evaluate(CARD, (repeat * 7919 + 13) % asked.latents))
            found["key_ms"].append(max(page.evaluate(KEY, word) for word in WORDS))
            heap = page.evaluate("performance.memory.usedJSHeapSize")
            found["heap_mb"].append(heap / 1e6)
            browser.close()
    return {name: round(median(values), 1) for name, values in found.items()}


if __name__ == "__main__":
    main()
