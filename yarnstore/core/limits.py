"""All limits, each with its unit in its name and its reason in a comment.

Limits for reading are wider than for writing, since another publisher may choose other cut points; they bound
the memory of a reader for any input.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# Chunking (docs/format/chunking.md).  Small enough that a small change costs little; large enough that 400 GB
# is 400 000 chunks and Python's time per chunk is negligible.
CHUNK_MIN_BYTES: Final = 64 * KIB
CHUNK_AVG_BYTES: Final = 256 * KIB
CHUNK_MAX_BYTES: Final = 1 * MIB
# The largest chunk that a reader accepts, which bounds the memory of one decode.
CHUNK_LIMIT_BYTES: Final = 4 * MIB

# Packs: large enough that a model is tens of files, small enough to rewrite in a second.
PACK_TARGET_BYTES: Final = 64 * MIB
PACK_LIMIT_BYTES: Final = 256 * MIB
PACK_LIMIT_ENTRIES: Final = 1_000_000
# What one version may list, full and delta packs together: 400 GB is 6 400 full ones.
VERSION_LIMIT_PACKS: Final = 32_768
INDEX_LIMIT_BYTES: Final = 128 * MIB

# A delta's base may be a delta; each step is one more decode.
DELTA_DEPTH_LIMIT: Final = 8

# A zstd frame may ask its decoder for any window; 8 MiB is what level 19 uses at most.
ZSTD_WINDOW_LIMIT_BYTES: Final = 8 * MIB

# A 400 GB model at 1 MiB a chunk is 18 MB of manifest.
MANIFEST_LIMIT_BYTES: Final = 64 * MIB
MANIFEST_LIMIT_FILES: Final = 100_000

# Decoding canonical JSON: how much memory its bytes and values can need, counted before anything is decoded.
# A value costs up to 80 bytes; text is in memory three times (as read, decoded, encoded again), and one
# character outside ASCII can make its string four times as large. 400 GB with a layout of 200 000 tensors is
# 18 MB of text and 1.6 M values: 180 MB.
JSON_LIMIT_MEMORY_BYTES: Final = 256 * MIB
JSON_VALUE_BYTES: Final = 80
JSON_ASCII_FACTOR: Final = 3
JSON_TEXT_FACTOR: Final = 7

# registry.json; larger registries are split per model.
REGISTRY_LIMIT_BYTES: Final = 256 * MIB
REGISTRY_MODEL_LIMIT_BYTES: Final = 16 * MIB
# The memory that reading a registry may use, including its bytes: the larger of a number and a multiple of
# its size. An entry with all its fields takes three times its bytes as structs, and up to nine as dicts and
# lists, in which a publisher's commands change it.
REGISTRY_LIMIT_MEMORY_BYTES: Final = 64 * MIB
REGISTRY_LIMIT_MEMORY_FACTOR: Final = 4
REGISTRY_EDIT_LIMIT_MEMORY_FACTOR: Final = 12

# Names that become file names: 255 bytes is what the common file systems take.
NAME_LIMIT_CHARS: Final = 96
VERSION_LIMIT_CHARS: Final = 128
PATH_LIMIT_BYTES: Final = 1024
PATH_COMPONENT_LIMIT_BYTES: Final = 255
# Deeper than any model's folders; each part is one more folder to check and to make.
PATH_LIMIT_PARTS: Final = 32

REF_LIMIT_BYTES: Final = 256
REFLOG_LINE_LIMIT_BYTES: Final = 4 * KIB
REFLOG_LIMIT_BYTES: Final = 64 * MIB
