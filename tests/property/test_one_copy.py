"""Whatever order people install, pin, remove and clean up in, each version that a store lists is whole."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.fine_tunes import tune, weights
from tests.support.stores import tree_hashes, versions_in
from yarnstore import Store
from yarnstore.errors import ConflictError, NotFoundError

MODEL = "tuned"
VERSIONS = ("1.0.0", "1.1.0", "1.2.0", "1.3.0")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions that share a file, parts of files, and little."""
    root = tmp_path_factory.mktemp("sources")
    bits, fixed = weights(1, 60_000), weights(2, 30_000)
    with Store.open(root / "home") as store:
        for n, version in enumerate(VERSIONS):
            folder = root / version
            folder.mkdir()
            (folder / "tuned.bin").write_bytes(bits.tobytes())
            (folder / "fixed.bin").write_bytes(fixed.tobytes())
            (folder / "half.bin").write_bytes(np.concatenate([fixed, bits[:20_000]]).tobytes())
            store.publish(folder, f"{MODEL}@{version}", registry=root / "registry", deltas=n % 3)
            bits = tune(bits, n + 3)
    return root


_versions = st.sampled_from(VERSIONS)
_NAMED = ["checkout", "checkout", "fetch", "pin", "unpin", "remove", "path"]
_steps = st.one_of(
    st.tuples(st.sampled_from(_NAMED), _versions),
    st.tuples(st.sampled_from(["gc", "gc", "thin", "repack"]), st.integers(0, 3)),
    st.tuples(st.sampled_from(["rollback", "reopen"]), st.none()),
)


@settings(max_examples=4, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(_steps, min_size=8, max_size=20))
@example(
    steps=[
        ("checkout", "1.0.0"),
        ("pin", "1.0.0"),
        *(step for version in (*VERSIONS[1:], "1.1.0") for step in (("checkout", version), ("gc", 0))),
    ]
)
def test_each_version_of_a_store_is_whole_after_each_step(
    tmp_path_factory: pytest.TempPathFactory, sources: Path, steps: list[tuple[str, str | int | None]]
) -> None:
    root = tmp_path_factory.mktemp("walk")
    home, link = root / "home", root / "registry"
    link.symlink_to(sources / "registry")
    store = Store.open(home)
    store.add_registry("here", link)
    for n, (what, which) in enumerate(steps):
        if what == "reopen":
            store.close()
            store = Store.open(home)
        with contextlib.suppress(NotFoundError, ConflictError):  # such a step is not possible now
            take(store, what, which)
        link.unlink()  # so that nothing comes from there
        for model, version in versions_in(home):
            out = root / "out" / str(n) / version
            store.export(f"{model}@{version}", out)
            assert tree_hashes(out) == tree_hashes(sources / version), (n, what, which)
        link.symlink_to(sources / "registry")
        assert store.fsck().problems == []
    store.close()


def take(store: Store, what: str, which: str | int | None) -> None:
    """Take one step."""
    if what == "rollback":
        store.rollback_model(MODEL)
    elif what in ("gc", "thin", "repack"):
        assert isinstance(which, int)
        store.gc(keep=which, grace_s=0, thin="*" if what == "thin" else None, repack=what == "repack")
    elif what != "reopen":
        getattr(store, what)(f"{MODEL}@{which}")
