"""A spec leads to a version in the store or to an offer of a registry, and to nothing in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.registries import mark, publish
from yarnstore import Store
from yarnstore.core.digest import Sha256
from yarnstore.errors import NotFoundError
from yarnstore.ops.fetching.eligibility import require_eligible
from yarnstore.ops.session.lookup import Offered, lookup, offered_as
from yarnstore.ops.session.stored import Stored, stored_as
from yarnstore.registry.spec import Spec
from yarnstore.store.refs import VersionName

NAME = VersionName("m", "default", "1.0.0")


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    publish(tmp_path / "registry", "m@1.0.0", "m@1.1.0")
    return tmp_path / "registry"


@pytest.fixture
def store(tmp_path: Path, registry: Path) -> Store:
    store = Store.open(tmp_path / "home")
    store.add_registry("made", registry)
    return store


def test_what_is_not_in_the_store_is_offered(store: Store) -> None:
    with store._session() as session:
        found = lookup(session, Spec.parse("m@1.0.0"))
        assert isinstance(found, Offered)
        assert (found.name, found.source.name, found.entry.model_id) == (NAME, "made", "m")
        assert found.build.entry.manifest
        assert stored_as(session, NAME) is None


def test_an_exact_version_in_the_store_is_stored_and_a_range_is_asked_for(store: Store) -> None:
    digest = Sha256.parse(store.fetch("m@1.0.0").manifest)
    with store._session() as session:
        found = lookup(session, Spec.parse("m@1.0.0"))
        assert isinstance(found, Stored)
        assert (found.name, found.manifest.digest) == (NAME, digest)
        assert stored_as(session, NAME) is not None
        assert isinstance(lookup(session, Spec.parse("m@~1.0")), Offered)
        assert isinstance(lookup(session, Spec.parse("m")), Offered)
    with store._session(accept_change=True) as session:
        assert isinstance(lookup(session, Spec.parse("m@1.0.0")), Offered)


def test_a_version_that_is_to_be_downloaded_is_as_its_registry_says_now(store: Store, registry: Path) -> None:
    with store._session() as session:
        before = lookup(session, Spec.parse("m@1.0.0"))
        mark(registry, "m@1.0.0", deprecated=True)
        found = require_eligible(session, Spec.parse("m@1.0.0"), installing=True)
        assert isinstance(before, Offered)
        assert isinstance(found, Offered)
        assert (before.build.entry.deprecated, found.build.entry.deprecated) == (False, True)
        assert found.entry.versions["1.0.0"].deprecated


def test_a_name_is_offered_as_it_is_or_not_at_all(store: Store) -> None:
    with store._session() as session:
        assert offered_as(session, NAME) == lookup(session, Spec.parse("m@1.0.0"))
        for other in (VersionName("m", "cpu", "1.0.0"), VersionName("m", "default", "1.0.1")):
            with pytest.raises(NotFoundError):
                offered_as(session, other)


@pytest.mark.parametrize("spec", ["mine", "mine@^1.0", "mine@latest", "mine@3.0.0"])
def test_a_model_that_only_the_store_has_is_named_with_its_versions(
    spec: str, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "w.bin").write_bytes(b"weights")
    for version in ("1.0.0", "2.0.0"):
        store.import_model(tmp_path / "w.bin", f"mine@{version}")
    with pytest.raises(NotFoundError) as caught:
        store.checkout(spec)
    assert caught.value.hint == (
        "the store has 2.0.0, 1.0.0: name the version, as in `ystore checkout mine@2.0.0`"
    )
    store.checkout("mine@2.0.0")
