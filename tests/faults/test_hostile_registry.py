"""Registries on servers that refuse, stall, lie or never end: a typed error or the right bytes, soon."""

from __future__ import annotations

import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.servers import Reply, ScriptedServer, Seen, files
from yarnstore import Store
from yarnstore.backends import MemoryBackend
from yarnstore.core.digest import PackId
from yarnstore.core.limits import MIB, PACK_LIMIT_BYTES, VERSION_LIMIT_PACKS
from yarnstore.core.pack import PACK_HEADER
from yarnstore.errors import BackendError, IntegrityError
from yarnstore.ops.fetching.plan import plan_download
from yarnstore.ops.fetching.ways import PackOffer
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.layout import StoreLayout

Answer = Callable[[Seen], Reply]


def publish(registry: Path, *versions: str) -> dict[str, bytes]:
    """Versions of one file, each a few bytes from the one before; what is in each."""
    contents = {}
    data = bytearray(random.Random(1).randbytes(1_000_000))
    for n, version in enumerate(versions, 1):
        data[5 * n] ^= n
        source = registry.parent / "m.bin"
        source.write_bytes(data)
        Store.publish(source, f"m@{version}", registry=registry)
        contents[version] = bytes(data)
    return contents


def tree(registry: Path) -> dict[str, bytes]:
    return {
        path.relative_to(registry).as_posix(): path.read_bytes()
        for path in registry.rglob("*")
        if path.is_file()
    }


def test_shortcuts_that_a_bucket_forbids_are_done_without(tmp_path: Path) -> None:
    contents = publish(tmp_path / "r", "1.0.0", "2.0.0")
    there = tree(tmp_path / "r")
    deltas = [key for key in there if key.startswith("deltas/")]
    assert deltas
    gone = {*deltas, *(key for key in there if key.endswith((".zst", ".idx")))}
    serve = files({key: data for key, data in there.items() if key not in gone})

    def bucket(seen: Seen) -> Reply:
        reply = serve(seen)
        return Reply(status=403) if reply.status == 404 else reply

    with ScriptedServer(bucket) as server, Store.open(tmp_path / "home") as store:
        store.add_registry("r", server.url)
        for version, data in contents.items():
            store.fetch(f"m@{version}")
            assert Path(store.path(f"m@{version}")).read_bytes() == data


def test_a_pack_without_index_and_without_end_is_given_up(tmp_path: Path) -> None:
    publish(tmp_path / "r", "1.0.0")
    serve = files({key: data for key, data in tree(tmp_path / "r").items() if not key.endswith(".idx")})
    entry = struct.pack("<32sIIBBH", b"\7" * 32, MIB, MIB, 0, 0, 0) + bytes(MIB)
    pack = [PACK_HEADER, *[entry] * (2 * PACK_LIMIT_BYTES // MIB)]

    def answer(seen: Seen) -> Reply:
        if seen.path.endswith(".pack"):
            return Reply(body=pack, length=False, close=True)
        return serve(seen)

    with ScriptedServer(answer) as server, Store.open(tmp_path / "home") as store:
        store.add_registry("r", server.url)
        with pytest.raises(BackendError, match="larger than"):
            store.fetch("m@1.0.0")


def test_a_damaged_payload_is_no_reason_to_read_its_pack_through(tmp_path: Path) -> None:
    publish(tmp_path / "r", "1.0.0")
    there = tree(tmp_path / "r")
    for key in there:
        if key.endswith(".pack"):
            there[key] = there[key][:5000] + bytes([there[key][5000] ^ 1]) + there[key][5001:]
    with ScriptedServer(files(there)) as server, Store.open(tmp_path / "home") as store:
        store.add_registry("r", server.url)
        with pytest.raises(IntegrityError, match="is corrupt"):
            store.fetch("m@1.0.0")
        assert all(seen.range for seen in server.seen if seen.path.endswith(".pack"))


def test_a_version_in_more_packs_than_any_needs_is_refused_unasked(tmp_path: Path) -> None:
    layout = StoreLayout(tmp_path / "home")
    layout.ensure()
    packs = tuple(PackId(n.to_bytes(32, "big")) for n in range(VERSION_LIMIT_PACKS + 1))
    with ChunkStore(layout) as chunks, pytest.raises(IntegrityError, match="packs for one version"):
        plan_download(MemoryBackend({}), PackOffer(packs), chunks, np.array([b"a" * 32], "S32"), 4)


@pytest.mark.skipif(os.name == "nt", reason="on Windows only a console sends signals")
def test_an_interrupt_does_not_wait_for_an_index_that_stalls(tmp_path: Path) -> None:
    publish(tmp_path / "r", "1.0.0")
    serve = files(tree(tmp_path / "r"))
    asked, over = threading.Event(), threading.Event()

    def answer(seen: Seen) -> Reply:
        if seen.path.endswith(".idx"):
            asked.set()
            over.wait(30)
        return serve(seen)

    with ScriptedServer(answer) as server:
        with Store.open(tmp_path / "home") as store:
            store.add_registry("r", server.url)
        command = [sys.executable, "-m", "yarnstore", "fetch", "m@1.0.0", "--home", str(tmp_path / "home")]
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        try:
            assert asked.wait(20)
            time.sleep(0.2)
            began_s = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=10)
            assert time.monotonic() - began_s < 3
            assert process.returncode == 130
            assert b"interrupted" in said
        finally:
            over.set()
            process.kill()
            process.wait()


@pytest.mark.parametrize("forbid", [False, True])
def test_an_exact_version_is_found_where_its_packs_went(tmp_path: Path, forbid: bool) -> None:
    """The publisher made the packs anew; what the store knows of the registry is from before."""
    publish(tmp_path / "r", "1.0.0")
    before = tree(tmp_path / "r")
    now: dict[str, bytes] = dict(before)

    def answer(seen: Seen) -> Reply:
        reply = files(now)(seen)
        return Reply(status=403) if forbid and reply.status == 404 else reply

    with ScriptedServer(answer) as server, Store.open(tmp_path / "home") as store:
        store.add_registry("r", server.url)
        data = (tmp_path / "m.bin").read_bytes()
        shutil.rmtree(tmp_path / "r")
        (tmp_path / "m.bin").write_bytes(data + b"x")
        Store.publish(tmp_path / "m.bin", "m@0.9.0", registry=tmp_path / "r")
        (tmp_path / "m.bin").write_bytes(data)
        Store.publish(tmp_path / "m.bin", "m@1.0.0", registry=tmp_path / "r")
        now.clear()
        now.update(tree(tmp_path / "r"))
        assert not {key for key in before if key.endswith(".pack")} <= now.keys()
        with Store.open(tmp_path / "home") as later:
            later.fetch("m@1.0.0")
            assert Path(later.path("m@1.0.0")).read_bytes() == data
