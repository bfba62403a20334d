"""Which versions of several models move together, against small made registries."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from yarnstore.core.digest import Sha256
from yarnstore.core.reflog import Installed
from yarnstore.registry.entries import VersionEntry
from yarnstore.registry.requirements import Requirements, needs_of_build, plan_together
from yarnstore.registry.select import Build
from yarnstore.registry.spec import Spec

MODELS = ("a", "b", "c")


def build(model: str, version: str, *requires: str) -> Build:
    return Build(model, version, "default", VersionEntry(requires=requires))


def installed(**versions: str) -> dict[str, Installed]:
    return {model: Installed(Sha256.of(b""), "default", version) for model, version in versions.items()}


def plan(now: Requirements, *builds: Build) -> tuple[dict[str, str], tuple[tuple[str, ...], ...]]:
    choices = {model: [found for found in builds if found.model == model] for model in now.versions}
    found = plan_together(now, choices)
    return {model: it.version for model, it in found.requirements.versions.items()}, found.groups


NEEDS_1 = {"a": (("a 1.0.0", Spec.parse("b@^1.0")),)}


def test_both_move_if_the_new_pair_fits_and_the_one_that_is_needed_moves_first() -> None:
    now = Requirements(installed(a="1.0.0", b="1.0.0"), NEEDS_1)
    assert plan(now, build("a", "2.0.0", "b@^2"), build("b", "2.0.0")) == (
        {"a": "2.0.0", "b": "2.0.0"},
        (("b", "a"),),
    )
    assert plan(now, build("b", "2.0.0")) == ({"a": "1.0.0", "b": "1.0.0"}, ())
    assert plan(now, build("a", "2.0.0", "b@^2")) == ({"a": "1.0.0", "b": "1.0.0"}, ())


def test_the_newest_pair_that_fits_is_taken() -> None:
    now = Requirements(installed(a="1.0.0", b="1.0.0"), NEEDS_1)
    bases = [build("b", "3.0.0"), build("b", "2.0.0")]
    assert plan(now, build("a", "2.0.0", "b@^2"), *bases)[0] == {"a": "2.0.0", "b": "2.0.0"}
    newer = [build("a", "4.0.0", "b@^4"), build("a", "3.0.0", "b@^3")]
    assert plan(now, *newer, *bases)[0] == {"a": "3.0.0", "b": "3.0.0"}


def test_a_move_that_breaks_nothing_comes_before_one_that_does() -> None:
    now = Requirements(installed(a="1.0.0", b="1.0.0"), NEEDS_1)
    assert plan(now, build("a", "2.0.0", "b@>=1"), build("b", "2.0.0"))[1] == (("a", "b"),)


def test_models_that_need_each_other_stay_since_neither_can_move_first() -> None:
    now = Requirements(installed(a="1.0.0", b="1.0.0"), {})
    found = plan(now, build("a", "2.0.0", "b@^2"), build("b", "2.0.0", "a@^2"))
    assert found == ({"a": "1.0.0", "b": "1.0.0"}, ())


def test_models_that_need_each_other_move_to_older_versions_that_do_not() -> None:
    now = Requirements(installed(a="1.0.0", b="1.0.0", c="1.0.0"), {})
    newest = build("a", "3.0.0", "b@^3"), build("b", "3.0.0", "a@^3"), build("c", "3.0.0", "a@^3")
    older = [build(model, "2.0.0") for model in MODELS]
    assert plan(now, *newest, *older)[0] == dict.fromkeys(MODELS, "2.0.0")
    old = build("a", "1.2.0"), build("b", "1.2.0")
    assert plan(now, *newest[:2], *old)[0] == {"a": "1.2.0", "b": "1.2.0", "c": "1.0.0"}


def test_what_needs_the_older_version_of_a_circle_moves_to_its_newest() -> None:
    now = Requirements(installed(a="1.0.0", b="1.0.0", c="1.0.0"), {})
    builds = [
        *(build("a", "3.0.0", "b@>=2"), build("a", "2.0.0")),
        *(build("b", "3.0.0", "c@^3"), build("b", "2.0.0")),
        *(build("c", "3.0.0", "b@^3"), build("c", "2.0.0")),
    ]
    assert plan(now, *builds)[0] == {"a": "3.0.0", "b": "2.0.0", "c": "2.0.0"}


def test_models_that_do_not_need_each_other_are_groups_of_their_own() -> None:
    now = Requirements(installed(a="1.0.0", b="1.0.0", c="1.0.0"), NEEDS_1)
    builds = [build("a", "1.1.0", "b@^1"), build("b", "1.1.0"), build("c", "2.0.0")]
    assert sorted(map(sorted, plan(now, *builds)[1])) == [["a", "b"], ["c"]]


VERSIONS = ("1.0.0", "2.0.0", "3.0.0")
SPECS = st.lists(
    st.builds(lambda model, n: f"{model}@^{n}", st.sampled_from(MODELS), st.integers(1, 3)), max_size=2
)


@given(st.lists(SPECS, min_size=9, max_size=9), st.sets(st.sampled_from(MODELS)))
def test_a_plan_fits_and_nothing_moves_before_what_it_needs(
    specs: list[list[str]], movable: set[str]
) -> None:
    named = list(itertools.product(MODELS, VERSIONS))
    builds = {
        (model, version): build(model, version, *(spec for spec in found if spec[0] != model))
        for (model, version), found in zip(named, specs, strict=True)
    }
    versions = installed(**dict.fromkeys(MODELS, "1.0.0"))
    needs = {model: needs_of_build(builds[model, "1.0.0"]) for model in MODELS}
    now = Requirements(
        versions,
        {m: tuple(n for n in found if not n[1].instead(versions[n[1].model])) for m, found in needs.items()},
    )
    choices = {model: [builds[model, version] for version in ("3.0.0", "2.0.0")] for model in movable}
    found = plan_together(now, choices)
    assert found.requirements.unmet() is None
    moved = {m: b for m, b in found.requirements.versions.items() if isinstance(b, Build)}
    assert moved.keys() <= movable
    state = now
    for model in itertools.chain(*found.groups):
        for _, spec in needs_of_build(moved[model]):
            other = state.versions[spec.model]
            assert spec.admits(other.variant, other.version)  # what it needs has moved before it
        state = state.moved([moved[model]])
    assert dict(state.versions) == dict(found.requirements.versions)
    for model, newer in choices.items():
        for each in newer[: newer.index(moved[model]) if model in moved else None]:
            assert needs_of_build(each) or found.requirements.conflict(each)  # it could move further
