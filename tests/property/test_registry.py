"""Properties of the registry package: what it raises, what it gives back, what its order is."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable

import semver
from hypothesis import assume, example, given
from hypothesis import strategies as st

from yarnstore.core.limits import VERSION_LIMIT_CHARS
from yarnstore.core.names import is_version
from yarnstore.errors import FormatError, NotFoundError, SpecError, YarnstoreError
from yarnstore.registry.edit import add_version, decode_registry, encode_registry, new_registry
from yarnstore.registry.entries import ModelEntry, RegistryDoc, VersionEntry
from yarnstore.registry.ranges import Range
from yarnstore.registry.schema import parse_model, parse_registry
from yarnstore.registry.select import iter_builds, resolve
from yarnstore.registry.spec import Spec
from yarnstore.registry.versions import is_breaking, precedence, sort_versions, update_type

small = st.integers(0, 3)
identifiers = st.one_of(small.map(str), st.sampled_from(["a", "rc", "beta-2", "0a", "-"]))
prereleases = st.lists(identifiers, max_size=3).map(".".join)
versions = st.builds(
    lambda a, b, c, pre, build: f"{a}.{b}.{c}" + (f"-{pre}" if pre else "") + (f"+{build}" if build else ""),
    small,
    small,
    small,
    prereleases,
    st.sampled_from(["", "", "b.01"]),
)
names = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,10}[A-Za-z0-9])?", fullmatch=True)
PIECES = (
    """phi phi-3 org/ : @ @@ 1 1.2 1.2.3 01 -rc.1 +b ^ ~ ~> >= <= < > = v x * . - || , latest \0 \x1b é"""
)
pieces = st.sampled_from([*PIECES.split(" "), " ", " - "])
spec_like = st.one_of(st.text(), st.lists(pieces, max_size=12).map("".join))


def attempt(call: Callable[..., object], *args: object) -> object:
    """What a call returns, or the error it raises on purpose."""
    try:
        return call(*args)
    except YarnstoreError as error:
        return error


@given(spec_like)
@example("phi@v1.0.0")
@example("phi@ ^1")
def test_a_spec_is_read_or_refused_and_comes_back(text: str) -> None:
    spec = attempt(Spec.parse, text)
    if isinstance(spec, Spec):
        assert Spec.parse(str(spec)) == spec
        assert str(Spec.parse(str(spec))) == str(spec)
    else:
        assert isinstance(spec, SpecError)
        assert spec.message.isprintable()


@given(
    names, st.none() | names, st.none() | versions | st.sampled_from(["latest", "^1.2", "1 - 2", "x || 1"])
)
def test_a_well_made_spec_is_read(model: str, variant: str | None, selector: str | None) -> None:
    text = model + (f":{variant}" if variant else "") + (f"@{selector}" if selector else "")
    spec = attempt(Spec.parse, text)
    if isinstance(spec, SpecError):
        assert "device name" in spec.message
    else:
        assert isinstance(spec, Spec)
        assert (spec.model, spec.variant, str(spec)) == (model, variant, text)


@given(spec_like)
def test_a_range_is_read_or_refused_and_comes_back(text: str) -> None:
    try:
        parsed = Range.parse(text)
    except SpecError:
        return
    assert Range.parse(str(parsed)) == parsed


# The grammar of semver.org, as releases before `semver` was used for it had it: the same texts are read.
SEMVER_ORG = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*)?"
    r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)
version_like = st.one_of(
    versions,
    st.text(),
    st.text(alphabet="0123456789.-+aZ٣ \nv", max_size=20),
    st.builds("{}{}{}".format, versions, st.sampled_from("-+.\n ٣0"), st.text("01a-.+٣\n", max_size=6)),
    st.integers(VERSION_LIMIT_CHARS - 7, VERSION_LIMIT_CHARS).map(lambda n: "1.0.0-" + "9" * n),
)


@given(version_like)
def test_versions_are_read_as_semver_org_defines_them(text: str) -> None:
    expected = len(text) <= VERSION_LIMIT_CHARS and SEMVER_ORG.fullmatch(text) is not None
    assert is_version(text) == expected


@given(versions, versions)
def test_order_is_that_of_the_semver_package(left: str, right: str) -> None:
    ours = (precedence(left) > precedence(right)) - (precedence(left) < precedence(right))
    assert ours == semver.Version.parse(left).compare(right)


@given(st.lists(versions))
def test_sorting_is_a_permutation_in_order(many: list[str]) -> None:
    ordered = sort_versions(many)
    assert sorted(ordered) == sorted(many)
    assert all(precedence(a) <= precedence(b) for a, b in itertools.pairwise(ordered))


@given(versions, versions)
def test_update_types_agree_with_the_order(old: str, new: str) -> None:
    kind = update_type(old, new)
    assert (kind == "downgrade") == (precedence(new) < precedence(old))
    assert (kind == "none") == (precedence(new) == precedence(old))
    if kind == "prerelease":
        assert not precedence(new).released


@given(versions, versions)
def test_a_step_forward_breaks_unless_a_caret_range_keeps_it(old: str, new: str) -> None:
    assume(precedence(new) >= precedence(old))
    kept = Range.parse(f"^{old}").matches(new, include_prereleases=True)
    if kept:
        assert not is_breaking(old, new)
    elif precedence(new).released:
        assert is_breaking(old, new)


# A second reading of ranges: each form as a predicate on (major, minor, patch), releases only.
Triple = tuple[int, int, int]


def naive(op: str, want: list[int], have: Triple) -> bool:
    """What node-semver's README says in words, without bounds or bumps."""
    head = have[: len(want)]
    low = (*want, 0, 0, 0)[:3]
    if op in ("", "="):
        return head == tuple(want)
    if op == ">=":
        return have >= low
    if op == "<":
        return have < low
    if op == ">":
        return head > tuple(want)
    if op == "<=":
        return head <= tuple(want)
    if op == "~":  # patch-level changes if a minor version is given, minor-level changes if not
        return have >= low and have[: min(2, len(want))] == tuple(want[:2])
    # ^: no change to the left-most non-zero number, as far as numbers are given
    for index, number in enumerate(want):
        if have[index] != number:
            return False
        if number:
            break
    return have >= low


comparators = st.tuples(
    st.sampled_from(["", "=", ">=", "<", ">", "<=", "~", "^"]), st.lists(small, min_size=1, max_size=3)
)
triples = st.tuples(small, small, small)


@given(st.lists(st.lists(comparators, min_size=1, max_size=3), min_size=1, max_size=3), triples, st.data())
def test_ranges_agree_with_a_naive_reading(
    alternatives: list[list[tuple[str, list[int]]]], have: Triple, data: st.DataObject
) -> None:
    def spelled(op: str, want: list[int]) -> str:
        filled = [str(number) for number in want]
        if len(want) < 3:
            filled += [data.draw(st.sampled_from(["x", "X", "*"]))] * data.draw(st.integers(0, 3 - len(want)))
        return op + data.draw(st.sampled_from(["", "", " "] if op else [""])) + ".".join(filled)

    comma_or_space = data.draw(st.sampled_from([" ", ", ", ","]))
    text = " || ".join(comma_or_space.join(spelled(*each) for each in every) for every in alternatives)
    expected = any(all(naive(op, want, have) for op, want in every) for every in alternatives)
    version = ".".join(map(str, have))
    assert Range.parse(text).matches(version) is expected
    assert Range.parse(text).matches(version, include_prereleases=True) is expected


@given(st.lists(small, min_size=1, max_size=3), st.lists(small, min_size=1, max_size=3), triples)
def test_hyphen_ranges_agree_with_a_naive_reading(low: list[int], high: list[int], have: Triple) -> None:
    text = f"{'.'.join(map(str, low))} - {'.'.join(map(str, high))}"
    assert Range.parse(text).matches(".".join(map(str, have))) is (
        naive(">=", low, have) and naive("<=", high, have)
    )


@given(spec_like, versions)
def test_prereleases_are_in_only_where_they_are_named(text: str, version: str) -> None:
    assume(not precedence(version).released)
    try:
        parsed = Range.parse(text)
    except SpecError:
        return
    if parsed.matches(version):
        core = ".".join(map(str, precedence(version).core))
        assert f"{core}-" in text
        assert parsed.matches(version, include_prereleases=True)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(
    [*VersionEntry.__struct_fields__, *ModelEntry.__struct_fields__, "path", "sha256", "base"]
)
objects = st.dictionaries(fields, json_values, max_size=4)
version_entries = st.one_of(json_values, objects, st.just({}))
model_entries = st.one_of(
    json_values,
    st.builds(
        lambda extra, every: {**extra, "versions": every},
        objects,
        st.one_of(json_values, st.dictionaries(st.one_of(versions, st.text(max_size=5)), version_entries)),
    ),
)
registries = st.one_of(
    json_values,
    st.dictionaries(st.one_of(names, st.text(max_size=5)), model_entries, max_size=3).map(
        lambda models: {"models": models}
    ),
)


@given(st.one_of(st.binary(), registries.map(lambda raw: json.dumps(raw).encode())))
def test_reading_a_registry_raises_format_errors_only(data: bytes) -> None:
    for parse in (parse_registry, parse_model, decode_registry):
        read = attempt(parse, data)
        assert isinstance(read, RegistryDoc | ModelEntry | dict | FormatError)


@given(registries, spec_like)
def test_what_is_read_can_be_resolved_or_says_why(raw: object, text: str) -> None:
    doc = attempt(parse_registry, json.dumps(raw).encode())
    spec = attempt(Spec.parse, "m@" + text)
    if isinstance(doc, RegistryDoc) and isinstance(spec, Spec):
        for entry in doc.models.values():
            build = attempt(resolve, entry, spec)
            assert isinstance(build, NotFoundError) or build in list(iter_builds(entry))


@given(st.lists(st.tuples(names, versions, names, st.sampled_from("abc")), max_size=8))
def test_what_is_published_is_there_and_publishing_it_again_does_nothing(
    many: list[tuple[str, str, str, str]],
) -> None:
    raw = new_registry("then")
    accepted = []
    for model, version, variant, letter in many:
        entry = {"checksum": letter * 64}
        before = encode_registry(raw)
        try:
            changed = add_version(raw, model=model, version=version, variant=variant, entry=entry, now="now")
        except YarnstoreError:
            assert encode_registry(raw) == before
            continue
        accepted.append((model, version, variant, letter))
        assert changed == (encode_registry(raw) != before)
    written = encode_registry(raw)
    doc = parse_registry(written)
    for model, version, variant, letter in accepted:
        entry = {"checksum": letter * 64}
        assert (
            resolve(doc.models[model], Spec.parse(f"{model}:{variant}@{version}")).entry.checksum
            == letter * 64
        )
        assert not add_version(raw, model=model, version=version, variant=variant, entry=entry, now="later")
    assert encode_registry(raw) == written
    assert encode_registry(decode_registry(written)) == written
