"""How often each chunk is on the disk, and where.

`second` says which versions keep a second copy, `slim` finds what files make redundant in packs and encodes
older versions against the installed one.  Both delete nothing: that is `ops/upkeep/gc`.
"""
