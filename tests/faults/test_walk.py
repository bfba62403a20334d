"""Operations in any order, killed and on damaged stores: `walk` has what must hold after each."""

from __future__ import annotations

import contextlib
import os
import random

import pytest

from tests.faults import no_links
from tests.faults.walk import Published, make_ops, publish, walk

_SEEDS = (1,)
_STEPS = 25
_DEEP_WALKS, _DEEP_STEPS = 250, 60


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish(tmp_path_factory.mktemp("published"))


def _links(there: bool) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if there else no_links.refused()


@pytest.mark.parametrize("links", [True, False])
def test_a_walk(published: Published, links: bool) -> None:
    for seed in _SEEDS:
        with _links(links):
            assert walk(published, make_ops(seed, _STEPS)) == _STEPS


@pytest.mark.deep
@pytest.mark.parametrize("links", [True, False])
def test_many_walks(published: Published, links: bool) -> None:
    """`YSTORE_TEST_SEED` is the first seed; `python -m tests.faults.walk SEED` shortens a walk that fails."""
    first = int(os.environ.get("YSTORE_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"YSTORE_TEST_SEED={first}", flush=True)
    for seed in range(first, first + _DEEP_WALKS):
        with _links(links):
            walk(published, make_ops(seed, _DEEP_STEPS), lambda text, seed=seed: print(seed, text))
