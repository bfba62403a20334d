"""Made models whose next version holds its weights elsewhere: renamed, resharded, fused, with layers or rows
that were put in between."""

from __future__ import annotations

import json
import struct
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tests.support.samples import (
    field,
    gguf_file,
    onnx_file,
    onnx_tensor,
    torch_file,
    torch_pickle_file,
    torch_tensor,
)

Weights: TypeAlias = dict[str, NDArray[Any]]
Files: TypeAlias = dict[str, bytes]

_CODES = {"uint16": "BF16", "float16": "F16", "float32": "F32", "int8": "I8", "int64": "I64"}
EMBEDDING = "embed.weight"
_PARTS = ("q", "k", "v")
# How far a fine-tune, and an average of checkpoints, move weights, as a share of their usual size.
TUNED_SHARE = 0.004
AVERAGED_SHARE = 0.0005
# The weights in a block of Q8_0, and the bytes of the block.
Q8_0_WEIGHTS = 32
Q8_0_BYTES = 34


def bf16(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Round to the nearest bf16, as bits."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def values(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The values of bf16 bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def made(*, layers: int, width: int, vocabulary: int, seed: int = 0) -> Weights:
    """A transformer's weights in bf16: an embedding, and in each layer attention, two matrices and a norm."""
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> NDArray[np.uint16]:
        return bf16(random.normal(0, 0.02, (rows, columns)))

    weights: Weights = {EMBEDDING: matrix(vocabulary, width)}
    for n in range(layers):
        for part in (*_PARTS, "o"):
            weights[f"layers.{n}.{part}.weight"] = matrix(width, width)
        weights[f"layers.{n}.up.weight"] = matrix(3 * width, width)
        weights[f"layers.{n}.down.weight"] = matrix(width, 3 * width)
        weights[f"layers.{n}.norm.weight"] = bf16(random.normal(1, 0.01, width))
    return weights


def adapter(*, layers: int, width: int, rank: int = 8, seed: int = 10) -> Weights:
    """A LoRA adapter in bf16: for four matrices of each layer, two of low rank, each smaller than 64 KiB."""
    random = np.random.default_rng(seed)
    weights: Weights = {}
    for name in (f"layers.{n}.{part}" for n in range(layers) for part in (*_PARTS, "o")):
        weights[f"{name}.lora_A.weight"] = bf16(random.normal(0, 0.02, (rank, width)))
        weights[f"{name}.lora_B.weight"] = bf16(random.normal(0, 0.02, (width, rank)))
    return dict(sorted(weights.items()))


def with_prefix(weights: Weights) -> Weights:
    """All names as another library writes them, in the same order."""
    return {f"base_model.model.{name}": bits for name, bits in weights.items()}


def fine_tuned(weights: Weights, seed: int = 1) -> Weights:
    """All weights moved by 0.4 % of their usual size, as a full fine-tune does."""
    random = np.random.default_rng(seed)
    return {
        name: bf16(values(bits) + random.normal(0, TUNED_SHARE * values(bits).std(), bits.shape))
        for name, bits in weights.items()
    }


def renamed(weights: Weights, seed: int = 2) -> Weights:
    """Other names in another order."""
    order = np.random.default_rng(seed).permutation(len(weights)).tolist()
    names = list(weights)
    return {f"block_{n:03}": weights[names[old]] for n, old in enumerate(order)}


def with_layer(weights: Weights, at: int, seed: int = 3) -> Weights:
    """A new layer before layer `at`; the later ones are renumbered."""
    width = weights[EMBEDDING].shape[1]
    fresh = made(layers=1, width=width, vocabulary=1, seed=seed)
    found: Weights = {}
    for name, bits in weights.items():
        kind, _, rest = name.partition(".")
        number, _, part = rest.partition(".")
        moved = kind == "layers" and int(number) >= at
        found[f"layers.{int(number) + 1}.{part}" if moved else name] = bits
    found |= {name.replace("layers.0.", f"layers.{at}."): bits for name, bits in fresh.items() if "0" in name}
    return found


def with_rows(weights: Weights, rows: int, seed: int = 4) -> Weights:
    """New rows in front of the embedding."""
    old = weights[EMBEDDING]
    fresh = bf16(np.random.default_rng(seed).normal(0, 0.02, (rows, old.shape[1])))
    return {**weights, EMBEDDING: np.concatenate([fresh, old])}


def without_rows(weights: Weights, every: int) -> Weights:
    """The embedding without one row of so many, as of a trimmed vocabulary."""
    old = weights[EMBEDDING]
    return {**weights, EMBEDDING: old[np.arange(len(old)) % every != every // 3]}


def stacked(weights: Weights) -> Weights:
    """The matrices of all layers in one tensor of three dimensions for each part, as of experts."""
    parts: dict[str, list[NDArray[Any]]] = {}
    for name, bits in weights.items():
        kind, _, rest = name.partition(".")
        parts.setdefault(f"stacked.{rest.partition('.')[2]}" if kind == "layers" else name, []).append(bits)
    return {name: np.stack(found) if len(found) > 1 else found[0] for name, found in parts.items()}


def fused(weights: Weights) -> Weights:
    """Queries, keys and values of a layer in one tensor."""
    found = {name: bits for name, bits in weights.items() if name.split(".")[-2] not in _PARTS}
    for name in weights:
        if name.endswith(".q.weight"):
            parts = [weights[name.replace(".q.", f".{part}.")] for part in _PARTS]
            found[name.replace(".q.", ".qkv.")] = np.concatenate(parts)
    return found


def transposed(weights: Weights) -> Weights:
    """Each matrix with rows and columns exchanged."""
    return {name: np.ascontiguousarray(bits.T) for name, bits in weights.items()}


def safetensors(weights: Weights) -> bytes:
    """A safetensors file, with the tensors in their order."""
    header: dict[str, Any] = {}
    at = 0
    for name, array in weights.items():
        span = [at, at + array.nbytes]
        header[name] = {"dtype": _CODES[array.dtype.name], "shape": array.shape, "data_offsets": span}
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *(array.tobytes() for array in weights.values())])


_STORAGES = {"uint16": "BFloat16Storage", "float16": "HalfStorage", "float32": "FloatStorage"}


def torch_pickle(weights: Weights, seed: int = 9) -> bytes:
    """A PyTorch file from before 1.6: its storages are in the order of addresses in memory, so in any."""
    random = np.random.default_rng(seed)
    keys = dict(zip(weights, map(str, random.permutation(10 * len(weights)) + 94_000_000), strict=False))
    state = {
        name: torch_tensor(_STORAGES[array.dtype.name], keys[name], array.size, array.shape)
        for name, array in weights.items()
    }
    stored = {keys[name]: (array.size, array.tobytes()) for name, array in weights.items()}
    return torch_pickle_file(state, dict(sorted(stored.items())))


def convolutions(count: int, seed: int = 10) -> Weights:
    """The weights of a small network in f32, of about `count` numbers: kernels of many shapes, and biases."""
    random = np.random.default_rng(seed)
    weights: Weights = {}
    while sum(array.size for array in weights.values()) < count:
        rows, columns = random.choice([16, 32, 64, 128], 2).tolist()
        for part, shape in (("weight", (rows, columns, 3)), ("bias", (rows,))):
            weights[f"{len(weights) // 2}.{part}"] = random.normal(0, 0.05, shape).astype(np.float32)
    return weights


def retrained(weights: Weights, share: float, seed: int = 11) -> Weights:
    """A share of the tensors trained anew, from other numbers."""
    random = np.random.default_rng(seed)
    return {
        name: random.normal(0, 0.05, array.shape).astype(array.dtype) if random.random() < share else array
        for name, array in weights.items()
    }


def edited(weights: Weights, count: int, seed: int = 12) -> Weights:
    """A few numbers replaced, in any tensors."""
    random = np.random.default_rng(seed)
    found = {name: array.copy() for name, array in weights.items()}
    sizes = np.array([array.size for array in found.values()])
    for name in random.choice(list(found), count, p=sizes / sizes.sum()).tolist():
        found[name].reshape(-1)[random.integers(found[name].size)] = random.normal(0, 0.05)
    return found


def torch_archive(weights: Weights) -> bytes:
    """A PyTorch file as 1.6 and later write it: a zip archive with a member for each tensor."""
    keys = {name: str(n) for n, name in enumerate(weights)}
    state = {
        name: torch_tensor(_STORAGES[array.dtype.name], keys[name], array.size, array.shape)
        for name, array in weights.items()
    }
    return torch_file(state, {keys[name]: array.tobytes() for name, array in weights.items()})


def onnx(weights: Weights) -> bytes:
    """An ONNX file of f32 tensors."""
    return onnx_file(
        *(
            onnx_tensor(name, 1, list(array.shape), field(9, array.tobytes()))
            for name, array in weights.items()
        )
    )


def texts(count: int, size_bytes: int, seed: int = 7) -> Files:
    """Files of made words, `size_bytes` each, in folders of a hundred."""
    random = np.random.default_rng(seed)
    letters = np.frombuffer(b"etaoinshrdlcumwfgypb", np.uint8)
    words = [bytes(random.choice(letters, length)) + b" " for length in random.integers(2, 10, 5000)]
    found: Files = {}
    for n in range(count):
        chosen = random.zipf(1.3, size_bytes // 2) % len(words)
        found[f"{n // 100:03}/{n:05}.txt"] = b"".join(words[word] for word in chosen.tolist())[:size_bytes]
    return found


def with_typos(files: Files, seed: int = 8) -> Files:
    """One letter changed in each file."""
    random = np.random.default_rng(seed)
    found: Files = {}
    for path, content in files.items():
        at = int(random.integers(len(content)))
        found[path] = content[:at] + (b"X" if content[at : at + 1] != b"X" else b"Y") + content[at + 1 :]
    return found


def one_file(weights: Weights) -> Files:
    return {"model.safetensors": safetensors(weights)}


def sharded(weights: Weights, count: int) -> Files:
    """The weights in `count` files of about one size, as large models come, with an index."""
    total = sum(array.nbytes for array in weights.values())
    shards: list[Weights] = [{} for _ in range(count)]
    done = 0
    for name, array in weights.items():
        shards[min(count - 1, done * count // total)][name] = array
        done += array.nbytes
    names = [f"model-{n + 1:05}-of-{count:05}.safetensors" for n in range(count)]
    place = {name: path for path, shard in zip(names, shards, strict=True) for name in shard}
    files = {path: safetensors(shard) for path, shard in zip(names, shards, strict=True)}
    return {**files, "model.safetensors.index.json": json.dumps({"weight_map": place}).encode()}


def as_type(weights: Weights, name: str) -> Weights:
    """The same values as `<f2` or `<f4`."""
    return {key: values(bits).astype(name) for key, bits in weights.items()}


def stepped(weights: Weights, seed: int = 5) -> Weights:
    """A tenth of all weights moved to the next number, up or down."""
    random = np.random.default_rng(seed)

    def step(bits: NDArray[np.uint16]) -> NDArray[np.uint16]:
        moved = (random.random(bits.shape) < 0.1) * random.choice([-1, 1], bits.shape)
        return bits + moved.astype(np.uint16)

    return {name: step(bits) for name, bits in weights.items()}


def averaged(weights: Weights, seed: int = 6) -> Weights:
    """An average of checkpoints: all weights moved by 0.05 % of their usual size."""
    random = np.random.default_rng(seed)
    return {
        name: bf16(values(bits) + random.normal(0, AVERAGED_SHARE * values(bits).std(), bits.shape))
        for name, bits in weights.items()
    }


def pruned(weights: Weights) -> Weights:
    """The two smallest of four neighbours in each matrix set to 0."""
    found: Weights = {}
    for name, bits in weights.items():
        found[name] = bits
        if bits.ndim == 2 and name != EMBEDDING:
            fours = bits.reshape(-1, 4).copy()
            smallest = np.argsort(fours & 0x7FFF, axis=1)[:, :2]
            np.put_along_axis(fours, smallest, 0, axis=1)
            found[name] = fours.reshape(bits.shape)
    return found


def int8_per_channel(weights: Weights) -> Weights:
    """Each row as int8, with its scale in a tensor of its own."""
    found: Weights = {}
    for name, bits in weights.items():
        scales, quants = quantised(values(bits).reshape(len(bits), -1), "<f4")
        found[name] = quants.reshape(bits.shape)
        found[f"{name}.scale"] = scales
    return found


def quantised(rows: NDArray[np.float32], scale_type: str) -> tuple[NDArray[Any], NDArray[np.int8]]:
    """A scale for each row, and the row as int8."""
    scales = (np.maximum(np.abs(rows).max(axis=1), 1e-8) / 127).astype(scale_type)
    return scales, np.rint(rows / scales.astype(np.float32)[:, None]).astype(np.int8)


def gguf_q8_0(weights: Weights) -> bytes:
    """A GGUF file in which the matrices are Q8_0: 32 numbers of 8 bits and their scale as f16."""
    tensors: list[tuple[str, list[int], int, int]] = []
    parts: list[bytes] = []
    at = 0
    for name, bits in weights.items():
        if bits.ndim != 2:
            continue
        rows = values(bits).reshape(-1, Q8_0_WEIGHTS)
        scales, quants = quantised(rows, "<f2")
        blocks = np.empty((len(rows), Q8_0_BYTES), np.uint8)
        blocks[:, :2] = scales.view(np.uint8).reshape(-1, 2)
        blocks[:, 2:] = quants.view(np.uint8)
        tensors.append((name, [bits.shape[1], bits.shape[0]], 8, at))
        parts.append(blocks.tobytes() + bytes(-blocks.nbytes % 32))
        at += len(parts[-1])
    return gguf_file(tensors, 0) + b"".join(parts)
