"""Manifests: what is malformed is refused, what is unknown survives, what is newer is named."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from yarnstore.core.canonical import encode_canonical
from yarnstore.core.digest import ChunkId, Sha256
from yarnstore.core.limits import CHUNK_LIMIT_BYTES, MANIFEST_LIMIT_BYTES
from yarnstore.core.manifest import Manifest, ManifestFile, pack_chunk_list
from yarnstore.errors import FormatError, IncompatibleError, IntegrityError

ONE = (ChunkId.of(b"one").raw, 3)
TWO = (b"\0" * 32, 5)  # numpy drops trailing zeros of S32 values
FILE = ManifestFile("b/model.bin", 11, Sha256.of(b"?"), pack_chunk_list([ONE, TWO, ONE]))
GOOD = Manifest.make("org/m", "1.0.0", "cpu", [FILE, ManifestFile("a.txt", 0, Sha256.of(b""), "")])
VALUE: dict[str, Any] = json.loads(GOOD.data)


def changed(**fields: Any) -> bytes:
    value = json.loads(GOOD.data)
    for key, item in fields.items():
        if item is None:
            del value[key]
        else:
            value[key] = item
    return encode_canonical(value)


def with_file(**fields: Any) -> bytes:
    files = json.loads(GOOD.data)["files"]
    for key, item in fields.items():
        if item is None:
            del files[1][key]
        else:
            files[1][key] = item
    return changed(files=files)


def test_a_manifest_comes_back() -> None:
    again = Manifest.parse(GOOD.data, expected=GOOD.digest)
    assert again == GOOD
    assert again.digest == Sha256.of(GOOD.data)
    assert [f.path for f in again.files] == ["a.txt", "b/model.bin"]
    assert again.size_bytes == 11
    assert Manifest.make(again.model, again.version, again.variant, reversed(again.files)) == GOOD


def test_chunk_lists_come_back() -> None:
    ids, lengths = FILE.chunk_list()
    assert ids.tolist() == [ONE[0], b"", ONE[0]]
    assert lengths.tolist() == [3, 5, 3]
    empty_ids, empty_lengths = GOOD.files[0].chunk_list()
    assert len(empty_ids) == len(empty_lengths) == 0


def test_unknown_fields_survive() -> None:
    data = with_file(layout={"kind": "safetensors"})
    assert Manifest.parse(data).files[1].extra == {"layout": {"kind": "safetensors"}}
    again = Manifest.make("org/m", "1.0.0", "cpu", Manifest.parse(data).files)
    assert again.data == data
    assert Manifest.parse(changed(later={"x": 1})).extra == {"later": {"x": 1}}


@pytest.mark.parametrize("major", ["2", "3", "9999"])
def test_a_newer_format_is_refused_by_name(major: str) -> None:
    with pytest.raises(IncompatibleError, match=f"yarnstore-manifest/{major}"):
        Manifest.parse(changed(format=f"yarnstore-manifest/{major}", files=None))


@pytest.mark.parametrize(
    "found",
    [
        "yarnstore-manifest/" + "9" * 5000,
        "yarnstore-manifest/٢",
        "yarnstore-manifest/0",
        "yarnstore-manifest/1.1",
        "x/2",
        "",
        1,
        [2],
        None,
    ],
)
def test_what_is_no_format(found: object) -> None:
    with pytest.raises(FormatError, match="format"):
        Manifest.parse(changed(format=found))


def test_another_manifest_of_the_same_size_is_refused() -> None:
    data = GOOD.data.replace(b"cpu", b"gpu")
    with pytest.raises(IntegrityError, match="expected sha256:") as caught:
        Manifest.parse(data, expected=GOOD.digest)
    assert not isinstance(caught.value, FormatError)
    assert Manifest.parse(data).variant == "gpu"


@pytest.mark.parametrize(
    "data",
    [
        changed(model=None),
        changed(model=1),
        changed(model="../x"),
        changed(variant="A/b"),
        changed(version="1.0"),
        changed(version=True),
        changed(files=[]),
        changed(files={}),
        changed(files=[1]),
        changed(files=[[]]),
        changed(files=VALUE["files"][::-1]),
        changed(files=VALUE["files"][:1] * 2),
        with_file(path="../x"),
        with_file(path="A.TXT"),
        with_file(path="a.txt/b"),
        with_file(path=None),
        with_file(size_bytes=-1),
        with_file(size_bytes=True),
        with_file(size_bytes="11"),
        with_file(sha256="../" * 21 + "x"),
        with_file(sha256=Sha256.of(b"").hex.upper()),
        with_file(chunks=7),
        with_file(chunks=None),
        GOOD.data + b"\n",
        GOOD.data[:-1],
        b"",
        b"[]",
        b" " * (MANIFEST_LIMIT_BYTES + 1),
    ],
)
def test_what_is_no_manifest(data: bytes) -> None:
    with pytest.raises(FormatError):
        Manifest.parse(data)


def chunks_of(text: str, size_bytes: int = 8) -> ManifestFile:
    return ManifestFile("a", size_bytes, Sha256.of(b""), text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("!", 0),
        ("é", 0),
        ("AAA", 0),
        (" ", 0),
        (base64.b64encode(b"x" * 35).decode(), 8),
        (base64.b64encode(b"x" * 37).decode(), 8),
        (pack_chunk_list([ONE, TWO]), 7),
        (pack_chunk_list([ONE, TWO]), 9),
        (pack_chunk_list([ONE, (b"z" * 32, 0)]), 3),
        (pack_chunk_list([(b"z" * 32, 0)]), 0),
        (pack_chunk_list([(b"z" * 32, CHUNK_LIMIT_BYTES + 1)]), CHUNK_LIMIT_BYTES + 1),
        (pack_chunk_list([(b"z" * 32, 2**32 - 1)]), 2**32 - 1),
        ("", 1),
        (pack_chunk_list([ONE]) + "\n", 3),
    ],
)
def test_what_is_no_chunk_list(text: str, size: int) -> None:
    with pytest.raises(FormatError):
        chunks_of(text, size).chunk_list()


def test_the_largest_chunk_is_read() -> None:
    _, lengths = chunks_of(pack_chunk_list([(b"z" * 32, CHUNK_LIMIT_BYTES)]), CHUNK_LIMIT_BYTES).chunk_list()
    assert lengths.tolist() == [CHUNK_LIMIT_BYTES]


def test_files_are_equal_whatever_an_unknown_field_says() -> None:
    other = ManifestFile(FILE.path, FILE.size_bytes, FILE.sha256, FILE.chunks, {"unknown": 1})
    assert {FILE, other} == {FILE}
    assert ManifestFile("a", FILE.size_bytes, FILE.sha256, FILE.chunks) != FILE


def test_paths_are_sorted_by_their_bytes() -> None:
    paths = ["B", "a", "z", "é", "\uffff", "\U00010000"]
    made = Manifest.make(
        "m", "1.0.0", "default", [ManifestFile(p, 0, Sha256.of(b""), "") for p in reversed(paths)]
    )
    assert [f.path for f in made.files] == paths


def test_executable_files_and_empty_folders_come_back_and_are_left_out_where_there_are_none() -> None:
    script = ManifestFile("run.sh", 0, Sha256.of(b""), "", {"executable": True})
    made = Manifest.make("m", "1.0.0", "default", [FILE, script], ["z", "cache/logs"])
    again = Manifest.parse(made.data, expected=made.digest)
    assert [file.path for file in again.files if file.executable] == ["run.sh"]
    assert again.empty_folders == ("cache/logs", "z")
    assert b"executable" not in GOOD.data
    assert b"empty_folders" not in GOOD.data
    assert GOOD.empty_folders == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"empty_folders": "x"},
        {"empty_folders": [1]},
        {"empty_folders": ["b", "a"]},
        {"empty_folders": ["../out"]},
        {"empty_folders": ["/out"]},
        {"empty_folders": ["b"]},
        {"empty_folders": ["a.txt"]},
        {"empty_folders": ["A.TXT"]},
        {"empty_folders": ["a.txt/below"]},
        {"empty_folders": ["x", "x"]},
        {"empty_folders": ["x", "x/y"]},
        {"empty_folders": ["x"] * 100_001},
    ],
    ids=lambda fields: str(fields)[:40],
)
def test_empty_folders_that_are_no_such_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        Manifest.parse(changed(**fields))


@pytest.mark.parametrize("value", [False, 1, "yes", []])
def test_an_executable_that_is_not_true_is_refused(value: object) -> None:
    with pytest.raises(FormatError):
        Manifest.parse(with_file(executable=value))
