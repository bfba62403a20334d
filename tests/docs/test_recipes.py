"""docs/recipes.md: the recipes whose libraries are installed run as they are on the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import PAGES, REPO, blocks
from tests.support.llama_models import make_llama
from tests.support.transformers_models import make_bert, needs_transformers
from yarnstore import Store

PAGE = REPO / "docs" / "recipes.md"


def recipe(library: str) -> str:
    named = (f"import {library}\n", f"from {library} import")
    (found,) = [block for block in blocks(PAGE, "python") if any(text in block for text in named)]
    return found


def test_every_recipe_is_python() -> None:
    assert PAGE in PAGES
    for block in blocks(PAGE, "python"):
        compile(block, str(PAGE), "exec")


@pytest.mark.filterwarnings("default")
def test_onnx_runtime_loads_an_installed_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx: Any = pytest.importorskip("onnx", reason="needs pip install onnx onnxruntime")
    pytest.importorskip("onnxruntime", reason="needs pip install onnx onnxruntime")
    numpy: Any = pytest.importorskip("numpy")
    made, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = onnx.numpy_helper.from_array(numpy.arange(4, dtype="float32"), "weights")
    graph = made.make_graph(
        [made.make_node("Mul", ["given", "weights"], ["scores"])],
        "scorer",
        [made.make_tensor_value_info("given", kind, [4])],
        [made.make_tensor_value_info("scores", kind, [4])],
        [weights],
    )
    model = made.make_model(graph, opset_imports=[made.make_opsetid("", 17)])
    model.ir_version = 8
    (tmp_path / "scorer").mkdir()
    onnx.save(model, str(tmp_path / "scorer" / "model.onnx"))
    (tmp_path / "scorer" / "labels.json").write_text("[]")
    monkeypatch.setenv("YSTORE_HOME", str(tmp_path / "home"))
    with Store.open() as store:
        store.import_model(tmp_path / "scorer", "scorer@1.0.0")
        store.checkout("scorer@1.0.0")
    names: dict[str, Any] = {}
    exec(compile(recipe("onnxruntime"), str(PAGE), "exec"), names)  # the page's own text
    (scores,) = names["session"].run(None, {"given": numpy.full(4, 2, "float32")})
    assert scores.tolist() == [0, 2, 4, 6]


@needs_transformers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("library", "model"), [("transformers", "phi-3-mini"), ("sentence_transformers", "minilm")]
)
def test_transformers_load_an_installed_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, model: str
) -> None:
    pytest.importorskip(library, reason="needs pip install transformers sentence-transformers")
    monkeypatch.setenv("YSTORE_HOME", str(tmp_path / "home"))
    with Store.open() as store:
        store.import_model(make_bert(tmp_path / "bert"), f"{model}@1.0.0")
        store.checkout(f"{model}@1.0.0")
    names: dict[str, Any] = {}
    exec(compile(recipe(library), str(PAGE), "exec"), names)  # the page's own text
    if library == "transformers":
        out = names["model"](**names["tokenizer"]("hello world", return_tensors="pt"))
        assert out.last_hidden_state.shape == (1, 4, 32)
    else:
        assert names["model"].encode("hello world").shape == (32,)


def test_llama_cpp_python_loads_an_installed_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp", reason="needs pip install llama-cpp-python, which compiles for long")
    monkeypatch.setenv("YSTORE_HOME", str(tmp_path / "home"))
    with Store.open() as store:
        store.import_model(make_llama(tmp_path / "tiny.gguf"), "phi-3-mini@1.0.0")
        store.checkout("phi-3-mini@1.0.0")
    names: dict[str, Any] = {}
    exec(compile(recipe("llama_cpp"), str(PAGE), "exec"), names)  # the page's own text
    assert names["model"]("hello", max_tokens=3)["usage"]["completion_tokens"] == 3
