"""Duplicate copies of chunks on the disk.

`second` decides which versions keep a second copy; `slim` finds pack entries that files make redundant, and
encodes older versions against the installed one.  Neither deletes anything; `ops/upkeep/gc` does.
"""
