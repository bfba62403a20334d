"""One local store: its files, locks, packs, refs and records.  Every byte is written by `fsio` or `growing`.

    layout, lock, fsread           places, locks, reading
    fsio, growing                  writing: whole files, and files that grow
    paths, access                  paths as users type them; who may write
    ingest, packs, chunks, verify  files into chunks, packs of chunks, finding and checking them
    sampling                       a random share of all contents, for frequent checks
    drafts, files, small_files     files made from chunks
    views, hashed                  the folders that applications open, and what their files hashed to
    open_files, pipeline           few descriptors for many files; work in threads, in order
    refs, trials, seen, state      what is stored and installed, and what other programs are told
    records, registry_cache        small records, and the cached answers of registries

Uses no network, and knows no operation: these are in `ops`.  docs/format/ governs every file.
"""
