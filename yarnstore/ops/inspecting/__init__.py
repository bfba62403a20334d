"""Inspect versions: their tensors, how they are stored, and what changed between two.

    spec or path ─▶ readers ─▶ inspect
    two of them  ─▶ readers ─▶ pairs ─▶ tensors, changed_bytes ─▶ diff ─▶ page, picture

`inspect.inspect` and `diff.diff` are the entry points; `contents` lists and reads files by name.  Leaves the
formats of model files to `core/layouts` and the comparison of numbers to `core/compare`; nothing here changes
a store, except that a missing version is fetched.
"""
