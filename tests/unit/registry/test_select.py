import json

import pytest

from yarnstore.errors import InvalidNameError, NotFoundError
from yarnstore.registry.entries import VersionEntry
from yarnstore.registry.schema import parse_model, parse_registry
from yarnstore.registry.select import compatible, find_model, iter_builds, latest_version, resolve
from yarnstore.registry.spec import Spec


def entry(versions, **fields):
    return parse_model(json.dumps({"model_id": "phi", "versions": versions, **fields}).encode())


PHI = entry(
    {
        "1.0.0": {"variant": "cpu"},
        "1.1.0": {"variant": "cpu", "variants": {"gpu": {}, "npu": {"yanked": True}}},
        "1.2.0": {"variant": "cpu", "yanked": True},
        "2.0.0": {"variant": "gpu"},
        "2.1.0-rc.1": {"variant": "gpu"},
        "0.9.0": {},
    },
    current_version="1.1.0",
    aliases={"stable": "1.0.0", "old": "1.2.0", "gone": "9.9.9", "bad\x1b": "1.0.0", "worse": "\x1b[2J"},
)


def chosen(text, model=PHI, **options):
    build = resolve(model, Spec.parse(text), **options)
    return f"{build.version} {build.variant}"


@pytest.mark.parametrize(
    ("spec", "build"),
    [
        ("phi", "1.1.0 cpu"),
        ("phi@latest", "1.1.0 cpu"),
        ("phi:gpu", "1.1.0 gpu"),
        ("phi@stable", "1.0.0 cpu"),
        ("phi@1.0.0", "1.0.0 cpu"),
        ("phi@0.9.0", "0.9.0 default"),
        ("phi:default@0.9.0", "0.9.0 default"),
        ("phi@*", "2.0.0 gpu"),
        ("phi@^1", "1.1.0 cpu"),
        ("phi:cpu@*", "1.1.0 cpu"),
        ("phi@<1", "0.9.0 default"),
        ("phi@>=2.1.0-0", "2.1.0-rc.1 gpu"),
        ("phi@2.1.0-rc.1", "2.1.0-rc.1 gpu"),
        ("phi@1.2.0", "1.2.0 cpu"),
        ("phi:npu@1.1.0", "1.1.0 npu"),
    ],
)
def test_what_a_spec_comes_to(spec, build):
    assert chosen(spec) == build


def test_prereleases_only_where_asked():
    assert chosen("phi@>=1") == "2.0.0 gpu"
    assert chosen("phi@>=1", include_prereleases=True) == "2.1.0-rc.1 gpu"


def test_the_first_preferred_variant_that_is_there_wins_and_the_spec_outranks_it():
    assert chosen("phi", prefer=["npu", "tpu", "gpu", "cpu"]) == "1.1.0 gpu"
    assert chosen("phi", prefer=["tpu"]) == "1.1.0 cpu"
    assert chosen("phi:cpu", prefer=["gpu"]) == "1.1.0 cpu"


def test_an_exact_version_prefers_a_build_that_is_not_yanked():
    model = entry({"1.0.0": {"variant": "a", "variants": {"b": {}}}})
    model.versions["1.0.0"] = VersionEntry(
        variant="a", variants={"b": VersionEntry(yanked=True), "c": VersionEntry()}
    )
    assert chosen("phi@1.0.0", model, prefer=["b", "c"]) == "1.0.0 c"


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("phi@1.1.1", 'no version "1.1.1" in phi. Did you mean 1.1.0', "it has 2.1.0-rc.1, 2.0.0,"),
        ("phi@^3", 'no version "^3" in phi', "it has 2.1.0-rc.1"),
        ("phi@~2.1", 'no version "~2.1" in phi', "2.1.0-rc.1 is a prerelease; to use it: phi@2.1.0-rc.1"),
        ("phi@~1.2", 'no version "~1.2" in phi', "1.2.0 is withdrawn; to use it: phi@1.2.0 with --force"),
        ("phi:gpu@~1.0", 'no version "~1.0" in phi', "1.0.0 has only cpu"),
        (
            "phi:npu@~1.1",
            'no version "~1.1" in phi',
            "1.1.0 is withdrawn; to use it: phi:npu@1.1.0 with --force",
        ),
        ("phi:npu", 'no usable version "1.1.0" in phi', "it is withdrawn; to use it: phi:npu@1.1.0"),
        ("phi@old", 'no usable version "1.2.0" in phi', "it is withdrawn; to use it: phi@1.2.0"),
        ("phi:gpu@stable", 'no variant "gpu" in phi 1.0.0', "2.1.0-rc.1 has it: phi:gpu@2.1.0-rc.1"),
        ("phi:tpu", 'no variant "tpu" in phi 1.1.0. Did you mean', "it has cpu, gpu, npu"),
        ("phi@stabel", 'no alias "stabel" in phi. Did you mean stable?', "latest, stable, old, gone, worse"),
        ("phi@gone", 'no version "9.9.9" in phi', "the alias gone in the registry points to it"),
        ("phi@worse", "no version \"'\\x1b[2J'\" in phi", "the alias worse in the registry points to it"),
    ],
)
def test_what_is_not_there_says_what_is(spec, message, hint):
    with pytest.raises(NotFoundError) as caught:
        chosen(spec)
    assert caught.value.message.startswith(message)
    assert hint in caught.value.hint
    assert (caught.value.message + caught.value.hint).isprintable()


@pytest.mark.parametrize(
    ("versions", "current", "latest"),
    [
        ({"1.0.0": {}, "2.0.0": {}}, "1.0.0", "1.0.0"),
        ({"1.9.0": {}, "1.10.0": {}}, None, "1.10.0"),
        ({"1.0.0": {}, "2.0.0-rc.1": {}, "1.5.0": {"yanked": True}}, None, "1.0.0"),
        ({"1.0.0": {}, "1.1.0": {"yanked": True}, "2.0.0": {}}, "1.1.0", "1.0.0"),
        ({"1.0.0": {"yanked": True, "variants": {"b": {}}}}, "1.0.0", None),
        ({"1.0.0-rc.1": {}}, "1.0.0-rc.1", "1.0.0-rc.1"),
        ({"1.0.0-rc.1": {}}, None, None),
        ({"1.0.0": {}}, "3.0.0", "3.0.0"),
        ({}, None, None),
    ],
)
def test_latest(versions, current, latest):
    model = entry(versions, current_version=current)
    assert latest_version(model) == latest
    if latest not in versions:
        with pytest.raises(NotFoundError):
            chosen("phi", model)


def test_all_builds_newest_version_first():
    assert [(build.version, build.variant) for build in iter_builds(PHI)] == [
        ("2.1.0-rc.1", "gpu"),
        ("2.0.0", "gpu"),
        ("1.2.0", "cpu"),
        ("1.1.0", "cpu"),
        ("1.1.0", "gpu"),
        ("1.1.0", "npu"),
        ("1.0.0", "cpu"),
        ("0.9.0", "default"),
    ]


def test_a_variant_takes_what_holds_for_the_version_and_nothing_else():
    model = entry(
        {
            "1.0.0": {
                "download_url": "https://a",
                "size_bytes": 1,
                "minimum_ram_gb": 4,
                "changelog": "for all",
                "compatibility": [">=1"],
                "security": True,
                "variants": {"b": {"size_bytes": 2}, "c": {"changelog": "own", "compatibility": [">=2"]}},
            }
        }
    )
    first, b, c = (build.entry for build in iter_builds(model))
    assert (first.size_bytes, first.variants) == (1, {})
    assert b == VersionEntry(
        variant="b", size_bytes=2, changelog="for all", compatibility=(">=1",), security=True
    )
    assert (c.changelog, c.compatibility, c.security) == ("own", (">=2",), True)


@pytest.mark.parametrize(
    ("ranges", "app", "fits"),
    [
        ([], "1.0.0", True),
        ([">=2"], None, True),
        ([">=1.0.0"], "1.5.0", True),
        ([">=1.0.0", "<1.5"], "1.5.0", False),
        ([">=2.0.0"], "2.0.0-beta.1", False),
        ([">=1.0.0"], "2.0.0-beta.1", True),
        (["<2"], "2.0.0-beta.1", False),
        (["whatever"], "1.0.0", False),
    ],
)
def test_compatible(ranges, app, fits):
    assert compatible(VersionEntry(compatibility=tuple(ranges)), app) is fits


def test_an_application_without_a_version_is_a_mistake():
    with pytest.raises(InvalidNameError):
        compatible(VersionEntry(), "1.5")


def test_a_model_that_is_not_there():
    doc = parse_registry(b'{"models":{"phi-3-mini":{"versions":{}},"whisper":{"versions":{}}}}')
    assert find_model(doc, "whisper").model_id == "whisper"
    for asked in ("phi3-mini", "PHI-3-mini"):
        with pytest.raises(NotFoundError) as caught:
            find_model(doc, asked, where="yarn")
        assert caught.value.message == f'no model "{asked}" in yarn. Did you mean phi-3-mini?'


def test_a_near_name_is_found_among_many():
    names = [f"model-{number:06d}-{'base' if number % 2 else 'chat'}" for number in range(100_000)]
    models = {name: {"versions": {}} for name in [*names, "microsoft/phi-3-mini-128k-instruct"]}
    doc = parse_registry(json.dumps({"models": models}).encode())
    for asked, near in (
        ("modl-001234-chat", "model-001234-chat"),
        ("microsoft/phi3-mini-128k-instruct", "microsoft/phi-3-mini-128k-instruct"),
    ):
        with pytest.raises(NotFoundError) as caught:
            find_model(doc, asked)
        assert caught.value.fields["near"][0] == near
