"""A digest is 64 lower-case hex digits or it is nothing: file names are built from it."""

from __future__ import annotations

import hashlib
import random
import re

import pytest

from yarnstore.core.digest import ChunkId, Digest, PackId, Sha256
from yarnstore.errors import FormatError
from yarnstore.store.layout import StoreLayout

GOOD = "0123456789abcdef" * 4
KINDS = (Sha256, ChunkId, PackId)
# What has got past hand-written checks: traversal, case, other digits, a newline that `$` lets by.
ALIEN = (
    *("/", "../", "..\\", "\0", "\n", "\r\n", " ", "%2e", "A", "F", "g", "-", "+", "_", "０", "ａ", "٣"),
    *("é", "\u202e", "\ud800", ":", "sha256:", "blake3:", "sha512:", "\\", "~", ".", "x" * 64),
)


def hostile_digests(count: int) -> list[str]:
    """Texts that are no digest, most of them one edit away from one."""
    rng = random.Random(20240423)
    found = ["", ":", "sha256:", "sha256", GOOD[:-1], GOOD + "0", GOOD + "\n", "\n" + GOOD, GOOD.upper()]
    found += [f"sha256:sha256:{GOOD}", f"blake3:{GOOD}"[1:], f"SHA256:{GOOD}", f"sha256-{GOOD}", "../" * 20]
    while len(found) < count:
        text = rng.choice(["", "sha256:"]) + GOOD
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(text))
            edit = rng.randrange(4)
            if edit == 0:
                text = text[:at] + text[at + 1 :]
            elif edit == 1:
                text = text[:at] + rng.choice(ALIEN) + text[at + 1 :]
            elif edit == 2:
                text = text[:at] + rng.choice(ALIEN) + text[at:]
            else:
                text = text[:at] + rng.choice("GHIJKLMNOPQRSTUVWXYZ\t\x7f") + text[at + 1 :]
        if not re.fullmatch(r"(sha256:)?[0-9a-f]{64}", text):
            found.append(text)
    return found


HOSTILE = hostile_digests(10_000)


def test_ten_thousand_hostile_digests_are_refused() -> None:
    assert len(set(HOSTILE)) > 9_000
    for text in HOSTILE:
        with pytest.raises(FormatError):
            Sha256.parse(text)


@pytest.mark.parametrize("kind", KINDS)
def test_text_comes_back(kind: type[Digest]) -> None:
    digest = kind.parse(GOOD)
    assert digest.raw == bytes.fromhex(GOOD)
    assert digest.hex == GOOD
    assert str(digest) == f"{kind.algorithm}:{GOOD}"
    assert kind.parse(str(digest)) == digest


def test_another_algorithm_is_refused() -> None:
    with pytest.raises(FormatError):
        Sha256.parse(f"blake3:{GOOD}")
    with pytest.raises(FormatError):
        PackId.parse(f"sha256:{GOOD}")


def test_kinds_are_not_equal_though_their_bytes_are() -> None:
    assert Sha256(b"x" * 32) != ChunkId(b"x" * 32)
    assert len({PackId(b"x" * 32), ChunkId(b"x" * 32), Sha256(b"x" * 32)}) == 3


def test_hashes_are_the_standards() -> None:
    assert Sha256.of(b"abc").hex == hashlib.sha256(b"abc").hexdigest()
    # The empty input of the BLAKE3 test vectors.
    assert ChunkId.of(b"").hex == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def test_a_hostile_text_is_shown_short_and_printable() -> None:
    with pytest.raises(FormatError) as caught:
        Sha256.parse("\x1b[2J" + "9" * 10_000)
    assert len(caught.value.message) < 300
    assert caught.value.message.isprintable()


def test_names_in_a_store_that_are_no_digests_are_passed_over(tmp_path) -> None:
    layout = StoreLayout(tmp_path)
    layout.manifests.mkdir()
    for n, text in enumerate(HOSTILE[:500]):
        name = text.encode("utf-8", "replace").replace(b"/", b"|").replace(b"\0", b"")[:100]
        (layout.manifests / (name.decode() + f"-{n}.json")).touch()
    (layout.manifests / f"{GOOD}.json").touch()
    assert layout.manifest_ids() == [Sha256.parse(GOOD)]
