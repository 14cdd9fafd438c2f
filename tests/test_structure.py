"""What the house promises: who may import whom, and what a help text may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

HEAVY = ("torch", "open_clip", "openai", "pandas", "matplotlib", "numpy", "PIL", "jinja2")


def test_sae_never_imports_interp() -> None:
    importing = [p for p in (ROOT / "sae").rglob("*.py") if "interp" in _imported(p)]
    assert importing == []


@pytest.mark.parametrize("package", ["sae", "interp"])
def test_pickle_is_imported_nowhere(package: str) -> None:
    unsafe = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert [p for p in (ROOT / package).rglob("*.py") if _imported(p) & unsafe] == []


@pytest.mark.parametrize("program", ["sae", "interp"])
def test_help_imports_nothing_heavy(program: str) -> None:
    code = (
        "import sys\n"
        f"from {program}.cli.app import app\n"
        "from sae.cli.console import run\n"
        f"assert run(app, '{program}', ['--help']) == 0\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def _imported(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, wherever in it (to catch the refusal of
    a pickle is no use of one).
    """
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
    parts = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    used = {n.module or "" for n in parts if [a.name for a in n.names] != ["UnpicklingError"]}
    return {name.split(".")[0] for name in plain | used}
