"""Downloads of images from registries that are right, damaged, cut, busy, or ask for a login."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import random
import tarfile
import threading
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from tests.support.images import PASSWORD, USER, Exchange, FakeRegistry, digest_of
from tests.support.tools import gguf
from yarnstore import Store
from yarnstore.errors import (
    BackendError,
    ConflictError,
    FormatError,
    IntegrityError,
    NotFoundError,
    OfflineError,
    TransientError,
    UsageError,
)

MODEL = gguf("Tiny", random.Random(9).randbytes(2_000_000))
RAW = "application/vnd.cncf.model.weight.v1.raw"
PATH = "org.cncf.model.filepath"
TOKEN = "a.b-c"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("time.sleep", lambda _: None)
    return Store.open(tmp_path / "home")


def add(registry: FakeRegistry, name: str = "ai/tiny:latest", data: bytes = MODEL) -> bytes:
    """A ModelPack image with one file."""
    return registry.image(name, registry.put(data, RAW, **{PATH: "model.gguf"}))


def files_of(store: Store, spec: str, folder: Path) -> dict[str, bytes]:
    out = Path(store.export(spec, f"{folder}/").path)
    out = out if out.is_dir() else out.parent
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_the_image_is_named_by_its_repository_and_read_once(store: Store, tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        manifest = add(registry)
        (done,) = store.import_from(f"docker://{registry.host}/ai/tiny")
        revision = hashlib.sha256(manifest).hexdigest()
        assert (done.model, done.version, done.revision) == ("ai/tiny", f"0.0.1+{revision[:7]}", revision)
        assert files_of(store, f"ai/tiny@{done.version}", tmp_path / "out") == {"model.gguf": MODEL}
        before = len(registry.seen)
        assert store.import_from(f"docker://{registry.host}/ai/tiny:latest")[0].present
        assert [path for _, path, _ in registry.seen[before:] if digest_of(MODEL) in path] == []
        # A new image of the tag has one file that is known, which is not downloaded.
        known = registry.put(MODEL, RAW, **{PATH: "model.gguf"})
        registry.image("ai/tiny:latest", known, registry.put(b"{}", RAW, **{PATH: "config.json"}))
        (second,) = store.import_from(f"docker://{registry.host}/ai/tiny")
        assert second.version.startswith("0.0.2+")
        assert [path for _, path, _ in registry.seen[before:] if digest_of(MODEL) in path] == []
        assert "application/vnd.oci.image.manifest.v1+json" in registry.seen[-1][2]["accept"]
    assert list((tmp_path / "home/tmp").glob("*")) == []


@pytest.mark.parametrize("wrong", ["content", "longer", "config", "manifest"])
def test_wrong_bytes_are_refused_by_their_digest(store: Store, wrong: str) -> None:
    with FakeRegistry() as registry:
        manifest = add(registry)
        reference = ""
        if wrong == "content":
            registry.contents[digest_of(MODEL)] = MODEL[:-1] + b"x"
        elif wrong == "longer":
            registry.contents[digest_of(MODEL)] = MODEL + b"x"
        elif wrong == "config":
            registry.contents[digest_of(b"{}")] = b"[]"
        else:
            reference = f"@{digest_of(manifest)}"
            registry.contents[digest_of(manifest)] = manifest.replace(b"model.gguf", b"other.gguf")
        with pytest.raises(IntegrityError):
            store.import_from(f"docker://{registry.host}/ai/tiny{reference}")
        assert store.list_versions() == []


def test_a_cut_download_is_continued_within_a_run_and_by_the_next(store: Store, tmp_path: Path) -> None:
    served: list[int] = []
    broken = True

    def cut(exchange: Exchange) -> bool:
        if exchange.command != "GET" or digest_of(MODEL) not in exchange.path.replace("%3A", ":"):
            return False
        first = int(exchange.headers.get("Range", "bytes=0-")[6:-1])
        served.append(first)
        part = MODEL[first : first + 300_000]
        if broken and len(served) > 3:
            return exchange.answer(404)
        if first + len(part) == len(MODEL):
            return False
        headers = {"Content_Length": str(len(MODEL) - first)}
        if first:
            headers["Content_Range"] = f"bytes {first}-{len(MODEL) - 1}/{len(MODEL)}"
        exchange.answer(206 if first else 200, part, **headers)
        exchange.close_connection = True
        return True

    with FakeRegistry() as registry:
        add(registry)
        registry.before = cut
        with pytest.raises(BackendError):
            store.import_from(f"docker://{registry.host}/ai/tiny")
        assert served == [0, 300_000, 600_000, 900_000]
        broken = False
        (done,) = store.import_from(f"docker://{registry.host}/ai/tiny")
        assert served[4] == 900_000
        assert files_of(store, f"ai/tiny@{done.version}", tmp_path / "out") == {"model.gguf": MODEL}


@pytest.mark.parametrize("login", ["none", "auth", "all"])
def test_a_token_is_asked_for_with_the_login_of_docker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: str
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with FakeRegistry(token=TOKEN, for_all=login == "all") as registry:
        add(registry)
        if login == "auth":
            auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            logins = {"auths": {f"https://{registry.host}/v1/": {"auth": auth}, "other:1": {"auth": "eDp5"}}}
            (tmp_path / "config.json").write_text(json.dumps(logins))
        notes: list[str] = []
        store = Store.open(tmp_path / "home", progress=lambda event: notes.append(event.text))
        if login == "none":
            with pytest.raises(BackendError, match="401"):
                store.import_from(f"docker://{registry.host}/ai/tiny")
            return
        assert store.import_from(f"docker://{registry.host}/ai/tiny")
        (asked,) = [(path, headers) for _, path, headers in registry.seen if path.startswith("/token")]
        assert asked[0] == "/token?service=fake&scope=repository%3Ax%3Apull%2Cpush"
        assert ("authorization" in asked[1]) == (login == "auth")
        sent = [headers.get("authorization") for _, path, headers in registry.seen if "/v2/" in path]
        assert sent == [None] + [f"Bearer {TOKEN}"] * (len(sent) - 1)
        assert not any(TOKEN in note or PASSWORD in note for note in notes)


def test_an_identity_token_is_sent_to_the_server_of_tokens_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    forms: list[dict[str, list[str]]] = []

    def exchanged(exchange: Exchange) -> bool:
        if exchange.path != "/token":
            return False
        assert exchange.command == "POST"
        exchange.read_body()
        forms.append(parse_qs(exchange.body.decode()))
        return exchange.answer(200, json.dumps({"access_token": TOKEN}).encode())

    with FakeRegistry(token=TOKEN) as registry:
        add(registry)
        registry.before = exchanged
        auths = {registry.host: {"auth": "MDAwMDo=", "identitytoken": "the-identity"}}
        (tmp_path / "auth.json").write_text(json.dumps({"auths": auths}))
        notes: list[str] = []
        store = Store.open(tmp_path / "home", progress=lambda event: notes.append(event.text))
        assert store.import_from(f"docker://{registry.host}/ai/tiny")
        assert {tuple(form.items()) for form in ({k: v[0] for k, v in form.items()} for form in forms)} == {
            (
                ("grant_type", "refresh_token"),
                ("client_id", "yarnstore"),
                ("service", "fake"),
                ("scope", "repository:x:pull,push"),
                ("refresh_token", "the-identity"),
            )
        }
        assert not any("the-identity" in str(headers) + path for _, path, headers in registry.seen)
        assert not any("the-identity" in note for note in notes)


def test_layers_are_downloaded_several_at_once_and_all_stop_if_one_is_wrong(
    store: Store, tmp_path: Path
) -> None:
    layers = {f"part-{n}.gguf": MODEL + bytes([n]) for n in range(4)}
    together = threading.Barrier(3)
    wrong = digest_of(layers["part-3.gguf"])

    def wait(exchange: Exchange) -> bool:
        path = exchange.path.replace("%3A", ":")
        if any(digest_of(data) in path for data in list(layers.values())[:3]):
            with contextlib.suppress(threading.BrokenBarrierError):
                together.wait(20)
        return False

    with FakeRegistry() as registry:
        parts = [registry.put(data, RAW, **{PATH: name}) for name, data in layers.items()]
        registry.image("ai/parts:latest", *parts)
        registry.before = wait
        registry.contents[wrong] = bytes(len(MODEL) + 1)
        with pytest.raises(IntegrityError, match="digest in the manifest"):
            store.import_from(f"docker://{registry.host}/ai/parts")
        assert not together.broken  # three were asked for at the same time
        registry.contents[wrong] = layers["part-3.gguf"]
        registry.before = lambda _: False
        (done,) = store.import_from(f"docker://{registry.host}/ai/parts")
        assert files_of(store, f"ai/parts@{done.version}", tmp_path / "out") == layers


@pytest.mark.parametrize("what", ["redirect", "realm"])
def test_another_host_gets_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with FakeRegistry(token=TOKEN) as registry, FakeRegistry() as storage:
        add(registry)
        logins = {"auths": {registry.host: {"username": USER, "password": PASSWORD}}}
        (tmp_path / "config.json").write_text(json.dumps(logins))
        storage.contents[digest_of(MODEL)] = MODEL
        place = f"http://{storage.host}/v2/x/blobs/{digest_of(MODEL)}?signature=1"

        def redirect(exchange: Exchange) -> bool:
            return digest_of(MODEL) in exchange.path.replace("%3A", ":") and exchange.answer(
                307, Location=place
            )

        registry.before = redirect
        store = Store.open(tmp_path / "home")
        if what == "realm":
            registry.realm = "http://169.254.169.254/token"
            with pytest.raises(BackendError, match="server of tokens"):
                store.import_from(f"docker://{registry.host}/ai/tiny")
            return
        assert store.import_from(f"docker://{registry.host}/ai/tiny")
        (asked,) = storage.seen
        assert "authorization" not in asked[2]


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_registry_is_asked_again(store: Store, status: int) -> None:
    refused = 0

    def busy(exchange: Exchange) -> bool:
        nonlocal refused
        refused += 1
        return refused <= 2 and exchange.answer(status, Retry_After="1")

    with FakeRegistry() as registry:
        add(registry)
        registry.before = busy
        assert store.import_from(f"docker://{registry.host}/ai/tiny")
        refused = -1000
        with pytest.raises(TransientError, match=f"HTTP {status}.*tried 5 times"):
            store.import_from(f"docker://{registry.host}/ai/tiny")


def test_a_missing_tag_names_close_ones(store: Store) -> None:
    with FakeRegistry() as registry:
        add(registry, "ai/tiny:1.0.0")
        with pytest.raises(NotFoundError, match=r'no image "1.0.1" in docker://.*/ai/tiny.*1\.0\.0'):
            store.import_from(f"docker://{registry.host}/ai/tiny:1.0.1")
        with pytest.raises(NotFoundError, match="sha256"):
            store.import_from(f"docker://{registry.host}/ai/tiny@{digest_of(b'x')}")
        store.set_network(offline=True)
        with pytest.raises(OfflineError):
            store.import_from(f"docker://{registry.host}/ai/tiny:1.0.0")


def test_an_index_of_one_image_is_followed_and_one_of_two_is_refused(store: Store) -> None:
    with FakeRegistry() as registry:
        kind = "application/vnd.oci.image.manifest.v1+json"
        entries = [registry.put(add(registry, f"ai/tiny:{n}", b"%d" % n), kind) for n in (1, 2)]
        for tag, listed in (("one", entries[:1]), ("two", entries)):
            registry.tags[f"ai/tiny:{tag}"] = json.dumps({"schemaVersion": 2, "manifests": listed}).encode()
        (done,) = store.import_from(f"docker://{registry.host}/ai/tiny:one")
        assert f"sha256:{done.revision}" == entries[0]["digest"]
        with pytest.raises(UsageError, match="index of 2 images"):
            store.import_from(f"docker://{registry.host}/ai/tiny:two")


def test_a_version_of_other_content_is_refused_before_the_download(store: Store, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(MODEL)
    store.import_model(tmp_path / "model.gguf", "tiny@1.0.0")
    with FakeRegistry() as registry:
        add(registry, data=b"other")
        with pytest.raises(ConflictError, match="different content"):
            store.import_from(f"docker://{registry.host}/ai/tiny", "tiny@1.0.0")
        add(registry)
        again = store.import_from(f"docker://{registry.host}/ai/tiny", "tiny@1.0.0")
        assert [
            path for _, path, _ in registry.seen if "/blobs/" in path and digest_of(b"{}") not in path
        ] == []
        assert again[0].manifest == store.list_versions("tiny")[0].manifest


def test_an_image_whose_chunks_are_lost_is_downloaded_again(store: Store, tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        add(registry)
        (done,) = store.import_from(f"docker://{registry.host}/ai/tiny")
        for folder in ("packs", "files"):
            for path in (tmp_path / "home" / folder).rglob("*"):
                if path.is_file():
                    path.unlink()
        (again,) = store.import_from(f"docker://{registry.host}/ai/tiny")
        assert (again.version, again.present) == (done.version, False)
        assert files_of(store, f"ai/tiny@{done.version}", tmp_path / "out") == {"model.gguf": MODEL}


def tarred(files: dict[str, bytes], mode: str = "w") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:  # type: ignore[call-overload]
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def test_a_modelkit_is_unpacked(store: Store, tmp_path: Path) -> None:
    kit = "application/vnd.kitops.modelkit."
    with FakeRegistry() as registry:
        registry.image(
            "kits/tiny:1",
            registry.put(tarred({"models/tiny.gguf": MODEL}), f"{kit}model.v1.tar"),
            registry.put(tarred({"docs/README.md": b"# Tiny"}, "w:gz"), f"{kit}docs.v1.tar+gzip"),
            config=(f"{kit}config.v1+json", b'{"manifestVersion":"1.0.0","package":{"name":"tiny"}}'),
        )
        (done,) = store.import_from(f"docker://{registry.host}/kits/tiny:1", "mine")
        found = files_of(store, f"mine@{done.version}", tmp_path / "out")
        assert found == {"models/tiny.gguf": MODEL, "docs/README.md": b"# Tiny"}
        assert list((tmp_path / "home/tmp").glob("*")) == []
        registry.image("kits/bad:1", registry.put(tarred({"../tiny.gguf": MODEL}), f"{kit}model.v1.tar"))
        with pytest.raises(FormatError):
            store.import_from(f"docker://{registry.host}/kits/bad:1")
        twice = [registry.put(tarred({"a": data}), f"{kit}code.v1.tar") for data in (b"1", b"2")]
        registry.image("kits/twice:1", *twice)
        with pytest.raises(FormatError, match="same path"):
            store.import_from(f"docker://{registry.host}/kits/twice:1")


def test_an_image_of_ollama_is_a_variant_and_keeps_its_digest(store: Store, tmp_path: Path) -> None:
    layer = "application/vnd.ollama.image."
    with FakeRegistry() as registry:
        manifest = registry.image(
            "library/tiny:1b",
            registry.put(MODEL, f"{layer}model"),
            registry.put(b"{{ .Prompt }}", f"{layer}template"),
            config=("application/vnd.docker.container.image.v1+json", b'{"model_format":"gguf"}'),
        )
        (done,) = store.import_from(f"docker://{registry.host}/library/tiny:1b")
        assert (done.model, done.variant) == ("tiny", "1b")
        spec = f"tiny:1b@{done.version}"
        assert set(files_of(store, spec, tmp_path / "out")) == {"model.gguf", "template.txt"}
        store.export(spec, f"docker://{registry.host}/copy:1")
        assert registry.tags["copy:1"] == manifest


@pytest.mark.parametrize(
    "address",
    [
        *("docker://ai/tiny", "docker://host:5000/UPPER", "docker://host:5000/a:b:c", "docker:host/x"),
        *("docker://user@host:5000/x", "docker://host:5000", "docker://host:5000/x@sha256:12"),
        *("docker+ftp://host:5000/x", "docker://host:5000/x?a=b", f"docker://host:5000/{'a/' * 400}x"),
        "docker://host:5000/../x",
    ],
)
def test_what_is_no_address_of_an_image_is_refused(store: Store, address: str) -> None:
    with pytest.raises(UsageError):
        store.import_from(address)


@pytest.mark.parametrize("answer", [b"<html>log in</html>", b"{}", b"[1]", b'{"token":"a\\nb"}'])
def test_a_server_of_tokens_that_sends_none_is_named(store: Store, answer: bytes) -> None:
    with FakeRegistry(token=TOKEN) as registry:
        registry.before = lambda exchange: (
            exchange.path.startswith("/token") and exchange.answer(200, answer, Content_Type="text/html")
        )
        with pytest.raises(BackendError, match="sent no token"):
            store.import_from(f"docker://{registry.host}/ai/tiny")


@pytest.mark.parametrize("challenge", ["", "Negotiate", "Bearer", 'Bearer realm="x:y"'])
def test_a_challenge_that_nobody_can_answer_is_an_error_of_the_registry(store: Store, challenge: str) -> None:
    with FakeRegistry() as registry:
        registry.before = lambda exchange: exchange.answer(401, b"{}", WWW_Authenticate=challenge)
        with pytest.raises(BackendError, match=r"401|server of tokens"):
            store.import_from(f"docker://{registry.host}/ai/tiny")


def test_a_page_of_html_is_a_content_like_any_other(store: Store, tmp_path: Path) -> None:
    page = b"<!doctype html><title>Tiny</title>"
    with FakeRegistry() as registry:
        registry.image("ai/tiny:1", registry.put(page, RAW, **{PATH: "card.html"}))
        registry.before = lambda exchange: (
            "blobs" in exchange.path
            and digest_of(page) in exchange.path
            and exchange.answer(200, page, Content_Type="text/html")
        )
        (done,) = store.import_from(f"docker://{registry.host}/ai/tiny:1")
        assert files_of(store, f"ai/tiny@{done.version}", tmp_path / "out") == {"card.html": page}
