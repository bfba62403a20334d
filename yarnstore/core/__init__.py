"""Pure functions on bytes: chunks, encodings, packs, manifests, names, and the layouts of model files.

    names, digest, limits              checked names and digests; every limit
    chunking, layouts, pairing         where a file is cut; where its tensors are; bases of deltas
    codec, encodings, compare          how a chunk is stored, and back; how far two tensors are apart
    pack, index, manifest, canonical   the formats on disk and in registries
    reflog, ignore, suggestions        refs as text; files that are left out; similar names
    loadcode, pickles                  what runs code when a file is loaded
    bytequeue, streams, jsoncost, jsonable    reading in pieces and within limits; results as JSON

No module here uses files, sockets, the clock or the environment.  docs/format/ governs the formats.
"""
