"""The engine, by stage of a version's way.

    spec ─ lookup ─▶ stored | offered ─ eligible? ─▶ plan ─▶ transfer ─▶ packs ─▶ version ref
                         │ (nothing to download)                │ verified chunks
                         └────────────────────┐                 └──▶ drafts
                                              ▼                        ▼
                                        materialise files ─▶ view ─▶ activate ─▶ self-check

`fetch` stops at the version ref; `checkout` and `update` go on.  Packages import downwards only:
`session` ← `fetching`, `publishing`, `querying` ← `installing`, `inspecting`, `upkeep` ← `local`.
A test enforces the levels.
"""
