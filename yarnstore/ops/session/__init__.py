"""One use of a store, and the lookup of versions by their specs.

    settings ─▶ session (registries, activity) ─▶ lookup ─▶ Stored | Offered

`session.Session` is made once for each call and never changes.  `registries` queries and caches registries,
`model_files` those with one file per model; both use `connections`, which opens backends when needed, while
`sources` connects to nothing.  `activity` has progress, cancellation and the clock.  `lookup` resolves a spec
to a version, `stored` to one in the store, whose files it checks.  `mark` lists the manifests that refs name,
`loadcode` finds code in files.
"""
