"""Which file of an older version a renamed file meets: as if each were compared with each, but soon."""

from __future__ import annotations

import random
import time

from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest, ManifestFile, pack_chunk_list
from yarnstore.core.pairing import Stretch, inherited_cuts, iter_pairs, pair_files

KINDS = ("bin", "gguf", "json")


def manifest(names: list[str], sizes: list[int]) -> Manifest:
    files = [ManifestFile(name, size, Sha256.of(b""), "") for name, size in zip(names, sizes, strict=True)]
    return Manifest(
        model="m",
        version="1.0.0",
        variant="default",
        files=tuple(sorted(files, key=lambda file: file.path)),
        digest=Sha256.of(b""),
        data=b"",
    )


def likeness(file: ManifestFile, other: ManifestFile) -> tuple[bool, int]:
    same_kind = file.path.rpartition(".")[2] == other.path.rpartition(".")[2]
    return same_kind, -abs(file.size_bytes - other.size_bytes)


def test_a_renamed_file_meets_the_one_most_like_it() -> None:
    rng = random.Random(1)
    for _ in range(200):
        sides = []
        for prefix in ("new", "old"):
            names = [
                f"{rng.choice((prefix, 'both'))}/{n}.{rng.choice(KINDS)}" for n in range(rng.randrange(1, 9))
            ]
            sides.append(manifest(names, [rng.randrange(6) for _ in names]))
        new, base = sides
        left = [file for file in base.files if file.path not in {ours.path for ours in new.files}]
        there = {file.path: file for file in base.files}
        expected = [
            (file, there.get(file.path) or max(left, key=lambda other, file=file: likeness(file, other)))  # type: ignore[misc]
            for file in new.files
            if file.path in there or left
        ]
        assert list(pair_files(new, base)) == expected


def test_twenty_thousand_renamed_files_are_paired_at_once() -> None:
    count = 20_000  # each with each: two minutes
    new = manifest([f"new{n}.bin" for n in range(count)], [0] * count)
    base = manifest([f"old{n}.bin" for n in range(count)], [0] * count)
    began_s = time.process_time()
    assert list(iter_pairs(new, base)) == []
    assert time.process_time() - began_s < 10


def one_version(**files: tuple[list[tuple[str, int]], list[tuple[str, int, int]]]) -> Manifest:
    """A version of files, of which each has chunks (name, length) and u8 tensors (name, offset, length)."""
    made = []
    for path, (chunks, tensors) in sorted(files.items()):
        size = sum(length for _, length in chunks)
        layout = {"format": "made", "tensors": [[name, "u8", [length], at] for name, at, length in tensors]}
        packed = pack_chunk_list([(name.encode().ljust(32, b"."), length) for name, length in chunks])
        made.append(ManifestFile(path, size, Sha256.of(b""), packed, {"layout": layout}))
    return Manifest("m", "1.0.0", "default", tuple(made), digest=Sha256.of(b""), data=b"")


def named(new: Manifest, base: Manifest, runs: list[Stretch] | None = None) -> list[str]:
    pairs = iter_pairs(new, base, runs or [])
    return [
        f"{pair.chunk.chunk_id.decode().rstrip('.')} {pair.base_id.decode().rstrip('.')}" for pair in pairs
    ]


def test_a_tensor_that_moved_to_another_file_meets_its_earlier_self() -> None:
    base = one_version(
        one=([("a", 10), ("b", 10)], [("t1", 0, 10), ("t2", 10, 10)]),
        two=([("c", 10)], [("t3", 0, 10)]),
    )
    new = one_version(
        one=([("A", 10)], [("t1", 0, 10)]),
        three=([("C", 10), ("B", 10)], [("t3", 0, 10), ("t2", 10, 10)]),
        two=([("D", 10)], [("t4", 0, 10)]),
    )
    assert named(new, base) == ["A a", "C c", "B b", "D c"]


def test_a_run_is_paired_where_chunks_begin_and_before_names() -> None:
    base = one_version(old=([("a", 10), ("b", 10), ("c", 10)], [("t", 0, 30)]))
    new = one_version(new=([("A", 5), ("B", 10), ("C", 10), ("D", 5)], [("t", 0, 30)]))
    runs = [Stretch("new", 5, 25, "old", 10)]
    assert named(new, base, runs) == ["A a", "B b", "C c"]
    assert named(base, new, [run.turned() for run in runs]) == ["a A", "b B", "c C"]


def test_cuts_are_those_of_the_base_moved_by_the_run() -> None:
    base = one_version(old=([("a", 10), ("b", 10), ("c", 10)], [("t", 0, 30)]))
    assert inherited_cuts([Stretch("new", 5, 25, "old", 0)], base) == {"new": [5, 15, 25]}
    assert inherited_cuts([Stretch("new", 5, 10, "old", 15), Stretch("new", 40, 10, "old", 0)], base) == {
        "new": [5, 10, 40]
    }
    # A run of small tensors ends a chunk too.
    group = Stretch("new", 5, 12, "old", 10, is_group=True)
    assert inherited_cuts([group], base) == {"new": [5, 15, 17]}
