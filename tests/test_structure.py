"""What the house promises: docs/architecture.md is true, and what a help text may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests import structure
from tests.support.paths import ROOT

HEAVY = ("torch", "open_clip", "openai", "pandas", "matplotlib", "numpy", "PIL", "jinja2")
MODULES = structure.read_modules(ROOT)
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ALLOWED = structure.read_table(ARCHITECTURE)


def test_every_import_is_an_arrow_of_the_table_in_the_architecture() -> None:
    assert structure.wrong_arrows(_imports(), ALLOWED) == []


def test_every_room_is_in_both_tables_of_the_architecture() -> None:
    rooms = {structure.room_of(name) for name in MODULES} - set(structure.PACKAGES)
    assert set(ALLOWED) == rooms
    assert [room for room in rooms if f"| `{room.split('.')[1]}/` |" not in ARCHITECTURE] == []


def test_the_stages_do_not_know_the_command_that_runs_them_all() -> None:
    """`interp.pipeline.workflow` stands on the other files of its room, and none on it."""
    above = "interp.pipeline.workflow"
    stages = [m for m in MODULES if m.startswith("interp.pipeline") and not m.startswith(above)]
    assert len(stages) > 20
    assert [m for m in stages if any(one.startswith(above) for one in _imports()[m])] == []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert structure.circles(_imports()) == []


def test_a_package_has_few_boxes_and_a_folder_few_entries() -> None:
    boxes = {name: len(structure.entries(ROOT / name)) for name in structure.PACKAGES}
    assert max(boxes.values()) <= structure.MAX_BOXES
    assert structure.crowded_folders(ROOT) == []


def test_files_and_functions_are_short() -> None:
    assert structure.long_files(ROOT) + structure.long_functions(MODULES) == []


def test_no_six_lines_in_a_row_stand_in_two_files() -> None:
    assert structure.repeated_lines(MODULES) == []


def test_the_table_of_the_structure_is_printed() -> None:
    command = [sys.executable, "-m", "tests.structure", "--table"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["sae", "interp"]


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


# The checker itself: each fault, planted once in a small house.

SMALL_TABLE = """
| from | may import |
|---|---|
| sae.core | nothing |
| sae.data, sae.model | nothing (they do not know each other) |
| sae.cli | all of sae |
| interp.records | nothing |
| interp.llm | nothing |
| interp.score | llm, sae.data |

| other | table |
"""


def test_the_table_of_arrows_is_read_with_its_shorthand() -> None:
    allowed = structure.read_table(SMALL_TABLE)
    assert allowed["sae.model"] == set()
    assert allowed["sae.cli"] == {"sae"}
    assert allowed["interp.score"] == {"interp.llm", "sae.data"}
    with pytest.raises(ValueError, match="lllm"):
        structure.read_table(SMALL_TABLE.replace("| llm,", "| lllm,"))


@pytest.mark.parametrize(
    ("source", "text", "n_wrong"),
    [
        ("sae/data/store.py", "from sae.core.errors import UserError\n", 0),
        ("sae/data/store.py", "from sae.model.sae import SAE\n", 1),
        ("sae/data/store.py", "import sae.model.sae\n", 1),
        ("sae/data/store.py", "def f():\n    from sae.model import sae\n", 1),
        ("sae/data/store.py", "if TYPE_CHECKING:\n    from sae.model.sae import SAE\n", 1),
        ("sae/data/store.py", "from ..model.sae import SAE\n", 1),
        ("sae/data/store.py", "from . import rows\n", 0),
        ("sae/data/store.py", "from sae import SAE\n", 1),
        ("sae/data/store.py", "import interp\n", 1),
        ("sae/__init__.py", "from sae.model.sae import SAE\n", 0),
        ("sae/__init__.py", "from interp.llm import types\n", 1),
        ("sae/cli/app.py", "from sae.model.sae import SAE\n", 0),
        ("interp/score/run.py", "from interp.records import types\nimport sae.core.errors\n", 0),
        ("interp/score/run.py", "from interp.llm.types import Question\n", 0),
        ("interp/llm/types.py", "from interp.score.run import score\n", 1),
        ("sae/attic/old.py", "from sae.data.store import EmbeddingStore\n", 1),
    ],
)
def test_a_planted_arrow_is_found(tmp_path: Path, source: str, text: str, n_wrong: int) -> None:
    imports = structure.read_imports(_house(tmp_path, {source: text}))
    assert len(structure.wrong_arrows(imports, structure.read_table(SMALL_TABLE))) == n_wrong


def test_a_planted_circle_is_found_also_inside_functions(tmp_path: Path) -> None:
    straight = {"sae/data/store.py": "from sae.data.rows import rows\n"}
    assert structure.circles(structure.read_imports(_house(tmp_path, straight))) == []
    back = {"sae/data/rows.py": "def f():\n    from sae.core.errors import UserError\n"}
    back |= {"sae/core/errors.py": "def g():\n    from sae.data import store\n"}
    found = structure.circles(structure.read_imports(_house(tmp_path, back)))
    assert found == [["sae.core.errors", "sae.data.rows", "sae.data.store"]]


def test_the_fifteenth_entry_of_a_folder_is_found(tmp_path: Path) -> None:
    _house(tmp_path, {f"sae/core/n{i}.py": "" for i in range(13)})  # beside errors.py
    assert structure.crowded_folders(tmp_path) == []
    _house(tmp_path, {"sae/core/room/one_more.py": ""})
    assert structure.crowded_folders(tmp_path) == ["sae/core has 15 entries"]


@pytest.mark.parametrize("name", ["sae/core/long.py", "interp/llm/long.js"])
def test_line_351_of_a_file_is_found(tmp_path: Path, name: str) -> None:
    _house(tmp_path, {name: "x = 1\n" * 350})
    assert structure.long_files(tmp_path) == []
    _house(tmp_path, {name: "x = 1\n" * 351})
    assert structure.long_files(tmp_path) == [f"{name} has 351 lines"]


def test_line_61_of_a_function_is_found(tmp_path: Path) -> None:
    body = "class A:\n    async def f(self):\n" + "        x = 1\n" * 59
    assert structure.long_functions(_house(tmp_path, {"sae/core/a.py": body})) == []
    longer = _house(tmp_path, {"sae/core/a.py": body + "        x = 1\n"})
    assert structure.long_functions(longer) == ["sae.core.a.f has 61 lines"]


def test_six_lines_in_two_files_are_found(tmp_path: Path) -> None:
    lines = [f"x{i} = {i}" for i in range(6)]
    gap = '"""Text."""\n\nimport os\n# why\n)\n'.replace(")\n", "")
    five = {"sae/core/a.py": "\n".join(lines[:5]), "sae/core/b.py": "\n".join(lines)}
    assert structure.repeated_lines(_house(tmp_path, five)) == []
    six = {"sae/core/a.py": "\n".join([*lines[:3], gap, *lines[3:]])}
    found = structure.repeated_lines(_house(tmp_path, six))
    assert found == ["sae.core.a:1 stands again in sae.core.b:1"]
    twice = {"sae/core/a.py": "", "sae/core/b.py": "\n".join(lines + lines)}
    assert structure.repeated_lines(_house(tmp_path, twice)) == []


def _house(root: Path, files: dict[str, str]) -> dict[str, Path]:
    """A small house that breaks no rule, with some more files."""
    plain = ("sae/__init__.py", "sae/core/errors.py", "sae/data/store.py", "sae/data/rows.py")
    plain += ("sae/model/sae.py", "sae/model/__init__.py", "sae/data/__init__.py")
    plain += ("sae/cli/app.py", "interp/__init__.py", "interp/records/types.py")
    plain += ("interp/records/__init__.py", "interp/llm/__init__.py", "interp/llm/types.py")
    plain += ("interp/score/run.py",)
    for name, text in [*((n, "") for n in plain if not (root / n).exists()), *files.items()]:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return structure.read_modules(root)


@cache
def _imports() -> structure.Imports:
    return structure.read_imports(MODULES)


def _imported(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, wherever in it (to catch the refusal of
    a pickle is no use of one).
    """
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
    parts = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    used = {n.module or "" for n in parts if [a.name for a in n.names] != ["UnpicklingError"]}
    return {name.split(".")[0] for name in plain | used}
