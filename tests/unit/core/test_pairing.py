"""Which file of an older version a renamed file meets: as if each were compared with each, but soon."""

from __future__ import annotations

import random
import time

from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.core.pairing import _pair_files, iter_pairs

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
        assert list(_pair_files(new, base)) == expected


def test_twenty_thousand_renamed_files_are_paired_at_once() -> None:
    count = 20_000  # each with each: two minutes
    new = manifest([f"new{n}.bin" for n in range(count)], [0] * count)
    base = manifest([f"old{n}.bin" for n in range(count)], [0] * count)
    began_s = time.process_time()
    assert list(iter_pairs(new, base)) == []
    assert time.process_time() - began_s < 10
