"""Uploads to registries of images: Debian's docker-registry, and one that fails when it is told to."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.support.images import PASSWORD, USER, Exchange, FakeRegistry, digest_of, docker_registry
from tests.support.tools import gguf
from yarnstore import Store
from yarnstore.backends import images
from yarnstore.errors import BackendError, OfflineError, TransientError, UsageError

MODEL = gguf("Tiny", random.Random(8).randbytes(3_000_000))
FILES = {"config.json": b"{}", "deep/model.gguf": MODEL, "empty.txt": b"", "README.md": b"# Tiny\n"}


def make_store(home: Path, source: Path) -> Store:
    """A store with a version of several files."""
    for path, data in FILES.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(data)
    store = Store.open(home)
    store.import_model(source, "me/tiny@1.0.0+cpu")
    return store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path / "home", tmp_path / "source")


def skopeo(*arguments: str | Path, stdin: str = "") -> None:
    binary = shutil.which("skopeo")
    if binary is None:
        pytest.skip("skopeo is not installed (Debian: apt install skopeo)")
    command = [binary, "--insecure-policy", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_version_goes_to_a_real_registry_and_comes_back_with_equal_digests(
    store: Store, tmp_path: Path
) -> None:
    with docker_registry(tmp_path / "registry") as host:
        done = store.export("me/tiny@1.0.0+cpu", f"docker://{host}/ai/tiny")
        assert (done.path, done.how) == (f"docker://{host}/ai/tiny:1.0.0_cpu", "uploaded")
        assert store.export("me/tiny@1.0.0+cpu", f"docker://{host}/ai/tiny").how == "present"
        assert store.check_export("me/tiny@1.0.0+cpu", f"docker://{host}/ai/tiny").how == "present"
        behind = store.check_export("me/tiny@1.0.0+cpu", f"docker://{host}/ai/tiny:other")
        assert (behind.how, behind.behind) == ("behind", [f"docker://{host}/ai/tiny:other"])
        # skopeo reads it, into a layout that equals our own.
        skopeo(
            "copy",
            "--src-tls-verify=false",
            f"docker://{host}/ai/tiny:1.0.0_cpu",
            f"oci:{tmp_path / 'theirs'}:x",
        )
        store.export("me/tiny@1.0.0+cpu", f"oci:{tmp_path / 'ours'}:x")
        blobs = [
            {path.name for path in (tmp_path / who / "blobs/sha256").iterdir()} for who in ("ours", "theirs")
        ]
        assert blobs[0] == blobs[1]
        other = Store.open(tmp_path / "other")
        (came,) = other.import_from(f"docker://{host}/ai/tiny:1.0.0_cpu")
        assert (came.model, came.version) == ("me/tiny", f"0.0.1+{(came.revision or '')[:7]}")
        out = Path(other.export(f"me/tiny@{came.version}", tmp_path / "out").path)
        found = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
        assert {name: path.read_bytes() for name, path in found.items()} == FILES
        # The same image again, by its digest, and under another name, to which the contents are mounted.
        again = f"docker://{host}/ai/tiny@sha256:{came.revision}"
        assert other.import_from(again)[0].present
        other.export(f"me/tiny@{came.version}", f"docker://{host}/ai/copy:1")
        (copied,) = Store.open(tmp_path / "third").import_from(f"docker://{host}/ai/copy:1")
        assert copied.revision == came.revision


def test_skopeo_s_copy_of_a_layout_is_imported(store: Store, tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry") as host:
        store.export("me/tiny@1.0.0+cpu", f"oci:{tmp_path / 'layout'}:x")
        skopeo("copy", "--dest-tls-verify=false", f"oci:{tmp_path / 'layout'}:x", f"docker://{host}/tiny:x")
        (came,) = Store.open(tmp_path / "other").import_from(f"docker://{host}/tiny:x", "mine@2.0.0")
        index = json.loads((tmp_path / "layout/index.json").read_bytes())
        assert index["manifests"][0]["digest"] == f"sha256:{came.revision}"
        assert came.version == "2.0.0"


@pytest.mark.parametrize("where", ["netrc", "docker", "none", "wrong", "skopeo", "skopeo for a part", "file"])
def test_a_real_registry_asks_for_a_password(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    with docker_registry(tmp_path / "registry", login=True) as host:
        password = PASSWORD if where != "wrong" else "other"
        if where == "netrc":
            (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
            monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        elif where in ("skopeo", "skopeo for a part", "file"):
            # Where skopeo, podman and buildah keep what was given to `login`, or in the file that is named.
            (tmp_path / "run").mkdir()
            monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
            if where == "file":
                monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
            part = f"{host}/tiny" if where == "skopeo for a part" else host
            skopeo("login", "--tls-verify=false", "-u", USER, "--password-stdin", part, stdin=PASSWORD)
            written = tmp_path / ("auth.json" if where == "file" else "run/containers/auth.json")
            assert list(json.loads(written.read_bytes())["auths"]) == [part]
        elif where != "none":
            (tmp_path / "docker").mkdir()
            logins = {host: {"username": USER, "password": password}}
            (tmp_path / "docker/config.json").write_text(json.dumps({"auths": logins}))
            monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
        store = Store.open(tmp_path / "home")
        if where in ("none", "wrong"):
            with pytest.raises(BackendError, match="401") as refused:
                store.export("me/tiny@1.0.0+cpu", f"docker://{host}/tiny")
            assert f"docker login {host}" in refused.value.hint
            assert password not in str(refused.value.as_dict())
            return
        assert store.export("me/tiny@1.0.0+cpu", f"docker://{host}/tiny").how == "uploaded"
        assert Store.open(tmp_path / "other").import_from(f"docker://{host}/tiny:1.0.0_cpu")


def test_docker_s_flavour(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "home")
    plain, rich = tmp_path / "plain", tmp_path / "rich"
    for folder, names in ((plain, ("tiny.gguf", "LICENSE", "chat.jinja")), (rich, ("m.gguf", "config.json"))):
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(MODEL if name.endswith(".gguf") else name.encode())
    store.import_model(plain, "plain@1.0.0")
    store.import_model(rich, "rich@1.0.0")
    store.import_model(rich / "config.json", "none@1.0.0")
    with FakeRegistry() as registry:
        for model in ("plain", "rich"):
            store.export(f"{model}@1.0.0", f"docker://{registry.host}/{model}:1", flavour="docker")
        image = json.loads(registry.tags["plain:1"])
        prefix = "application/vnd.docker.ai."
        assert image["config"]["mediaType"] == f"{prefix}model.config.v0.1+json"
        config = json.loads(registry.contents[image["config"]["digest"]])
        assert config["config"] == {"format": "gguf"}
        assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in image["layers"]]
        kinds = [layer["mediaType"].removeprefix(prefix) for layer in image["layers"]]
        assert kinds == ["license", "chat.template.jinja", "gguf.v3"]
        image = json.loads(registry.tags["rich:1"])
        assert image["config"]["mediaType"] == f"{prefix}model.config.v0.2+json"
        paths = {
            layer["annotations"]["org.cncf.model.filepath"]: layer["mediaType"] for layer in image["layers"]
        }
        assert paths == {"config.json": f"{prefix}model.file", "m.gguf": f"{prefix}gguf.v3"}
        with pytest.raises(UsageError, match="GGUF"):
            store.export("none@1.0.0", f"docker://{registry.host}/none", flavour="docker")
        (came,) = Store.open(tmp_path / "other").import_from(f"docker://{registry.host}/plain:1")
        # What came as Docker's image goes as that, unless it is to be ModelPack's.
        other = Store.open(tmp_path / "other")
        other.export(f"plain@{came.version}", f"docker://{registry.host}/again:1")
        assert registry.tags["again:1"] == registry.tags["plain:1"]
        other.export(f"plain@{came.version}", f"docker://{registry.host}/pack:1", flavour="modelpack")
        assert json.loads(registry.tags["pack:1"])["artifactType"].startswith("application/vnd.cncf.model")
    store.export("plain@1.0.0", f"oci:{tmp_path / 'layout'}", flavour="docker")
    with pytest.raises(UsageError, match="has no flavour"):
        store.export("plain@1.0.0", tmp_path / "out", flavour="docker")
    with pytest.raises(UsageError, match="is no flavour"):
        store.export("plain@1.0.0", f"oci:{tmp_path / 'layout'}", flavour="vanilla")


def test_a_large_content_goes_in_pieces_which_continue_after_a_lost_connection(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "PIECE_BYTES", 1_000_000)
    monkeypatch.setattr("time.sleep", lambda _: None)
    cuts = [0, 2]  # the patches that are cut, the first before it is kept, the second after
    patches = []

    def cut(exchange: Exchange) -> bool:
        if exchange.command != "PATCH":
            return False
        patches.append(exchange.headers["Content-Range"])
        number = len(patches) - 1
        if number not in cuts:
            return False
        exchange.read_body(500_000 if number == 0 else None)
        upload = exchange.path.partition("?")[0].rpartition("/")[2]
        registry.uploads[upload] += exchange.body
        exchange.close_connection = True
        return True

    with FakeRegistry() as registry:
        registry.before = cut
        store.export("me/tiny@1.0.0+cpu", f"docker://{registry.host}/tiny")
        assert registry.contents[digest_of(MODEL)] == MODEL
        assert patches[:3] == ["0-999999", "500000-1499999", "1500000-2499999"]
        assert patches[3].startswith("2500000-")
        sent = [headers for method, _, headers in registry.seen if method == "PATCH"]
        assert all(headers["content-length"] for headers in sent)


def test_an_upload_that_the_registry_loses_begins_anew_and_ends_at_last(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "PIECE_BYTES", 1_000_000)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with FakeRegistry() as registry:

        def lose(exchange: Exchange) -> bool:
            if exchange.command == "PATCH":
                exchange.read_body()
                registry.uploads.clear()
                exchange.answer(503)
                return True
            return False

        registry.before = lose
        with pytest.raises(BackendError):
            store.export("me/tiny@1.0.0+cpu", f"docker://{registry.host}/tiny")
        assert registry.methods().count("PATCH") <= 6
        assert "tiny:1.0.0_cpu" not in registry.tags


@pytest.mark.parametrize("status", [403, 413, 500])
def test_a_refused_upload_says_what_the_registry_says_and_tags_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    said = b'{"errors":[{"code":"DENIED","message":"quota \\u001b[31mexceeded"}]}'

    def refuse(exchange: Exchange) -> bool:
        if exchange.command != "PUT":
            return False
        exchange.read_body()
        return exchange.answer(status, said, Content_Type="application/json")

    with FakeRegistry() as registry:
        registry.before = refuse
        with pytest.raises(BackendError, match=f"HTTP {status}.*quota .*exceeded") as refused:
            store.export("me/tiny@1.0.0+cpu", f"docker://{registry.host}/tiny")
        assert "\x1b" not in refused.value.message
        assert isinstance(refused.value, TransientError) == (status == 500)
        assert not registry.tags
        tries = Counter(path.rpartition("digest=")[2] for method, path, _ in registry.seen if method == "PUT")
        assert max(tries.values()) == (5 if status == 500 else 1)


def test_contents_are_uploaded_several_at_once_and_all_stop_if_one_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "parts"
    source.mkdir()
    for number in range(4):
        (source / f"part-{number}.bin").write_bytes(random.Random(number).randbytes(300_000))
    refused = digest_of((source / "part-3.bin").read_bytes())
    store = Store.open(tmp_path / "home")
    store.import_model(source, "parts@1.0.0")
    together = threading.Barrier(3)

    def wait(exchange: Exchange) -> bool:
        if exchange.command != "PUT" or "/blobs/" not in exchange.path:
            return False
        exchange.read_body()
        if digest_of(exchange.body) == refused:
            return exchange.answer(403)
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(20)
        return False

    with FakeRegistry() as registry:
        registry.before = wait
        with pytest.raises(BackendError, match="403"):
            store.export("parts@1.0.0", f"docker://{registry.host}/parts:1")
        assert not together.broken  # three were sent at the same time
        assert not registry.tags
        registry.before = lambda _: False
        assert store.export("parts@1.0.0", f"docker://{registry.host}/parts:1").how == "uploaded"
        assert {digest_of(path.read_bytes()) for path in source.iterdir()} <= registry.contents.keys()
        assert registry.methods()[-1] == "PUT"
        assert registry.seen[-1][1] == "/v2/parts/manifests/1"


def test_contents_of_another_repository_there_are_mounted(store: Store) -> None:
    with FakeRegistry() as registry:
        store.export("me/tiny@1.0.0+cpu", f"docker://{registry.host}/tiny:1")
        (came,) = store.import_from(f"docker://{registry.host}/tiny:1", "copy")
        before = len(registry.seen)
        # Each repository has its own contents in a real registry.
        registry.before = lambda exchange: exchange.command == "HEAD" and exchange.answer(404)
        store.export(f"copy@{came.version}", f"docker://{registry.host}/other:1")
        asked = [
            (method, path) for method, path, _ in registry.seen[before:] if method in ("POST", "PUT", "PATCH")
        ]
        digests = sorted(digest_of(data) for data in FILES.values())
        mounts = [f"/v2/other/blobs/uploads/?mount={digest}&from=tiny" for digest in digests]
        assert sorted(path for _, path in asked if "mount" in path) == sorted(mounts)
        puts = [path.partition("?")[0].rpartition("/")[0] for method, path in asked if method == "PUT"]
        assert puts == ["/v2/other/blobs/uploads", "/v2/other/manifests"]  # the configuration, and the tag


def test_a_token_that_expires_within_an_upload_is_renewed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "PIECE_BYTES", 1_000_000)
    with FakeRegistry(token="t0", for_all=True) as registry:

        def expire(exchange: Exchange) -> bool:
            if exchange.command == "PATCH" and registry.methods().count("PATCH") == 2:
                registry.token = "t1"
            return False

        registry.before = expire
        store.export("me/tiny@1.0.0+cpu", f"docker://{registry.host}/tiny")
        assert registry.contents[digest_of(MODEL)] == MODEL
        assert sum("/token" in path for _, path, _ in registry.seen) == 2


def test_plain_http_to_another_machine_is_refused_where_https_is_required(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "home/config.toml").write_text("require_https = true\n")
    with pytest.raises(BackendError, match="require_https"):
        Store.open(tmp_path / "home").export("me/tiny@1.0.0+cpu", "docker+http://192.0.2.1:5000/tiny")


def test_offline_and_to_a_digest_nothing_is_uploaded(store: Store) -> None:
    with FakeRegistry() as registry:
        with pytest.raises(UsageError, match="exists"):
            store.export("me/tiny@1.0.0+cpu", f"docker://{registry.host}/tiny@{digest_of(b'')}")
        store.set_network(offline=True)
        with pytest.raises(OfflineError):
            store.export("me/tiny@1.0.0+cpu", f"docker://{registry.host}/tiny")
        assert registry.seen == []
