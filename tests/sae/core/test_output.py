"""What a folder may be called, what may be written over, and who writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sae.core.errors import UserError
from sae.core.lock import LOCK, hold
from sae.core.output import is_new, require_folder, require_name, require_own
from tests.support.paths import ROOT


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\0b", "a\x1b[2J", "a\u2028b", "x" * 300])
def test_what_is_no_name_of_a_folder_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"^--run ") as refused:
        require_name(name, "--run")
    assert str(refused.value).isprintable()


def test_names_with_blanks_and_accents_and_of_255_bytes_are_taken() -> None:
    for name in ("my work", "été", "x" * 255, "a/b c/d"):
        require_name(name)


def test_a_file_or_a_broken_link_on_the_way_to_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, word in (("file", "is a file"), ("file/in", "file is a file"), ("link", "nothing")):
        with pytest.raises(UserError, match=word):
            require_folder(tmp_path / name)


def test_a_folder_is_new_when_all_that_is_there_was_left_by_a_kill(tmp_path: Path) -> None:
    assert is_new(tmp_path / "absent")
    for name in ("world.json.part", LOCK, "lost+found"):
        (tmp_path / name).touch()
    assert is_new(tmp_path)
    (tmp_path / "notes.txt").touch()
    assert not is_new(tmp_path)
    with pytest.raises(UserError, match="holds something else, no store; nothing of it is over"):
        require_own(tmp_path, "store", False)
    require_own(tmp_path, "store", True)


def test_a_lock_refuses_the_second_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "new" / LOCK
    refused = pytest.raises(UserError, match=f"{os.getpid()} is working on {path.parent};")
    with closing(hold(path)), refused:
        hold(path)
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_folder_that_is_replaced_is_named_after_the_folder(tmp_path: Path) -> None:
    refused = pytest.raises(UserError, match=f"is working on {tmp_path / 'gallery'};")
    with closing(hold(tmp_path / "gallery.lock")), refused:
        hold(tmp_path / "gallery.lock")


CHILD = """
import multiprocessing, sys, time
from pathlib import Path
from sae.core.lock import hold

def say_and_stay():
    print("held", flush=True)
    time.sleep(60)

lock = hold(Path(sys.argv[1]))
if sys.argv[2] == "fork":  # the forked child says it: before that it may not have let go yet
    multiprocessing.get_context("fork").Process(target=say_and_stay).start()
    time.sleep(60)
say_and_stay()
"""


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_the_lock_of_a_killed_process_never_blocks(tmp_path: Path, how: str) -> None:
    path = tmp_path / LOCK
    command = [sys.executable, "-c", CHILD, str(path), how]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(UserError, match=f"process {child.pid} is working"):
            hold(path)
        child.kill()
        child.wait()
        try:
            hold(path).close()  # a forked child of the dead one is still there
        finally:
            if how == "fork":
                os.killpg(child.pid, signal.SIGKILL)


def test_who_may_wait_gets_the_lock_when_the_other_is_done(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv.lock"
    code = (
        "import sys, time; from pathlib import Path; from sae.core.lock import hold\n"
        "lock = hold(Path(sys.argv[1])); print(flush=True); time.sleep(.5); lock.close()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, cwd=ROOT
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        hold(path, wait=60).close()
