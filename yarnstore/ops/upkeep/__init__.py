"""Freeing the disk space of a store: `gc`.

    session/mark ─▶ gc_plan ─▶ waste, gc_views ─▶ thinning, repack ─▶ trash

`gc` deletes data that no kept version needs, `thinning` replaces files by deltas before, `retain` does so
after installs, and `gc_items` describes what would be deleted.  `ops/querying/keeping` chooses the versions
to keep, `ops/session/mark` lists all roots; docs/format/store.md governs the order of deleting.
"""
