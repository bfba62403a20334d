"""The case scripts, each a test of its own, where their folder is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cases.scripts import case_name, case_scripts, cases_root, run_case


def test_the_folder_of_the_scripts_is_here() -> None:
    if not case_scripts():
        pytest.skip(f"no case scripts in {cases_root()}: YSTORE_TEST_CASES names their folder")


# Those that hold; a script joins them with the change that makes it right.  `make cases` runs all.
_RIGHT = (
    "attack/01-gc-through-linked-folders",
    "attack/02-fsck-false-alarm-beside-writers",
    "attack/03-repair-does-not-keep-a-view-for-a-day",
    "attack/04-extra-file-in-a-view",
    "attack/05-broken-view-is-served",
    "attack/07-remove-all-races-checkout",
    "attack/08-publish-follows-links-out-of-its-folder",
    "attack/10-gc-takes-the-view-that-path-gave",
    "attack/09-registry-json-asks-for-gigabytes",
    "attack/13-nobody-warns-of-a-pickle",
    "attack/14-path-mixes-two-versions",
    "field/01-closed-stdio",
    "field/02-no-home-no-passwd",
    "field/04-registry-in-source",
    "field/05-build-metadata",
    "field/06-executable-bit",
    "field/07-portal",
    "field/08-proxy",
    "field/10-download-address",
    "field/11-bad-name-exit",
    "field/13-export-slash",
    "field/14-downloader-leavings",
    "field/17-small-full-disk",
    "use/01-publish-again-keeps-the-entry",
    "use/02-update-to-a-version",
    "use/03-older-local-state",
    "use/04-dry-run-says-what-the-run-frees",
    "use/05-a-range-that-nothing-matches",
    "use/06-quiet-is-quiet",
    "use/07-what-is-stored",
    "use/08-completion-and-help",
)


@pytest.mark.parametrize(
    "script", [script for script in case_scripts() if case_name(script) in _RIGHT], ids=case_name
)
def test_a_case_ends_right(script: Path) -> None:
    outcome = run_case(script)
    if outcome.word == "not here":
        pytest.skip(outcome.why)
    assert outcome.word == "right", outcome.output
