"""README.md, docs/ and the other guides: what they name is there, and what is there they name."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from interp.evidence.config import CollectInfo
from interp.records.types import Example, Explanation, LatentStats, Score, Verdict
from interp.report.labels import COLUMNS
from interp.run.run import RunInfo
from sae.data.store_format import ImageRow, Skipped, StoreInfo
from sae.data.store_writer import Plan
from sae.evaluation.reconstruction import Fit
from sae.evaluation.zeroshot import ZeroShot
from sae.model.sae import SAEConfig
from sae.steering.edit.report import EditReport
from sae.steering.generate.report import GenerateReport
from sae.steering.probe import ProbeInfo
from sae.steering.segment.report import Change, Result, SegmentReport
from sae.training.checkpoint import CheckpointInfo
from sae.training.loop import TrainRow
from sae.training.lr_search import LrChoice
from sae.world.write import WorldInfo
from tests.support.paths import ROOT

PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")]
    if path.name != "cli.md"  # written by a script
)
FILES_NAMED_LIKE_MODULES = {"sae.safetensors"}
MOVED_AWAY = "| was | is |"
"""Head of the CHANGELOG's table of module paths: its left column is of things that are gone."""


def _place(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_docs_cli_says_what_the_commands_say() -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate_cli.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_readme_is_short_and_has_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.encode()) <= 6500
    assert "pip install -e . && interp demo" in text
    assert "pip install -e '.[dev]' && pytest" in text


@pytest.mark.parametrize("page", PAGES, ids=_place)
def test_lines_of_prose_can_be_read_without_scrolling(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > 130] == []


@pytest.mark.parametrize("page", PAGES, ids=_place)
def test_every_module_named_in_a_guide_exists(page: Path) -> None:
    text = _without_moved(page.read_text(encoding="utf-8"))
    named = set(re.findall(r"`(?:python -m |torchrun -m )?((?:sae|interp|tests)(?:\.\w+)+)", text))
    named -= FILES_NAMED_LIKE_MODULES
    assert [name for name in sorted(named) if not _exists(name)] == []


@pytest.mark.parametrize("page", PAGES, ids=_place)
def test_every_file_named_in_a_guide_exists(page: Path) -> None:
    text = _without_moved(page.read_text(encoding="utf-8"))
    here = r"`((?:sae|interp|tests|docs|benchmarks|prompts)/[\w./]*)`"
    files = [ROOT / name for name in re.findall(here, text)]
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", text)
    files += [page.parent / name for name in links]
    assert [str(path) for path in files if not path.exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=_place)
def test_every_heading_that_a_guide_links_to_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name, anchor in re.findall(r"\]\(([^):#]*)#([^)]+)\)", text):
        target = (page.parent / name) if name else page
        headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in [_anchor(heading) for heading in headings], f"{name}#{anchor}"


@pytest.mark.parametrize(
    ("heading", "record"),
    [
        ("world.json", WorldInfo),
        ("store.json", StoreInfo),
        ("images.parquet", ImageRow),
        ("skipped.csv", Skipped),
        ("plan.json", Plan),
        ("config.json", SAEConfig),
        ("train.jsonl", TrainRow),
        ("lr.json", LrChoice),
        ("checkpoints/", CheckpointInfo),
        ("eval.json", Fit),
        ("eval.json", ZeroShot),
        ("probe.json", ProbeInfo),
        ("edit.json", EditReport),
        ("generate.json", GenerateReport),
        ("results.csv", Result),
        ("changes.csv", Change),
        ("segment.json", SegmentReport),
        ("run.json", RunInfo),
        ("collect/collect.json", CollectInfo),
        ("collect/latents.parquet", LatentStats),
        ("collect/examples.parquet", Example),
        ("explanations.jsonl", Explanation),
        ("scores.jsonl", Score),
        ("scores.jsonl", Verdict),
    ],
)
def test_docs_formats_names_every_field(heading: str, record: Any) -> None:
    fields = getattr(record, "_fields", None) or [f.name for f in dataclasses.fields(record)]
    section = _section(heading)
    assert [name for name in fields if not re.search(rf"\b{name}\b", section)] == []


def test_docs_formats_names_every_column_of_labels_csv() -> None:
    named = [column for column in COLUMNS if f"`{column}`" in _section("labels.csv")]
    first, last = (
        COLUMNS.index("auroc"),
        COLUMNS.index("n_missing"),
    )  # said as "auroc ... n_missing"
    assert named == [c for i, c in enumerate(COLUMNS) if not first < i < last]


def _section(heading: str) -> str:
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    return text.split(f"\n### {heading}\n", 1)[1].split("\n##", 1)[0]


def _without_moved(text: str) -> str:
    before, found, after = text.partition(MOVED_AWAY)
    if not found:
        return text
    rows = [line for line in after.splitlines() if line.startswith("| `")]
    return before + "\n".join(row.split("|")[2] for row in rows)


def _exists(name: str) -> bool:
    """A module of ours, or something that a module of ours has."""
    try:
        if importlib.util.find_spec(name) is not None:
            return True
    except ModuleNotFoundError:
        pass
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError:
        return False


def _anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
