"""What is measured on: real model versions where they are, and made ones of any size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fixtures.made import finetune_bf16, make_bf16
from tests.support.models import model_path
from tests.support.reshaped import fine_tuned, made, renamed, safetensors


@dataclass(frozen=True)
class Model:
    """A model of several versions, oldest first; each is a folder, and `file` its weights in it."""

    name: str
    file: str
    versions: dict[str, Path]
    note: str = ""  # what a table says of it

    def weights(self, version: str) -> Path:
        return self.versions[version] / self.file

    def raw_bytes(self, version: str) -> int:
        """The size of all files of a version."""
        return sum(path.stat().st_size for path in self.versions[version].rglob("*") if path.is_file())


def real_model(name: str, file: str, *versions: str) -> Model | None:
    """The real versions of a model; None, said aloud, where they are not on this machine."""
    try:
        return Model(name, file, {version: model_path(name, version) for version in versions})
    except pytest.skip.Exception as why:
        print(f"skipped: {why}")
        return None


def minilm() -> Model | None:
    """all-MiniLM-L6-v2 in bf16: base, full fine-tune, and what came after."""
    return real_model("minilm-bf16", "model.safetensors", "1.0.0", "1.1.0", "1.2.0")


def magika() -> Model | None:
    """Google's classifier of files in ONNX, trained again for each version."""
    model = real_model("magika-onnx", "model.onnx", "3.0.0", "3.1.0", "3.3.0")
    note = "Each version was trained again: the weights of two versions are unrelated, in a registry too."
    return replace(model, note=note) if model else None


def reshaped_model(work: Path) -> Model:
    """A new generated bf16 model, fine-tuned twice, each time with all names and their order changed."""
    first = made(layers=8, width=448, vocabulary=6000)
    second = fine_tuned(first)
    found = {"1.0.0": first, "1.1.0": renamed(second), "1.2.0": renamed(fine_tuned(second, seed=7), seed=8)}
    name = "made-bf16-renamed"
    model = Model(
        name,
        "model.safetensors",
        {version: work / name / version for version in found},
        "Each version is a full fine-tune of the one before; all tensors have other names, in another order.",
    )
    for version, folder in model.versions.items():
        folder.mkdir(parents=True)
        model.weights(version).write_bytes(safetensors(found[version]))
    return model


def made_model(work: Path, size_gb: float, versions: tuple[str, ...] = ("1.0.0", "1.1.0")) -> Model:
    """A new generated bf16 model, and its full fine-tune where that is among `versions`."""
    name = f"made-bf16-{size_gb:g}gb"
    model = Model(name, "model.safetensors", {version: work / name / version for version in versions})
    print(f"making {name} …", flush=True)
    for version, folder in model.versions.items():
        folder.mkdir(parents=True)
        if version == versions[0]:
            make_bf16(model.weights(version), round(size_gb * 5e8) * 2)
        else:
            finetune_bf16(model.weights(versions[0]), model.weights(version))
    return model
