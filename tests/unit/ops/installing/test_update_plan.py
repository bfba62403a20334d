"""`outdated`, `update --dry-run` and `update` share one plan: what the first two say, the last does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.registries import publish
from tests.support.stores import MODEL, Site, make_site
from yarnstore import Store
from yarnstore.ops.installing.update_plan import plan_update
from yarnstore.registry.decide import DEFAULT_POLICY
from yarnstore.registry.spec import Spec
from yarnstore.store.chunks import ChunkStore


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = make_site(tmp_path)
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
    return site


@pytest.mark.parametrize("spec", [MODEL, f"{MODEL}@1.2.0"])
def test_the_figures_are_the_same_before_and_after(site: Site, spec: str) -> None:
    with site.store() as store:
        outdated = store.check_for_updates(MODEL)[0]
        planned = store.update_model(spec, dry_run=True)
        done = store.update_model(spec)
        assert (outdated.wanted, outdated.download_bytes) == (planned.version, planned.download_bytes)
        assert (planned.version, planned.previous) == (done.version, done.previous) == ("1.2.0", "1.0.0")
        assert planned.download_bytes == done.download_bytes
        assert planned.download_bytes
        shared = ("kind", "breaking", "changes", "changelog", "size_bytes", "registry", "variant")
        assert [getattr(planned, name) for name in shared] == [getattr(done, name) for name in shared]
        assert (outdated.kind, outdated.changes) == (planned.kind, planned.changes)


def test_a_plan_is_made_before_anything_is_changed(site: Site) -> None:
    with site.store() as store, store._session() as session:
        layout = session.layout
        with layout.shared(), ChunkStore(layout) as chunks:
            plan = plan_update(session, Spec.parse(MODEL), DEFAULT_POLICY, chunks)
            assert (plan.installs, plan.outcome.status) == (True, "planned")
            forecast = plan.forecast()
            assert session.refs.current(MODEL) == plan.current
            assert forecast.path == store.path(MODEL)
            done = plan.apply(0.0)
        assert (done.status, done.version, done.download_bytes) == (
            "updated",
            forecast.version,
            forecast.download_bytes,
        )


def test_a_plan_with_nothing_to_install_changes_nothing(tmp_path: Path) -> None:
    publish(tmp_path / "registry", "m@1.0.0", "m@2.0.0")
    with Store.open(tmp_path / "home") as store:
        store.add_registry("made", tmp_path / "registry")
        store.checkout("m@1.0.0")
        with store._session() as session, session.layout.shared(), ChunkStore(session.layout) as chunks:
            plan = plan_update(session, Spec.parse("m"), DEFAULT_POLICY, chunks)
            assert (plan.installs, plan.outcome.status, plan.outcome.version) == (False, "current", "1.0.0")
            assert plan.goal is not None
            assert plan.goal.name.version == "2.0.0"
            assert plan.apply(0.0).version == "1.0.0"
            assert "update --major" in str(plan.outcome.note)
