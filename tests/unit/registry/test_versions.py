import random

import pytest

from yarnstore.errors import InvalidNameError
from yarnstore.registry.versions import (
    is_breaking,
    is_prerelease,
    precedence,
    security_between,
    sort_versions,
    update_type,
)

# semver.org §11, and a release on either side.
IN_ORDER = [
    "0.9.9",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.9.0",
    "1.10.0",
    "2.0.0",
]


def test_order_is_that_of_semver_org():
    shuffled = IN_ORDER.copy()
    random.Random(1).shuffle(shuffled)
    assert sort_versions(shuffled) == IN_ORDER
    assert sort_versions(shuffled, newest_first=True) == IN_ORDER[::-1]


def test_build_metadata_has_no_part_in_precedence_but_sorts_by_text():
    assert precedence("1.0.0+a") == precedence("1.0.0+b") == precedence("1.0.0")
    assert sort_versions(["1.0.0+b", "1.0.0", "1.0.0+a"]) == ["1.0.0", "1.0.0+a", "1.0.0+b"]


def test_a_hyphen_in_build_metadata_makes_no_prerelease():
    assert not is_prerelease("1.0.0+build-1")
    assert is_prerelease("1.0.0-rc.1+build")


@pytest.mark.parametrize("text", ["1.1", "v1.0.0", "1.0.0-01", "01.0.0", "1.0.0\n", "١.0.0", ""])
def test_what_is_no_version_is_refused(text):
    with pytest.raises(InvalidNameError):
        precedence(text)


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ("1.2.3", "1.2.3", "none"),
        ("1.2.3+a", "1.2.3+b", "none"),
        ("1.2.3", "1.2.4", "patch"),
        ("1.2.3", "1.3.0", "minor"),
        ("1.2.3", "2.0.0", "major"),
        ("0.1.0", "0.2.0", "minor"),
        ("1.2.3", "1.2.2", "downgrade"),
        ("2.0.0", "2.0.0-rc.1", "downgrade"),
        ("1.2.3", "2.0.0-rc.1", "prerelease"),
        ("2.0.0-rc.1", "2.0.0-rc.2", "prerelease"),
        # node-semver's table for diff(), where the older one is a prerelease
        ("1.0.0-1", "1.0.0", "major"),
        ("1.0.0-1", "1.1.1", "major"),
        ("1.0.0-1", "2.1.1", "major"),
        ("1.0.1-1", "1.0.1", "patch"),
        ("0.0.2-1", "0.0.2", "patch"),
        ("0.0.2-1", "0.0.3", "patch"),
        ("0.0.2-1", "0.1.0", "minor"),
        ("0.0.2-1", "1.0.0", "major"),
        ("0.1.0-1", "0.1.0", "minor"),
        ("0.1.0-1", "1.0.0", "major"),
    ],
)
def test_update_type(old, new, kind):
    assert update_type(old, new) == kind


def test_security_outranks_every_step_forward_and_no_other():
    assert update_type("1.0.0", "2.0.0", security=True) == "security"
    assert update_type("1.0.0", "1.0.1-rc.1", security=True) == "security"
    assert update_type("1.0.1", "1.0.0", security=True) == "downgrade"
    assert update_type("1.0.0", "1.0.0", security=True) == "none"


@pytest.mark.parametrize(
    ("version", "between"),
    [("1.0.0", False), ("1.0.1", True), ("1.5.0", True), ("2.0.0", True), ("2.0.1", False)],
)
def test_a_security_version_counts_after_the_old_and_up_to_the_new(version, between):
    assert security_between("1.0.0", "2.0.0", ["0.1.0", version]) is between


@pytest.mark.parametrize(
    ("old", "new", "breaking"),
    [
        ("1.0.0", "1.9.9", False),
        ("1.0.0", "2.0.0", True),
        ("2.0.0", "1.0.0", True),
        ("0.1.0", "0.1.9", False),
        ("0.1.0", "0.2.0", True),
        ("0.1.0", "1.0.0", True),
        ("0.0.1", "0.0.2", True),
        ("0.0.1", "0.0.1", False),
    ],
)
def test_breaking_is_what_a_caret_range_leaves_out(old, new, breaking):
    assert is_breaking(old, new) is breaking
