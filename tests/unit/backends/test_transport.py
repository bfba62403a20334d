"""What is below a request: how much one read of a socket brings, and what httpx brings along."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.servers import static_server
from yarnstore.backends.http import HttpBackend

# What httpcore asks for.
SMALL = 64 * 1024
SIZE = 24 * SMALL


def test_a_reader_that_is_slow_gets_little_at_once(tmp_path: Path) -> None:
    content = bytes(range(256)) * (SIZE // 256)
    (tmp_path / "file").write_bytes(content)
    blocks = []
    with (
        static_server(tmp_path) as url,
        closing(HttpBackend(url)) as backend,
        backend.open("file") as body,
    ):
        for block in body:
            blocks.append(block)
            if len(blocks) <= 6:
                time.sleep(0.15)  # meanwhile far more than SMALL arrives
    assert b"".join(blocks) == content
    assert max(map(len, blocks[:6])) <= SMALL
    assert max(map(len, blocks[6:])) > SMALL  # once it keeps up, it gets what has come


@pytest.mark.parametrize("first", ["", "import httpx; "])
def test_httpx_comes_without_its_command_line(first: str) -> None:
    """Nor does it lose it where somebody else had imported it before."""
    shown = "print(*(name in sys.modules for name in ('rich', 'httpx._main')))"
    script = f"{first}import sys, yarnstore.backends.http; {shown}"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.split() == [str(bool(first))] * 2
