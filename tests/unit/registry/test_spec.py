import pytest

from yarnstore.errors import SpecError
from yarnstore.registry.ranges import Range
from yarnstore.registry.spec import Alias, Exact, Spec, is_alias


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("phi-3-mini", Spec("phi-3-mini")),
        ("phi-3-mini@1.1.0", Spec("phi-3-mini", None, Exact("1.1.0"))),
        ("phi-3-mini@v1.1.0", Spec("phi-3-mini", None, Exact("1.1.0"))),
        ("phi-3-mini@V1.1.0", Spec("phi-3-mini", None, Exact("1.1.0"))),
        ("phi-3-mini@V1.x", Spec("phi-3-mini", None, Range.parse("v1.x"))),
        ("phi-3-mini@Vnext", Spec("phi-3-mini", None, Alias("Vnext"))),
        ("phi-3-mini@1.1.0-rc.1+b", Spec("phi-3-mini", None, Exact("1.1.0-rc.1+b"))),
        ("phi-3-mini@^1.1", Spec("phi-3-mini", None, Range.parse("^1.1"))),
        ("phi-3-mini@>=1 <2 || 3.x", Spec("phi-3-mini", None, Range.parse(">=1 <2 || 3.x"))),
        ("phi-3-mini@x", Spec("phi-3-mini", None, Range.parse("x"))),
        ("phi-3-mini@v2", Spec("phi-3-mini", None, Range.parse("v2"))),
        ("phi-3-mini@vnext", Spec("phi-3-mini", None, Alias("vnext"))),
        ("phi-3-mini:cpu-int4@latest", Spec("phi-3-mini", "cpu-int4", Alias("latest"))),
        ("microsoft/phi-3:gpu", Spec("microsoft/phi-3", "gpu")),
    ],
)
def test_what_a_spec_means(text, spec):
    assert Spec.parse(text) == spec
    assert Spec.parse(str(spec)) == spec


def test_a_partial_version_is_a_range_as_npm_reads_it():
    wanted = Spec.parse("phi@1.1").selector
    assert isinstance(wanted, Range)
    assert [v for v in ("1.0.9", "1.1.0", "1.1.9", "1.2.0") if wanted.matches(v)] == ["1.1.0", "1.1.9"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("   ", "it is empty"),
        ("@1.0.0", "no model before '@'"),
        (":cpu", "no model before ':'"),
        ("phi@", "nothing after '@'"),
        ("phi@  ", "nothing after '@'"),
        ("phi@1@2", "more than one '@'"),
        ("@org/phi@1", "more than one '@'"),
        ("phi:a:b", "more than one ':'"),
        ("phi:", "variant '' is empty"),
        ("a/b/c", "more than one '/'"),
        ("../etc/passwd", "more than one '/'"),
        ("../x", "begin with a letter or digit"),
        ("phi\x1b[2J", "may contain only letters"),
        ("phi\n", "may contain only letters"),
        ("con", "device name"),
        ("phi:nul", "device name"),
        ("phi@1.0.0\x00", "printable"),
        ("phi@-1", "is not a version"),
        ("phi@1.0.0.0", "more than three numbers"),
        ("phi@" + "a" * 97, "is not a version"),
        ("a" * 1000, "longer than"),
    ],
)
def test_a_malformed_spec_says_why(text, why):
    with pytest.raises(SpecError) as caught:
        Spec.parse(text)
    assert why in caught.value.fields["why"]
    assert caught.value.message.isprintable()  # nothing of a hostile spec reaches a terminal raw


@pytest.mark.parametrize("word", ["latest", "stable", "beta", "LTS", "a.b_c-1", "v2-stable", "xl", "v"])
def test_words_that_can_be_aliases(word):
    assert is_alias(word)
    assert Spec.parse(f"phi@{word}").selector == Alias(word)


@pytest.mark.parametrize(
    "word", ["", "1", "x", "X", "v1", "V1", "v1.2.3", "V1.2.3", "x.x", "-a", "a b", "é", "a" * 97]
)
def test_words_that_can_not(word):
    assert not is_alias(word)
