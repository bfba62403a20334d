"""A registry and a store that show what the dashboard is for: updates of each kind, a history, shared bytes.

gallery = make_gallery(tmp_path)                # phi-3-mini 1.0.0 is installed; 1.1.0 and 1.2.0 are published
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.registries import amend
from yarnstore import Store

MODEL = "phi-3-mini"
OTHER = "whisper-small"
THIRD = "acme/bge-base"
LAYERS = 8
_DATES = {
    MODEL: {"1.0.0": "2026-03-09", "1.1.0": "2026-06-02", "1.2.0": "2026-06-19"},
    OTHER: {"3.0.0": "2026-01-20", "3.0.1": "2026-02-03", "3.1.0": "2026-06-11"},
    THIRD: {"1.0.0": "2026-04-14", "2.0.0": "2026-06-15"},
}
_PARTS = (
    ("self_attn.qkv_proj.weight", (96, 48)), ("self_attn.o_proj.weight", (48, 48)),
    ("mlp.gate_up_proj.weight", (192, 48)), ("mlp.down_proj.weight", (48, 96)),
    ("input_layernorm.weight", (48,)),
)  # fmt: skip
_README = """# {name}

For use on this machine, without a network.

## Use

```
import onnxruntime
session = onnxruntime.InferenceSession(path)
```

- small enough for any machine
- the same on every machine
"""


@dataclass(frozen=True)
class Gallery:
    """The registry, and the store that knows it."""

    registry: Path
    home: Path

    def serve(self, url: str) -> None:
        """Let the store know the registry by the address that serves it, not by its folder."""
        with Store.open(self.home) as store:
            store.remove_registry("yarn")
            store.add_registry("yarn", url)


def make_gallery(root: Path, *, scale: int = 1) -> Gallery:
    """Publish the models and install some; each version is about `scale` times 0.75 MB."""
    registry, home = root / "registry", root / "home"
    for version, tuned, text, security in (
        ("1.0.0", 0.0, "First version.", False),
        ("1.1.0", 0.3, "Better dialogue; repetition is rare now.", False),
        ("1.2.0", 0.7, "Refuses a prompt that made it print its training data (CVE-2026-10437).", True),
    ):
        source = _write(root / "sources" / MODEL / version, MODEL, tuned, scale)
        Store.publish(
            source, f"{MODEL}@{version}", registry=registry, changelog=text, security=security,
            name="Phi-3 Mini", description="A small language model for dialogue and summaries.",
            tags=("language", "onnx"), category="text", minimum_ram_gb=0.25, recommended_ram_gb=1.0,
            compatibility=(">=1.0.0",),
        )  # fmt: skip
    for version, tuned, text in (
        ("3.0.0", 0.0, "Speech to text in 99 languages."), ("3.0.1", 0.1, "Fixes wrong timestamps."),
        ("3.1.0", 0.2, "Better with noise; 40 % fewer invented sentences."),
    ):  # fmt: skip
        source = _write(root / "sources" / OTHER / version, OTHER, tuned, scale)
        Store.publish(
            source, f"{OTHER}@{version}", registry=registry, changelog=text, name="Whisper Small",
            description="Speech to text for recordings and subtitles.", tags=("speech",), category="audio",
        )  # fmt: skip
    for model, version, text, about in (
        (THIRD, "1.0.0", "First version.", "Embeddings of sentences for search."),
        (THIRD, "2.0.0", "Vectors of 768 numbers; indexes have to be made again.", "Embeddings for search."),
        ("acme/reranker", "0.4.0", "First public version.", "Sorts what a search found by relevance."),
        ("florence-vision", "1.0.0", "First version.", "Describes pictures and finds things in them."),
    ):
        folder = root / "sources" / model.replace("/", "-") / version
        source = _write(folder, model, 0.5 if version == "2.0.0" else 0, max(1, scale // 2))
        Store.publish(
            source,
            f"{model}@{version}",
            registry=registry,
            changelog=text,
            description=about,
            tags=("vectors",),
        )
    amend(registry, _complete)
    with Store.open(home) as store:
        store.add_registry("yarn", registry)
        for spec in (
            f"{OTHER}@3.0.0",
            f"{OTHER}@3.0.1",
            f"{THIRD}@1.0.0",
            f"{MODEL}@1.0.0",
            f"{MODEL}@1.1.0",
        ):
            store.checkout(spec)
        store.rollback_model(MODEL)
    return Gallery(registry, home)


def _complete(models: dict[str, Any]) -> None:
    for model, entry in models.items():
        entry["license"] = "MIT"
        for version, date in _DATES.get(model, {}).items():
            entry["versions"][version]["release_date"] = date
    models[OTHER]["versions"]["3.0.0"].update(
        deprecated=True, deprecated_reason="wrong timestamps", replaced_by="3.0.1"
    )


def _write(folder: Path, model: str, tuned: float, scale: int) -> Path:
    """A version: weights of which `tuned` of the layers, from the end, differ from the first's."""
    folder.mkdir(parents=True)
    seed = zlib.crc32(model.encode())
    table: dict[str, object] = {}
    parts: list[bytes] = []
    at = 0
    for index, (name, shape) in enumerate(_tensors(scale)):
        values = np.random.default_rng([seed, index]).normal(0, 0.05, shape).astype("<f4")
        layer = int(name.split(".")[2]) if ".layers." in name else -1
        if tuned and layer >= LAYERS * (1 - tuned):
            chance = np.random.default_rng([seed, index, int(tuned * 10)])
            moved = chance.random(shape) < (layer + 1) / LAYERS * (1.0 if "mlp" in name else 0.4)
            values = np.where(moved, values * 1.01, values).astype("<f4")
        data = values.tobytes()
        table[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"".join(parts))
    (folder / "config.json").write_text(json.dumps({"model": model, "layers": LAYERS}) + "\n")
    (folder / "README.md").write_text(_README.format(name=model))
    return folder


def _tensors(scale: int) -> Iterable[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (512 * scale, 48)
    for layer in range(LAYERS):
        for name, shape in _PARTS:
            yield f"model.layers.{layer}.{name}", (shape[0] * scale, *shape[1:])
    yield "model.norm.weight", (48,)
