"""The folders in which other tools keep their models, from the environment variables of these tools.

HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME    the Hugging Face cache
OLLAMA_MODELS                            Ollama's store

LM Studio has no variable: a file in the user's folder, and its own settings, say where its models are.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Final

import msgspec

from yarnstore.errors import YarnstoreError
from yarnstore.ops.exchange.address import ToolFolders
from yarnstore.store import fsread
from yarnstore.store.filepath import Path

# Where the service of Ollama's Linux package keeps its models.
_OLLAMA_SERVICE: Final = Path("/usr/share/ollama/.ollama/models")
# More than the longest path of any system, and than the settings of LM Studio.
_POINTER_LIMIT_BYTES: Final = 1 << 17
_SETTINGS_LIMIT_BYTES: Final = 1 << 24


class _LmStudioSettings(msgspec.Struct):
    models: str = msgspec.field(name="downloadsFolder", default="")


def tool_folders(environ: Mapping[str, str] = os.environ) -> ToolFolders:
    """Return where each tool keeps its models on this machine; the folders may not exist."""
    home = Path(os.path.expanduser("~"))
    cache = _path(environ, "XDG_CACHE_HOME") or home / ".cache"
    hf_home = _path(environ, "HF_HOME") or cache / "huggingface"
    ollama = _path(environ, "OLLAMA_MODELS") or home / ".ollama" / "models"
    if not ollama.is_dir() and not environ.get("OLLAMA_MODELS") and _OLLAMA_SERVICE.is_dir():
        ollama = _OLLAMA_SERVICE
    return ToolFolders(
        hf=_path(environ, "HF_HUB_CACHE") or hf_home / "hub",
        ollama=ollama,
        lmstudio=_lm_studio(home),
    )


def _lm_studio(home: Path) -> Path:
    """Return LM Studio's folder of models, as its command `lms` finds it."""
    folder = home / ".lmstudio"
    older = home / ".cache" / "lm-studio"
    if not folder.is_dir() and older.is_dir():
        folder = older
    with contextlib.suppress(YarnstoreError, ValueError):
        pointed = fsread.read_bytes(home / ".lmstudio-home-pointer", _POINTER_LIMIT_BYTES).decode().strip()
        if os.path.isabs(pointed) and os.path.isdir(pointed):
            folder = Path(pointed)
    with contextlib.suppress(YarnstoreError, msgspec.DecodeError):
        raw = fsread.read_bytes(folder / "settings.json", _SETTINGS_LIMIT_BYTES)
        models = msgspec.json.decode(raw, type=_LmStudioSettings).models
        if os.path.isabs(models):
            return Path(os.path.abspath(models))
    return folder / "models"


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    value = environ.get(name)
    return Path(os.path.abspath(os.path.expanduser(value))) if value else None
