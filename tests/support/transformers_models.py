"""A tiny BERT model with a tokenizer, as transformers writes it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

needs_transformers = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
    reason="needs pip install torch transformers",
)


def make_bert(folder: Path, seed: int = 0) -> Path:
    """Write a model of 30 000 weights, which AutoModel and AutoTokenizer load."""
    import torch  # type: ignore[import-not-found,unused-ignore]
    import transformers  # type: ignore[import-not-found,unused-ignore]

    library: Any = transformers
    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    library.BertTokenizerFast(vocab=None, vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(seed)
    config = library.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    library.BertModel(config).save_pretrained(folder)
    return folder
