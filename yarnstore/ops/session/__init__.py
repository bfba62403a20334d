"""One use of a store, and the lookup from a spec to a version.

    settings ─▶ session (registries, activity) ─▶ lookup ─▶ Stored | Offered

`session.Session` is made once for each call and never changes.  `registries` asks and caches registries,
`model_files` those with one file per model, through `connections`, which opens backends late; `sources` has
what is known without connecting.  `activity` has the progress, the end and the clock.  `lookup` turns a spec
into a version, `stored` into one in the store, whose files it checks.  `mark` lists what the refs need,
`loadcode` looks for code in files.
"""
