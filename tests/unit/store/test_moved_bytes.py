"""Bytes of no known format, in the middle of which something was put: their deltas are small, for clients of
this release, and what these install is right."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.reshaped import Files
from yarnstore import Store


def tokenizer(count: int, inserted: tuple[int, ...] = ()) -> Files:
    """A vocabulary with consecutive numbers; each word put in changes all numbers after it."""
    words = [f"w{n * 2654435761 % 2**32:x}" for n in range(count)]
    for at in inserted:
        words.insert(at, f"<new{at}>")
    model = {"vocab": {word: n for n, word in enumerate(words)}}
    return {"tokenizer.json": json.dumps({"model": model}, indent=1).encode()}


def test_a_vocabulary_with_words_put_in_is_a_small_update_both_ways(tmp_path: Path) -> None:
    versions = [tokenizer(20_000), tokenizer(20_000, (5000, 5001, 12_000))]
    for n, files in enumerate(versions):
        for name, content in files.items():
            path = tmp_path / f"{n}" / name
            path.parent.mkdir()
            path.write_bytes(content)
        Store.publish(tmp_path / f"{n}", f"m@1.{n}.0", registry=tmp_path / "registry")
    with Store.open(tmp_path / "home") as store:
        store.add_registry("here", tmp_path / "registry")
        assert store.lint_registry(tmp_path / "registry", deep=True, decode=True).errors == 0
        store.checkout("m@1.0.0")
        ahead = store.checkout("m@1.1.0").download_bytes
        assert Path(store.path("m")).read_bytes() == versions[1]["tokenizer.json"]
        store.remove("m@1.0.0")
        store.gc(keep=1)
        back = store.checkout("m@1.0.0").download_bytes
        assert Path(store.path("m")).read_bytes() == versions[0]["tokenizer.json"]
        assert store.fsck().problems == []
    size = len(versions[0]["tokenizer.json"])
    assert ahead < 0.04 * size
    assert 0 < back < 0.04 * size
