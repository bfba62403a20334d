"""One store on this machine: its files, locks, packs, refs and records.  `fsio`, `growing`
and `batches` write every byte.

    layout, lock, fsread           places, locks, reading
    fsio, growing, batches         writing: whole files, files that grow, many small ones
    paths, access                  paths that users give; write permissions
    ingest, packs, chunks, verify  files into chunks, packs of chunks, finding and checking them
    contents, matching             the tensors of a version; where the numbers of one version are in another
    patience                       waiting for programs that hold a file, on Windows
    sampling                       a random share of all contents, for frequent checks
    drafts, files, small_files     files made from chunks
    views, held, hashed            the folders that applications open, and records of hashed files
    open_files, pipeline           few descriptors for many files; threads with ordered results
    refs, trials, seen, state      stored and installed versions, and the file for other programs
    records, registry_cache        small records, and the cache of registries

Uses no network; operations are in `ops`.  docs/format/ governs every file.
"""
