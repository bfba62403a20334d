"""What is measured on: real model versions where they are, and made ones of any size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures.made import finetune_bf16, make_bf16
from tests.support.models import model_path


@dataclass(frozen=True)
class Model:
    """A model of several versions, oldest first; each is a folder, and `file` its weights in it."""

    name: str
    file: str
    versions: dict[str, Path]

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
