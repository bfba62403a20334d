"""Checks and repairs: `fsck`, `fsck --repair`, `doctor`.

    fsck:  fsck, fsck_packs ─▶ findings ─▶ repair, repair_records (with --repair)

`fsck` only reports; `repair` moves damaged files aside and makes them again, and deletes nothing.  `doctor`
and `doctor_disk` check the machine.  docs/operations.md explains what they find.
"""
