"""A model of llama.cpp's format, complete and of no use: one layer, and one token for each byte."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_WIDTH, _HIDDEN, _HEADS, _CONTEXT = 32, 64, 2, 64
# Types of values and tensors: docs/gguf.md of ggml.
_U32, _I32, _F32, _STRING, _ARRAY, _TENSOR_F32 = 4, 5, 6, 8, 9, 0
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6


def make_llama(path: Path) -> Path:
    """Write a GGUF file that llama.cpp loads and generates text with."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256, _NORMAL]
    keys: dict[str, bytes] = {
        "general.architecture": _value(_STRING, _text("llama")),
        "general.name": _value(_STRING, _text("tiny")),
        "llama.context_length": _value(_U32, _number(_CONTEXT)),
        "llama.embedding_length": _value(_U32, _number(_WIDTH)),
        "llama.block_count": _value(_U32, _number(1)),
        "llama.feed_forward_length": _value(_U32, _number(_HIDDEN)),
        "llama.attention.head_count": _value(_U32, _number(_HEADS)),
        "llama.rope.dimension_count": _value(_U32, _number(_WIDTH // _HEADS)),
        "llama.attention.layer_norm_rms_epsilon": _value(_F32, struct.pack("<f", 1e-5)),
        "tokenizer.ggml.model": _value(_STRING, _text("llama")),
        "tokenizer.ggml.tokens": _array(_STRING, [_text(token) for token in tokens]),
        "tokenizer.ggml.scores": _array(_F32, [struct.pack("<f", 0.0)] * len(tokens)),
        "tokenizer.ggml.token_type": _array(_I32, [_number(kind) for kind in kinds]),
        "tokenizer.ggml.unknown_token_id": _value(_U32, _number(0)),
        "tokenizer.ggml.bos_token_id": _value(_U32, _number(1)),
        "tokenizer.ggml.eos_token_id": _value(_U32, _number(2)),
    }
    shapes = {
        "token_embd.weight": (len(tokens), _WIDTH),
        "output_norm.weight": (_WIDTH,),
        "output.weight": (len(tokens), _WIDTH),
        **{f"blk.0.{name}_norm.weight": (_WIDTH,) for name in ("attn", "ffn")},
        **{f"blk.0.attn_{name}.weight": (_WIDTH, _WIDTH) for name in ("q", "k", "v", "output")},
        **{f"blk.0.ffn_{name}.weight": (_HIDDEN, _WIDTH) for name in ("gate", "up")},
        "blk.0.ffn_down.weight": (_WIDTH, _HIDDEN),
    }
    path.write_bytes(_file(keys, shapes))
    return path


def _file(keys: Mapping[str, bytes], shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    numbers = np.random.default_rng(7)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(keys))
    head += b"".join(_text(key) + value for key, value in keys.items())
    data = b""
    for name, shape in shapes.items():
        sizes = b"".join(struct.pack("<Q", size) for size in reversed(shape))
        head += _text(name) + struct.pack("<I", len(shape)) + sizes
        head += struct.pack("<IQ", _TENSOR_F32, len(data))
        data += (numbers.standard_normal(shape) / 8).astype("<f4").tobytes()
        data += bytes(-len(data) % 32)
    return head + bytes(-len(head) % 32) + data


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _number(number: int) -> bytes:
    return struct.pack("<I", number)


def _value(kind: int, data: bytes) -> bytes:
    return struct.pack("<I", kind) + data


def _array(kind: int, items: list[bytes]) -> bytes:
    return struct.pack("<IIQ", _ARRAY, kind, len(items)) + b"".join(items)
