"""The folders in which other tools keep their models, from the environment variables of these tools.

HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME    the Hugging Face cache
OLLAMA_MODELS                            Ollama's store
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from yarnstore.ops.exchange.address import ToolFolders
from yarnstore.store.filepath import Path

# Where the service of Ollama's Linux package keeps its models.
_OLLAMA_SERVICE: Final = Path("/usr/share/ollama/.ollama/models")


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
        lmstudio=home / ".lmstudio" / "models",
    )


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    value = environ.get(name)
    return Path(os.path.abspath(os.path.expanduser(value))) if value else None
