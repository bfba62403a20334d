"""The engine: operations such as fetch, update and gc, in the order of a version's stages.

    spec ─ lookup ─▶ Stored | Offered ─ eligible? ─▶ plan ─▶ transfer ─▶ packs ─▶ version ref
                         │ (nothing to download)                │ verified chunks
                         └────────────────────┐                 └──▶ drafts
                                              ▼                        ▼
                                        materialise files ─▶ view ─▶ activate ─▶ self-check

Each stage gets the value of the one before it and does not look it up again:

- `lookup` returns `Stored(name, manifest)` or `Offered(name, build, source, entry)`.  Only a failure
  queries a registry again, for another `Offered` (`fetch.ensure_version`).
- An operation opens one `ChunkStore` and passes it on; it knows what is on the disk and what the operation
  wrote.  It reads the disk again (`reload`) when that may differ: after recovering what a killed process
  left, after a delta that could not be used, after damage, and where another process held the same download.
  `fsck` and repair open one of their own for each step, since they move the files that it knows.
- `update_plan.UpdatePlan` is what `outdated` and `update --dry-run` show and what `update` applies.
- A `Session` never changes.  What it learns of registries is kept in `KnownRegistries`, its progress and
  cancellation in `Activity`; threads share both.

`fetch` stops at the version ref; `checkout` and `update` go on; `rollback` begins at the view.

Packages import downwards only: `session` ← `copies`, `fetching`, `publishing`, `querying` ←
`checking`, `installing`, `inspecting`, `upkeep` ← `local`.  A test enforces the levels.
"""
