"""`gc --thin` on a nearly full disk, where each step deletes its files before the next, killed at its calls.

The commands run in forked processes, so that they see the same disk as this one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import no_links
from tests.faults.forks import KILLED, run_command
from tests.support.full_disks import MODEL, VERSIONS, form_of_the_older, make_parts, nearly_full
from tests.support.stores import Site, assert_serves, memory_folder, problems, refs_of, remove_tree
from yarnstore import Store

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
_FILES = 3
_WEIGHTS = 100_000
# For the chunks of one file, and not for those of two.
_FREE_BYTES = 3 * _WEIGHTS
_WORDS = ["gc", "--thin", MODEL, "--grace", "0"]
QUICK_STRIDE = 7


@pytest.fixture
def root() -> Iterator[Path]:
    """An empty folder, in memory where possible."""
    root = memory_folder()
    yield root
    remove_tree(root)


def _kill_at_calls(root: Path, first: int, stride: int) -> int:
    """Kill the command at every so many calls; return the last call at which it was killed."""
    before = make_parts(root / "before", _FILES, _WEIGHTS)
    at, last = first, 0
    while True:
        site = before.copy(root / "site")
        with nearly_full(site.home, _FREE_BYTES):
            ended = run_command([*_WORDS, "--home", str(site.home)], at)
            assert ended.code in (KILLED, 0), (at, ended)
            if ended.code == 0:
                assert form_of_the_older(site.home) == "deltas"
            _check(before, site, at)
        _run_again(site, at)
        remove_tree(root / "site")
        if ended.code == 0:
            return last
        at, last = at + stride, at


def _check(before: Site, site: Site, at: int) -> None:
    """No version has lost anything, and no registry is there to give it back."""
    assert problems(site.home) == [], at
    assert refs_of(site.home) == refs_of(before.home), at
    copied = site.copy(site.root / "checked")
    registry = site.registry.rename(site.registry.with_name("away"))
    try:
        for version in VERSIONS:
            assert_serves(copied.home, site, version, MODEL)
    finally:
        registry.rename(site.registry)
        remove_tree(site.root / "checked")


def _run_again(site: Site, at: int) -> None:
    with nearly_full(site.home, _FREE_BYTES), Store.open(site.home) as store:
        store.gc(thin=MODEL, grace_s=0)
    assert form_of_the_older(site.home) == "deltas", at
    assert problems(site.home) == [], at
    assert not list((site.home / "tmp").iterdir()), at


def test_it_goes_in_steps(root: Path) -> None:
    """The tests below would otherwise kill a run that encodes all files at once."""
    site = make_parts(root, _FILES, _WEIGHTS)
    _run_again(site, 0)
    assert len(list((site.home / "packs").glob("*.pack"))) >= _FILES - 1


def test_killed_at_calls_it_loses_nothing(root: Path) -> None:
    assert _kill_at_calls(root, 4, QUICK_STRIDE) > 50


@pytest.mark.deep
@pytest.mark.parametrize("links", [True, False])
def test_killed_at_every_call_it_loses_nothing(root: Path, *, links: bool) -> None:
    with contextlib.nullcontext() if links else no_links.refused():
        killed = _kill_at_calls(root, 1, 1)
    print(f"links {links}: killed at {killed} calls", flush=True)
    assert killed > 50
