"""Maintenance of a store: `gc`, `fsck`, `doctor`.

    gc:    session/mark ─▶ gc_plan ─▶ waste, gc_views ─▶ repack ─▶ trash
    fsck:  fsck, fsck_packs ─▶ findings ─▶ repair (with --repair)

`gc` deletes data that no kept version needs, `retain` does so after installs, and `gc_items` describes what
would be deleted.  `fsck` only reports; `repair` moves damaged files
aside and makes them again, and deletes nothing.  `doctor` checks the machine.  `ops/querying/keeping` chooses
the versions to keep, `ops/session/mark` lists all roots; docs/format/store.md governs the order of deleting.
"""
