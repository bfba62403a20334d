"""What is below a request: how much one read of a socket brings."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

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
