"""The examples in docs/format/ are what the code reads and writes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Callable

import numpy as np
import pytest

from tests.support.models import REPO
from yarnstore.core.canonical import encode_canonical, parse_canonical
from yarnstore.core.chunking import iter_chunk_batches
from yarnstore.core.codec import decode_entry, decode_payload
from yarnstore.core.deflate import deflate
from yarnstore.core.deflated import decode_deflated
from yarnstore.core.digest import ChunkId, PackId, Sha256
from yarnstore.core.encodings import decode_delta_planes, decode_delta_zstd, decode_planes
from yarnstore.core.encodings.mapped import decode_mapped
from yarnstore.core.index import PackIndex, encode_index, id_bytes, parse_index
from yarnstore.core.layouts import BYTES, Segment, layout_from_json, layout_to_json
from yarnstore.core.manifest import Manifest
from yarnstore.core.names import parse_file_path, parse_model_id
from yarnstore.core.pack import PACK_HEADER, Entry, EntryStream, encode_entry
from yarnstore.core.reflog import format_move, format_ref, install_stack, parse_ref, parse_reflog
from yarnstore.core.transposed import TensorPart, elements_of, encode_part, parse_part, put_columns
from yarnstore.errors import YarnstoreError
from yarnstore.registry.lockfile import LockFile
from yarnstore.registry.pins import format_hold, parse_hold

PAGES = sorted((REPO / "docs" / "format").glob("*.md"))
BLOCK = re.compile(r"^```(\w+) ([\w-]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = {name: (kind, body) for page in PAGES for kind, name, body in BLOCK.findall(page.read_text())}

CHECKS: dict[str, Callable[[], None]] = {}


def checks(*names: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Say which blocks a test is of, so that none stays without."""

    def note(test: Callable[[], None]) -> Callable[[], None]:
        CHECKS.update(dict.fromkeys(names, test))
        return test

    return note


def raw(name: str) -> bytes:
    kind, body = BLOCKS[name]
    assert kind == "hex"
    return bytes.fromhex(body)


def lines(name: str) -> list[str]:
    kind, body = BLOCKS[name]
    assert kind == "text"
    return body.splitlines()


YARN = b"yarn" * 16


@checks("digest-vector")
def test_digests() -> None:
    assert lines("digest-vector") == [str(Sha256.of(b"abc")), str(ChunkId.of(b"abc"))]


@checks("good-paths", "bad-paths", "good-ids", "bad-ids")
def test_names() -> None:
    for name, parse in (("paths", parse_file_path), ("ids", parse_model_id)):
        for text in lines(f"good-{name}"):
            assert parse(text) == text
        for text in lines(f"bad-{name}"):
            with pytest.raises(YarnstoreError):
                parse(text)


@checks("canonical-value", "canonical-vector")
def test_canonical_json() -> None:
    value = json.loads(BLOCKS["canonical-value"][1])
    assert encode_canonical(value) == raw("canonical-vector")
    assert parse_canonical(raw("canonical-vector"), "JSON") == value


@checks("cut-vector")
def test_cuts() -> None:
    data = b"".join(hashlib.sha256(n.to_bytes(4, "little")).digest() for n in range(65536))
    batches = iter_chunk_batches(io.BytesIO(data).read, [Segment(0, len(data), BYTES)])
    found = [len(piece.data) for batch in batches for piece in batch]
    assert found == [int(text) for text in lines("cut-vector")[0].split()]


@checks("zstd-vector")
def test_zstd() -> None:
    assert decode_payload(Entry(bytes(32), 64, 1, raw("zstd-vector"))) == YARN


@checks("pack-vector", "index-vector")
def test_a_pack_and_its_index() -> None:
    data = raw("pack-vector")
    stream = EntryStream()
    found = list(stream.feed(data))
    stream.finish()
    assert [decode_entry(entry) for _, entry in found] == [b"abc", YARN]
    assert found[1][1].payload == raw("zstd-vector")
    assert PACK_HEADER + b"".join(b"".join(encode_entry(entry)) for _, entry in found) == data
    pack = PackId(ChunkId.of(data).raw)
    index = parse_index(raw("index-vector"), pack=pack)
    assert {id_bytes(index.ids, n): int(index.offsets[n]) for n in range(2)} == {
        entry.chunk_id: at for at, entry in found
    }
    assert encode_index(PackIndex.build(pack, len(data), found)) == raw("index-vector")


@checks("manifest-vector")
def test_a_manifest() -> None:
    data = raw("manifest-vector")
    text = (REPO / "docs/format/manifest.md").read_text()
    (digest,) = re.findall(r"SHA-256 is `([0-9a-f]{64})`", text)
    manifest = Manifest.parse(data, expected=Sha256.parse(digest))
    assert Manifest.make(manifest.model, manifest.version, manifest.variant, manifest.files).data == data
    ids, lengths = manifest.files[0].chunk_list()
    assert [id_bytes(ids, n) for n in range(2)] == [ChunkId.of(b"abc").raw, ChunkId.of(YARN).raw]
    assert lengths.tolist() == [3, 64]
    assert manifest.files[0].sha256 == Sha256.of(b"abc" + YARN)


@checks("ref-vector", "reflog-vector")
def test_a_ref_and_its_log() -> None:
    digest = Manifest.parse(raw("manifest-vector")).digest
    assert parse_ref(raw("ref-vector")) == digest
    assert format_ref(digest) == raw("ref-vector")
    moves, faults = parse_reflog(raw("reflog-vector"))
    assert faults == []
    assert [move.operation for move in moves] == ["checkout", "update"]
    assert b"".join(map(format_move, moves)) == raw("reflog-vector")
    assert install_stack(moves)[0].manifest == digest


@checks("hold-vector")
def test_a_pin_to_a_range_of_a_variant() -> None:
    hold = parse_hold(raw("hold-vector"))
    assert (str(hold.range), hold.variant, hold.version) == ("^1.1", "cpu-int4", None)
    assert format_hold(hold) == raw("hold-vector")


@checks("store-layout")
def test_all_that_is_in_a_store_is_on_its_page() -> None:
    kinds = {"digest": "[0-9a-f]{64}", "path": ".+", "any": "[^/]+", "version": r"\d+\.\d+\.\d+"}
    patterns = {
        line: re.sub(r"<(\w+)>", lambda m: kinds.get(m[1], "[A-Za-z0-9~._-]+"), line.replace(".", r"\."))
        for line in lines("store-layout")
    }
    root = REPO / "fixtures/golden/v1/store"
    used = set()
    for folder, folders, names in os.walk(root):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in [*names, *links]:
            path = os.path.relpath(os.path.join(folder, name), root)
            fitting = [line for line, pattern in patterns.items() if re.fullmatch(pattern, path)]
            assert len(fitting) == 1, path
            used.update(fitting)
    assert patterns.keys() - used == {
        "refs/partial/<model>/<variant>/<version>",
        "refs/holds/<model>",
        "logs/trying/<model>",
        "local-state.json",
        "registries/<registry>/newest.json",
        *("lock.gate", "config.lock", "managed.toml", "moved-to", "moved-from", "auto-update.lock"),
        *("queue.json", "queue.lock", "queue.run.lock"),
        *("jobs.json", "jobs.lock"),
        *("logs/origins/<model>", "logs/seen/<digest>", "logs/hashed/<digest>"),
        *("logs/statistics", "logs/adopted"),
        *("files/<digest>.x", "files/<digest>.view", "files/<digest>.x.view"),
        *("registries/<registry>/health.json", "registries/<registry>/plans.json"),
        "registries/<registry>/models/<model>.fetched",
        "tmp/<any>",
        "trash/<any>",
    }


@checks("lock-vector")
def test_lock_file() -> None:
    data = BLOCKS["lock-vector"][1].encode()
    found = LockFile.parse(data)
    assert found.encode() == data
    assert [build.version for build in found.builds] == ["1.1.0", "3.1.0"]
    page = (REPO / "docs" / "format" / "lock-file.md").read_text()
    assert f"`{found.digest}`" in page
    assert found.digest.hex == hashlib.sha256(data).hexdigest()


def test_every_block_has_its_test() -> None:
    assert BLOCKS.keys() == CHECKS.keys()
    marked = sum(len(re.findall(r"^```\w+ \S", page.read_text(), re.MULTILINE)) for page in PAGES)
    assert marked == len(BLOCKS), "a block's name is used twice, or a block does not end"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_the_pages_lead_somewhere(page) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@checks("planes-plain", "planes-vector")
def test_planes() -> None:
    assert decode_planes(raw("planes-vector"), len(raw("planes-plain"))) == raw("planes-plain")


@checks("delta-base", "delta-plain", "delta-vector", "delta-sorted-vector")
def test_deltas() -> None:
    for name in ("delta-vector", "delta-sorted-vector"):
        assert decode_delta_planes(raw(name), raw("delta-base"), 8) == raw("delta-plain")


@checks("blocks-base", "blocks-plain", "blocks-vector")
def test_deltas_of_blocks() -> None:
    assert decode_delta_planes(raw("blocks-vector"), raw("blocks-base"), 18) == raw("blocks-plain")


@checks("mapped-base", "mapped-plain", "mapped-vector")
def test_mapped_deltas() -> None:
    assert decode_mapped(raw("mapped-vector"), raw("mapped-base"), 16) == raw("mapped-plain")


@checks("deflated-vector")
def test_deflated_deltas() -> None:
    base = bytes(range(200))
    found = decode_deflated(raw("deflated-vector"), deflate(base, 6), 205)
    assert found == deflate(base[:-1] + bytes(1), 6)


@checks("transposed-vector")
def test_transposed_chunks() -> None:
    part = parse_part(raw("transposed-vector"), 8)
    assert part == TensorPart(Sha256(bytes(range(32))), file=0, offset=8, rows=3, columns=2, width=2, start=4)
    assert encode_part(part) == raw("transposed-vector")
    strip = np.empty((part.columns, part.rows), "<u2")
    put_columns(strip, 0, part.columns, 0, elements_of(bytes(range(12)), part.width))
    assert strip.tobytes()[4:12] == bytes.fromhex("08 09 02 03 06 07 0a 0b")


@checks("delta-zstd-vector")
def test_delta_zstd() -> None:
    found = decode_delta_zstd(raw("delta-zstd-vector"), b"yarn " * 13, 65)
    assert found == b"yarn " * 12 + b"wool "


@checks("manifest-modes")
def test_manifest_modes() -> None:
    value = json.loads(BLOCKS["manifest-modes"][1])
    manifest = Manifest.parse(encode_canonical(value, "manifest"))
    assert [file.path for file in manifest.files if file.executable] == ["run.sh"]
    assert manifest.empty_folders == ("cache/logs",)


@checks("layout-example")
def test_a_layout() -> None:
    value = json.loads(BLOCKS["layout-example"][1])
    layout = layout_from_json(value, 64 + 12)
    assert [(t.name, t.dtype.name, t.shape, t.offset, t.length) for t in layout.tensors] == [
        ("encoder.weight", "bf16", (2, 3), 64, 12)
    ]
    assert layout_to_json(layout) == value
