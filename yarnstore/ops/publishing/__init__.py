"""Publish versions into a registry folder, edit its entries, and check it.

    files (`store/source_files`) ─▶ broken? ─▶ packs ─▶ deltas ─▶ entry ─▶ tree (registry.json, last)

`publish.publish` is the entry point for versions, `amend` for entries, and `lint.lint` for checks.
`registry/edit` changes the JSON, `registry/lint` has its rules; docs/registry.md governs both.
"""
