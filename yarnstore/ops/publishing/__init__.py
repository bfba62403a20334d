"""Publish versions into a registry folder, edit its entries, and check it.

    files (`store/source_files`) ─▶ broken? ─▶ packs ─▶ deltas ─▶ entry ─▶ tree (registry.json, last)

`publish.publish` is the entry point for versions, `amend` for entries, and `lint.lint` for checks.  Leaves
what an edit changes to `registry/edit`, and the rules of the JSON to `registry/lint`; docs/registry.md
governs both.
"""
