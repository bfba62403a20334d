"""The mutants: text of the package, what stands there without a check, and the tests that see it.

The text is looked for in the whole package and must stand in one place, so that modules may move.  A
change to the text itself is a change here: `make test` says so.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """`before` is exact text of one module, `after` what replaces it; one of `tests` must fail."""

    name: str
    before: str
    after: str
    tests: tuple[str, ...]


_SYNCED = "tests/faults/test_crash.py::test_everything_is_synced_before_it_counts"

MUTANTS = (
    Mutant(
        "folder of a new reflog not synced",
        "            os.fsync(fd)\n        finally:\n            os.close(fd)\n    if is_new:\n",
        "            os.fsync(fd)\n        finally:\n            os.close(fd)\n    if False:\n",
        (f"{_SYNCED}[checkout]",),
    ),
    Mutant(
        "folders of a view not synced before its rename",
        "        for folder in folders:\n            fsio.sync_dir(folder)\n",
        "",
        (f"{_SYNCED}[checkout]",),
    ),
    Mutant(
        "index published before its pack",
        "        fsio.ensure_dir(folder.packs)\n"
        "        file.publish(folder.pack(index.pack))\n"
        "    write_index(folder, index)\n",
        "        fsio.ensure_dir(folder.packs)\n"
        "        write_index(folder, index)\n"
        "        file.publish(folder.pack(index.pack))\n",
        (f"{_SYNCED}[fetch]",),
    ),
    Mutant(
        "pack dropped before its index",
        "    fsio.to_trash(layout.pack_folder.index(pack), layout.trash)\n"
        "    fsio.to_trash(layout.pack_folder.pack(pack), layout.trash)\n",
        "    fsio.to_trash(layout.pack_folder.pack(pack), layout.trash)\n"
        "    fsio.to_trash(layout.pack_folder.index(pack), layout.trash)\n",
        (f"{_SYNCED}[gc]",),
    ),
)
