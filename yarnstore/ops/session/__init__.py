"""One use of a store: its registries, connections and clock, and the lookup from a spec to a version.

The way in is `session.Session`; `lookup` turns a spec into a version, `mark` names what the refs need.
"""
