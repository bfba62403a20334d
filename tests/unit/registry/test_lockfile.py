"""Lock files: one set of builds, one file, one digest; and what is no lock file is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yarnstore.core.digest import Sha256
from yarnstore.errors import FormatError, IncompatibleError
from yarnstore.registry.lockfile import LOCK_FORMAT, LOCK_LIMIT_BYTES, Locked, LockFile

digests = st.binary(min_size=32, max_size=32).map(Sha256)
locked = st.builds(
    lambda model, version, manifest, checksum, size: Locked(
        requested=f"{model}@^{version}",
        model=model,
        variant="default",
        version=version,
        manifest=manifest,
        checksum=checksum,
        size_bytes=size,
    ),
    st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True).filter(
        lambda name: name not in ("con", "aux", "nul", "prn")
    ),
    st.sampled_from(["1.0.0", "1.2.3", "0.1.0-rc.1"]),
    digests,
    st.none() | digests,
    st.none() | st.integers(0, 2**53 - 1),
)
builds = st.lists(locked, max_size=5, unique_by=lambda item: item.requested)


@given(builds, st.randoms())
def test_the_order_of_making_does_not_matter(items: list[Locked], random: Any) -> None:
    made = LockFile.of(items)
    mixed = list(items)
    random.shuffle(mixed)
    assert LockFile.of(mixed).encode() == made.encode()
    assert LockFile.of(mixed).digest == Sha256.of(made.encode())


@given(builds)
def test_it_reads_what_it_writes_in_any_layout(items: list[Locked]) -> None:
    made = LockFile.of(items)
    assert LockFile.parse(made.encode()) == made
    windows = made.encode().replace(b"\n", b"\r\n")
    assert LockFile.parse(windows).digest == made.digest
    assert LockFile.parse(json.dumps(json.loads(made.encode())).encode()) == made


@given(st.binary(max_size=300))
def test_other_bytes_are_refused_as_bytes(data: bytes) -> None:
    with pytest.raises((FormatError, IncompatibleError)):
        LockFile.parse(data)


GOOD = {
    "requested": "phi@^1",
    "model": "phi",
    "variant": "default",
    "version": "1.0.0",
    "manifest": "sha256:" + "ab" * 32,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"manifest": None}, "neither a manifest nor a checksum"),
        ({"manifest": "md5:1"}, "a manifest that is not sha256"),
        ({"manifest": 5}, "a manifest that is not a digest"),
        ({"version": "1"}, "version"),
        ({"version": "../1.0.0"}, "version"),
        ({"model": "psi"}, "was requested as 'phi@^1', but is psi:default"),
        ({"requested": "phi:gpu@^1"}, "requested as 'phi:gpu@^1'"),
        ({"requested": "phi@@"}, "cannot read"),
        ({"size_bytes": -1}, "not a number of bytes"),
        ({"size_bytes": True}, "not a number of bytes"),
        ({"variant": None}, "has no variant"),
        ({"url": "https://"}, "unknown key 'url'"),
    ],
)
def test_a_build_that_breaks_a_rule_is_refused(changes: dict[str, Any], message: str) -> None:
    data = json.dumps({"format": LOCK_FORMAT, "models": [GOOD | changes]}).encode()
    with pytest.raises(FormatError, match=r"models\[0\]") as caught:
        LockFile.parse(data)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"format": LOCK_FORMAT, "models": {}}, "has no list of models"),
        ({"format": LOCK_FORMAT, "models": [GOOD, GOOD]}, "the same request twice"),
        ({"format": LOCK_FORMAT, "models": [1]}, "is not an object"),
        ({"format": LOCK_FORMAT, "models": [], "x": 1}, "unknown key 'x'"),
        ({"models": []}, "has format 'None'"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused(value: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        LockFile.parse(json.dumps(value).encode())


def test_a_newer_format_and_a_giant() -> None:
    with pytest.raises(IncompatibleError, match="yarnstore-lock/2"):
        LockFile.parse(b'{"format":"yarnstore-lock/2","models":[]}')
    with pytest.raises(FormatError, match="larger"):
        LockFile.parse(b" " * (LOCK_LIMIT_BYTES + 1))


def test_a_request_with_doubled_marks_of_an_earlier_release_is_read_as_it_was_written() -> None:
    made = LockFile(
        (
            Locked(
                requested="m@^vv1",
                model="m",
                variant="default",
                version="1.0.0",
                manifest=Sha256.of(b"m"),
            ),
        )
    )
    assert LockFile.parse(made.encode()) == made
