"""llama.cpp's `-hf` against `ystore serve --hub`: its requests, and the program itself where it is installed.

The requests are those of llama.cpp's common/hf-cache.cpp and common/download.cpp; the latter's alone for
releases until 2025.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.services import Running, needs_web, serving
from yarnstore import Store
from yarnstore.results import VersionFile, VersionFiles
from yarnstore.web.faces.hub import _choice

pytestmark = [needs_web, pytest.mark.filterwarnings("ignore")]
MODEL = "acme/tiny"
AGENT = {"User-Agent": "llama-cpp/b9999-0"}
FILES = ("tiny-Q4_K_M.gguf", "tiny-Q8_0.gguf", "mmproj-tiny-F16.gguf")
# What llama.cpp sends of HF_TOKEN to the API; files are requested with any token.
SENT_TOKEN = re.compile(r"hf_[A-Za-z0-9]{34,253}")


def gguf(seed: int) -> bytes:
    """A GGUF file with one tensor of 8-bit integers."""
    name, size = b"weights", 300_000 + seed
    data = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
    data += struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, size, 24, 0)
    data += bytes(-len(data) % 32)
    return data + hashlib.shake_128(str(seed).encode()).digest(size)


def make_registry(root: Path) -> Path:
    folder = root / "files"
    folder.mkdir(parents=True)
    for seed, name in enumerate(FILES):
        (folder / name).write_bytes(gguf(seed))
    Store.publish(folder, f"{MODEL}@1.0.0", registry=root / "registry")
    return root


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_registry(tmp_path_factory.mktemp("llama"))
    with Store.open(root / "home") as store:
        store.add_registry("made", root / "registry")
        store.checkout(f"{MODEL}@1.0.0")
        store.import_model(root / "files" / FILES[0], "acme/own@1.0.0")
    return root


@pytest.fixture(scope="module")
def service(site: Path) -> Iterator[Running]:
    with serving(site / "home", "--hub") as running:
        yield running


def listed(service: Running, model: str = MODEL, **more: str) -> dict[str, str]:
    """The files of a model as llama.cpp lists them: URLs by path, with the hashes that it names them by."""
    headers = {**AGENT, "Accept": "application/json", **more}
    refs = httpx.get(f"{service.url}api/models/{model}/refs", headers=headers)
    assert refs.status_code == 200, refs.text
    (commit,) = [b["targetCommit"] for b in refs.json()["branches"] if b["name"] == "main"]
    assert re.fullmatch("[0-9a-f]{40}", commit)
    tree = httpx.get(f"{service.url}api/models/{model}/tree/{commit}?recursive=true", headers=headers)
    rows: list[dict[str, Any]] = [row for row in tree.json() if row["type"] == "file"]
    return {
        row["path"]: f"{service.url}{model}/resolve/{commit}/{row['path']}#{row['lfs']['oid']}"
        for row in rows
    }


def test_its_requests_get_the_files(service: Running, site: Path) -> None:
    found = listed(service)
    assert set(found) == set(FILES)
    for path, where in found.items():
        url, oid = where.split("#")
        data = (site / "files" / path).read_bytes()
        assert oid == hashlib.sha256(data).hexdigest()
        head = httpx.head(url, headers=AGENT)
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(data)))
        assert head.headers["etag"] == f'"{oid}"'
        assert head.headers["accept-ranges"] != "none"
        whole = httpx.get(url, headers=AGENT)
        assert (whole.status_code, whole.content) == (200, data)
        rest = httpx.get(url, headers={**AGENT, "Range": "bytes=123456-"})
        assert (rest.status_code, rest.content) == (206, data[123456:])


def test_a_model_that_needs_the_token_is_listed_with_the_token_of_a_service(service: Running) -> None:
    token = service.ready["token"]
    assert SENT_TOKEN.fullmatch(token)
    assert list(listed(service, "acme/own", Authorization=f"Bearer {token}")) == [FILES[0]]
    assert httpx.get(f"{service.url}api/models/acme/own/refs", headers=AGENT).status_code == 401


def test_a_miss_is_answered_when_it_is_downloaded_since_it_does_not_come_again(tmp_path: Path) -> None:
    root = make_registry(tmp_path)
    with Store.open(root / "home") as store:
        store.add_registry("made", root / "registry")
    with serving(root / "home", "--hub", "--fill", "--limit-rate", "80k") as service:
        url = listed(service)[FILES[1]].split("#")[0]
        assert httpx.head(url, headers=AGENT).status_code == 200
        answer = httpx.get(url, headers=AGENT, timeout=300)
        assert answer.status_code == 200, answer.text
        assert answer.content == (root / "files" / FILES[1]).read_bytes()


OLD_AGENT = {"User-Agent": "llama-cpp", "Accept": "application/json"}


@pytest.mark.parametrize(
    ("tag", "path"),
    [("latest", FILES[0]), ("Q8_0", FILES[1]), ("q4_k_m", FILES[0]), (FILES[1], FILES[1]), ("Q4_K", None)],
)
def test_releases_until_2025_ask_which_file_a_tag_is(
    service: Running, site: Path, tag: str, path: str | None
) -> None:
    said = httpx.get(f"{service.url}v2/{MODEL}/manifests/{tag}", headers=OLD_AGENT)
    if path is None:
        assert (said.status_code, "no GGUF file 'Q4_K'" in said.text) == (404, True)
        return
    assert said.status_code == 200, said.text
    assert said.json()["ggufFile"]["rfilename"] == path
    assert said.json()["mmprojFile"]["rfilename"] == FILES[2]
    url = f"{service.url}{MODEL}/resolve/main/{path}"
    head = httpx.head(url, headers={"User-Agent": "llama-cpp"})
    assert (head.status_code, head.headers["accept-ranges"]) == (200, "bytes")
    assert httpx.get(url, headers={"User-Agent": "llama-cpp"}).content == (site / "files" / path).read_bytes()


def test_the_file_of_a_tag_is_the_first_part_of_a_model_in_parts() -> None:
    paths = [f"{quant}/big-{quant}-{n:05}-of-00012.gguf" for quant in ("BF16", "Q2_K") for n in (1, 2, 11)]
    files = [VersionFile(path=path, size_bytes=1, sha256="0" * 64) for path in paths]
    found = VersionFiles("m", "1.0.0", "default", f"sha256:{'0' * 64}", tuple(files), stored=True)
    assert _choice(found, "Q2_K")["ggufFile"]["rfilename"] == paths[3]
    assert _choice(found, "latest")["ggufFile"]["rfilename"] == paths[0]
    assert list(_choice(found, "bf16")) == ["ggufFile"]


def test_other_clients_get_the_manifest_of_an_image_and_models_with_a_token_stay_closed(site: Path) -> None:
    with serving(site / "home", "--hub", "--oci", "--read-only") as both:
        url = f"{both.url}v2/{MODEL}/manifests/latest"
        assert "ggufFile" in httpx.get(url, headers=OLD_AGENT).json()
        assert "layers" in httpx.get(url).json()
        own = f"{both.url}v2/acme/own/manifests/latest"
        assert httpx.get(own, headers=OLD_AGENT).status_code == 401
        token = {"Authorization": f"Bearer {both.ready['token']}"}
        assert httpx.get(own, headers={**OLD_AGENT, **token}).json()["ggufFile"]["rfilename"] == FILES[0]


@pytest.fixture
def program() -> str:
    """A llama.cpp program that downloads, and fails afterwards, since the models have no architecture."""
    for name in ("llama-cli", "llama-completion", "llama-server"):
        if found := shutil.which(name):
            return found
    pytest.skip("needs llama-cli, llama-completion or llama-server on PATH")


def run_program(program: str, service_url: str, cache: Path, *words: str) -> None:
    env = {**os.environ, "HF_ENDPOINT": service_url, "HF_HUB_CACHE": str(cache), "LLAMA_CACHE": str(cache)}
    for name in ("MODEL_ENDPOINT", "HF_TOKEN"):
        env.pop(name, None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = ["--port", str(free.getsockname()[1])] if program.endswith("server") else []
    command = [program, *words, *port]
    subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)


def test_the_program_itself_downloads_by_quantization(
    program: str, service: Running, site: Path, tmp_path: Path
) -> None:
    run_program(program, service.url, tmp_path, "-hf", f"{MODEL}:Q8_0")
    made = {path.name: path.read_bytes() for path in tmp_path.rglob("*.gguf")}
    assert made.get(FILES[1]) == (site / "files" / FILES[1]).read_bytes()
    assert FILES[0] not in made
