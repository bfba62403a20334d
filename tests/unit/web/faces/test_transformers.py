"""transformers and sentence-transformers load models through `ystore serve --hub`, as from the Hub."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.services import needs_web, serving
from tests.support.transformers_models import make_bert, needs_transformers
from yarnstore import Store

pytestmark = [needs_web, needs_transformers]
MODEL = "acme/tiny-bert"

# Prints a hash of the weights and what the model makes of a sentence.
LOAD = """
import hashlib, json, sys
from transformers import AutoModel, AutoTokenizer
where, revision = sys.argv[1:]
more = {"revision": revision} if revision else {}
tokenizer, model = AutoTokenizer.from_pretrained(where, **more), AutoModel.from_pretrained(where, **more)
digest = hashlib.sha256()
for name, tensor in sorted(model.state_dict().items()):
    digest.update(name.encode() + tensor.numpy().tobytes())
out = model(**tokenizer("hello world", return_tensors="pt")).last_hidden_state
print(json.dumps([digest.hexdigest(), out.flatten()[:4].tolist()]))
"""
ENCODE = """
import json, sys
from sentence_transformers import SentenceTransformer
print(json.dumps(SentenceTransformer(sys.argv[1]).encode("hello world")[:4].tolist()))
"""


def run(code: str, *words: str, **env: str) -> Any:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, env=environment | env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_model_is_the_same_through_the_service_and_offline_after(tmp_path: Path) -> None:
    first, second = make_bert(tmp_path / "1", seed=1), make_bert(tmp_path / "2", seed=2)
    for folder, version in ((first, "1.0.0"), (second, "2.0.0")):
        Store.publish(folder, f"{MODEL}@{version}", registry=tmp_path / "registry")
    with Store.open(tmp_path / "home") as store:
        store.add_registry("made", tmp_path / "registry")
        store.checkout(f"{MODEL}@1.0.0")
    cache = {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    with serving(tmp_path / "home", "--hub", "--fill") as service:
        online = {**cache, "HF_ENDPOINT": service.url.rstrip("/")}
        assert run(LOAD, MODEL, "", **online) == run(LOAD, str(first), "")
        assert run(LOAD, MODEL, "2.0.0", **online) == run(LOAD, str(second), "")
    offline = {**cache, "HF_HUB_OFFLINE": "1"}
    assert run(LOAD, MODEL, "", **offline) == run(LOAD, str(first), "")
    if importlib.util.find_spec("sentence_transformers"):
        with serving(tmp_path / "home", "--hub") as service:
            online = {**cache, "HF_ENDPOINT": service.url.rstrip("/")}
            assert run(ENCODE, MODEL, **online) == run(ENCODE, str(first))
        assert run(ENCODE, MODEL, **offline) == run(ENCODE, str(first))
