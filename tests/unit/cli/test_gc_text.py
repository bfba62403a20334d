"""What `ystore gc` says of views that it keeps."""

from __future__ import annotations

from dataclasses import replace

from yarnstore.cli.commands.gc_ import _text
from yarnstore.results import GcResult, KeptView

_KEPT = GcResult(
    dry_run=False,
    freed_bytes=0,
    versions=[],
    packs_removed=0,
    packs_rewritten=0,
    chunks_removed=0,
    kept={"installed": 1},
    kept_views=[
        KeptView(
            model="m",
            variant="default",
            version="1.0.0",
            path="/store/views/a",
            size_bytes=2_000_000,
            until_ms=86_400_000,
        ),
        KeptView(
            model="", variant="", version="", path="/store/views/b", size_bytes=1_000_000, until_ms=None
        ),
    ],
    grace_bytes=2_000_000,
    low_on_space=True,
)


def test_each_kept_view_is_named_with_its_size() -> None:
    lines = _text(_KEPT).splitlines()
    assert lines[2].startswith("kept view: m 1.0.0, 2.0 MB (printed by `path`, kept until 1970-01-0")
    assert lines[3] == "kept view: /store/views/b, 1.0 MB (a process has it open)"


def test_the_way_to_space_is_shown_where_the_disk_is_below_its_reserve() -> None:
    assert "`ystore gc --grace 0` frees 2.0 MB" in _text(_KEPT).splitlines()[-1]
    assert "--grace" not in _text(replace(_KEPT, low_on_space=False))
    assert "--grace" not in _text(replace(_KEPT, grace_bytes=0))


def test_a_time_beyond_all_calendars_is_shown() -> None:
    far = replace(_KEPT.kept_views[0], until_ms=10**18)
    assert "until 29" in _text(replace(_KEPT, kept_views=[far]))
