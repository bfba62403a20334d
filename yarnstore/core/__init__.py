"""Pure functions on bytes: chunks, encodings, packs, manifests, names, and the layouts of model files.

    names, digest, limits              checked names and digests; every limit
    chunking, layouts, pairing         cut points of a file; tensors in a file; bases of deltas
    sketch                             bits by which versions of the same numbers are found
    codec, encodings, compare          encoding and decoding chunks; comparing tensors by value
    pack, index, manifest, canonical   the formats on disk and in registries
    reflog, ignore, suggestions        refs as text; files that are not published; similar names
    loadcode, pickles                  finding code that runs when a file is loaded
    bytequeue, streams, jsoncost, jsonable    bounded reading; cost of a JSON document; results as JSON

No module here uses files, sockets, the clock or the environment; `encodings/kernels` asks `machine`, which
does.  docs/format/ governs the formats.
"""
