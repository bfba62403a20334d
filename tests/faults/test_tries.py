"""With every try refused, the requests made are the tries that the error states, and what the policy says."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.servers import Reply, ScriptedServer, Seen, files
from yarnstore import Store
from yarnstore.backends import RetryPolicy
from yarnstore.errors import TransientError

DATA = bytes(range(256)) * 1200
REFUSALS: dict[str, Callable[[Reply], Reply]] = {
    "busy": lambda _: Reply(status=503),
    "in trouble": lambda _: Reply(status=500),
    "broken off": lambda good: replace(good, cut_at=0),
}


def published(root: Path) -> dict[str, bytes]:
    (root / "w.bin").write_bytes(DATA)
    Store.publish(root / "w.bin", "m@1.0.0", registry=root / "registry", changelog="c")
    folder = root / "registry"
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def single(urls: list[str]) -> dict[str, bytes]:
    """A registry of one file, which lies at each of the addresses."""
    version = {
        "version": "1.0.0",
        "download_url": f"{urls[0]}w.bin",
        "mirrors": [f"{url}w.bin" for url in urls[1:]],
        "checksum": f"sha256:{hashlib.sha256(DATA).hexdigest()}",
        "size_bytes": len(DATA),
    }
    model = {"model_id": "m", "current_version": "1.0.0", "versions": {"1.0.0": version}}
    doc = {"registry_version": "1.0.0", "models": {"m": model}}
    return {"registry.json": json.dumps(doc).encode(), "w.bin": DATA}


def refusing(
    tree: dict[str, bytes], pattern: str, refuse: Callable[[Reply], Reply]
) -> Callable[[Seen], Reply]:
    def script(seen: Seen) -> Reply:
        good = files(tree)(seen)
        return refuse(good) if re.search(pattern, seen.path) else good

    return script


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("pattern", [r"\.pack$", r"manifests/.*\.json$", r"\.idx$", r"w\.bin$"])
@pytest.mark.parametrize("count", [1, 3])
def test_requests_made_are_the_tries_stated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: str, pattern: str, count: int
) -> None:
    monkeypatch.setattr(RetryPolicy, "delay_s", lambda *_: 0.0)
    tries = RetryPolicy().attempts if count == 1 else 2
    with ExitStack() as stack:
        servers = [stack.enter_context(ScriptedServer([])) for _ in range(count)]
        urls = [server.url for server in servers]
        tree = single(urls) if pattern.startswith("w") else published(tmp_path)
        doc = {**json.loads(tree["registry.json"]), "mirrors": urls[1:]}
        tree["registry.json"] = json.dumps(doc).encode()
        tree = {key: data for key, data in tree.items() if not key.endswith(".json.zst")}
        for server in servers:
            server.rescript(files(tree))
        with Store.open(tmp_path / "home") as store:
            store.add_registry("made", urls[0])
            store.refresh_registries()
            for server in servers:
                server.rescript(refusing(tree, pattern, REFUSALS[refusal]))
            with pytest.raises(TransientError) as caught:
                store.fetch("m@1.0.0")
        made = [
            Counter(seen.path for seen in server.seen if re.search(pattern, seen.path)) for server in servers
        ]
    assert all(len(paths) == 1 for paths in made), "one file is asked for, and given up"
    asked = [paths.total() for paths in made]
    stated = [int(times) for times in re.findall(r"\(tried (\d+) times\)", caught.value.message)]
    assert asked == [tries] * count
    assert stated == [tries] * count


def test_ranges_that_are_wrong_twice_are_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RetryPolicy, "delay_s", lambda *_: 0.0)
    tree = published(tmp_path)

    def script(seen: Seen) -> Reply:
        if seen.path.endswith(".pack") and seen.range:
            return Reply(status=206, headers={"Content-Range": "bytes 7-8/9"}, body=b"xx")
        return files(tree)(seen)

    with ScriptedServer(script) as server, Store.open(tmp_path / "home") as store:
        store.add_registry("made", server.url)
        store.fetch("m@1.0.0")
        ranged = [bool(seen.range) for seen in server.seen if seen.path.endswith(".pack")]
    assert ranged == [True, True, False]
