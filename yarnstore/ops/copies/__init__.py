"""Disk space, and duplicate copies of chunks on the disk.

`space` measures what each version takes, and `after_gc` estimates the size of a store without some.
`second` decides which versions keep a second copy; `slim` finds pack entries that files make redundant, and
encodes older versions against the installed one; `proof` reads what packs list of files that are deleted.
None of them deletes anything; `ops/upkeep/gc` does.
"""
