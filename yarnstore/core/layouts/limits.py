"""Limits of the layout readers, each with its unit in its name and its reason in a comment.

With them, reading any file, hostile ones included, takes at most about one second and 256 MiB of memory. A
file that exceeds a limit is not refused: it has no layout and is cut as bytes.
"""

from __future__ import annotations

from typing import Final

from yarnstore.core.canonical import INTEGER_LIMIT
from yarnstore.core.limits import KIB, MIB

# The safetensors specification allows 100 MB.  Real headers stay under 10 MB; the largest ones seen
# (60 000 tensors) need 8.  Text may take 4 bytes a character once decoded, so this is what 256 MiB allow.
HEADER_LIMIT_BYTES: Final = 32 * MIB
# The largest published checkpoints have 100 000 to 200 000 tensors over all their shards.
# A tensor costs about 3 µs and 400 bytes here.
LAYOUT_LIMIT_TENSORS: Final = 200_000
# Commas in a safetensors header bound the values that a JSON decoder makes of it.
JSON_LIMIT_COMMAS: Final = 16 * LAYOUT_LIMIT_TENSORS
# NumPy, the widest of these formats, has 64 dimensions at most.
RANK_LIMIT: Final = 64
TENSOR_NAME_LIMIT_CHARS: Final = 1024
# Elements and bytes stay below 2⁶³, where C readers would overflow.
ELEMENTS_LIMIT: Final = 1 << 62
# A manifest holds each extent, also where another one is 0 and there are no elements at all.
EXTENT_LIMIT: Final = INTEGER_LIMIT

# What one reader may read from its source.  Scattered headers (ONNX, zip) cost a short read each.
READ_LIMIT_BYTES: Final = 256 * MIB
READ_BLOCK_MIN_BYTES: Final = 512
READ_BLOCK_MAX_BYTES: Final = 256 * KIB

# GGUF: strings and values in the metadata.  Three tokenizer arrays of the largest vocabulary are 1 M.
GGUF_LIMIT_VALUES: Final = 2_000_000
GGUF_LIMIT_KEYS: Final = 65_536
# No known writer nests arrays, though the format allows it.
GGUF_LIMIT_NESTED_ARRAYS: Final = 65_536
GGUF_LIMIT_ARRAY_DEPTH: Final = 4
GGUF_LIMIT_ALIGNMENT_BYTES: Final = 1 * MIB

# ONNX: protobuf fields visited, at about 2 µs each; a tensor has four or five.
ONNX_LIMIT_FIELDS: Final = 400_000
ONNX_LIMIT_DEPTH: Final = 16
# A smaller node has no tensor large enough for a chunk of its own, and is skipped.
ONNX_NODE_MIN_BYTES: Final = 4 * KIB

# PyTorch: the pickle and its opcodes, at about 0.7 µs each, 35 a tensor.
PICKLE_LIMIT_BYTES: Final = 16 * MIB
PICKLE_LIMIT_OPS: Final = 1_200_000
PICKLE_LIMIT_DEPTH: Final = 32
# Magic number, version and facts of the system, before 1.6: three pickles of 200 bytes together.
PICKLE_HEAD_BYTES: Final = 2048

# NumPy's own reader takes 10 000 bytes of header unless told otherwise.
NPY_HEADER_LIMIT_BYTES: Final = 64 * KIB

# Segments (docs/format/chunking.md).
SEGMENT_BYTES: Final = 1 * MIB
# Tensors below this share a chunk: a chunk costs about 80 bytes of manifest and index.
SMALL_TENSOR_BYTES: Final = 64 * KIB
# A shorter run of small tensors is not encoded separately, but with the bytes around it.
GROUP_MIN_BYTES: Final = 4 * KIB
# A group of this length ends before the next tensor that `segments.py` selects by its name.
GROUP_AVG_BYTES: Final = 256 * KIB
# Alignment and zip headers between two small tensors.
GROUP_GAP_LIMIT_BYTES: Final = 256
