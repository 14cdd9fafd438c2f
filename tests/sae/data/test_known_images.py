"""Files of known content, looked at again and again."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from sae.data import images
from sae.data.images import BadImage, check_known, content_id


def test_a_file_that_was_read_is_read_again_when_it_looks_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"one")
    image_id, read = content_id(b"one"), Mock(wraps=images.read_known)
    monkeypatch.setattr(images, "read_known", read)
    for _ in range(3):
        check_known(file, image_id)
    assert read.call_count == 1
    file.write_bytes(b"two")
    os.utime(file, ns=(0, 0))
    for _ in range(2):
        with pytest.raises(BadImage, match="has changed"):
            check_known(file, image_id)
    file.unlink()
    with pytest.raises(BadImage, match="is gone"):
        check_known(file, image_id)
