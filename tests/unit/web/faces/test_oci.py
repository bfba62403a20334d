"""OCI's distribution API of `ystore serve --oci`, through skopeo and by its bytes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.services import Running, needs_web, serving
from tests.support.stores import MODEL, Site, make_site
from yarnstore import Store
from yarnstore.cli import run
from yarnstore.core.limits import MIB
from yarnstore.results import StoredVersion, VersionFile, VersionFiles

pytestmark = needs_web
MODELPACK = "application/vnd.cncf.model.manifest.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
OLLAMA = {"User-Agent": "ollama/0.5.1 (amd64 linux) Go/go1.22"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """1.0.0 installed, 1.1.0 stored; an imported model, and one of a registry that Ollama can read."""
    root = tmp_path_factory.mktemp("oci")
    found = make_site(root)
    gguf = root / "gguf"
    gguf.mkdir()
    (gguf / "tiny.gguf").write_bytes(b"GGUF" + bytes(range(256)) * 2000)
    (gguf / "template.txt").write_text("{{ .Prompt }}")
    (gguf / "README.md").write_text("# Tiny\n")
    with found.store() as store:
        store.publish(gguf, "tiny@1.0.0+cpu", registry=found.registry)
        store.checkout(f"{MODEL}@1.0.0")
        store.fetch(f"{MODEL}@1.1.0")
        store.fetch("tiny@1.0.0+cpu")
        store.import_model(found.source("1.2.0"), "acme/own@0.1.0")
    return found


@pytest.fixture(scope="module")
def service(site: Site) -> Iterator[Running]:
    with serving(site.home, "--oci", "--fill") as running:
        yield running


@pytest.fixture(scope="module")
def local(service: Running) -> Iterator[httpx.Client]:
    """A program of this machine without a token."""
    with httpx.Client(base_url=service.url) as client:
        yield client


def test_a_version_is_a_modelpack_image(local: httpx.Client, site: Site) -> None:
    answer = local.get(f"/v2/library/{MODEL}/manifests/1.1.0")
    manifest = answer.json()
    assert manifest["artifactType"] == MODELPACK
    assert answer.headers["docker-content-digest"] == f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
    layers = {layer["annotations"]["org.cncf.model.filepath"]: layer for layer in manifest["layers"]}
    assert {path: layer["digest"][7:] for path, layer in layers.items()} == site.contents("1.1.0")
    for path, layer in layers.items():
        data = (site.source("1.1.0") / path).read_bytes()
        where = f"/v2/library/{MODEL}/blobs/{layer['digest']}"
        assert local.get(where).content == data
        part = local.get(where, headers={"Range": "bytes=3-8"})
        assert (part.status_code, part.content) == (206, data[3:9])
        head = local.head(where)
        assert (head.headers["content-length"], layer["size"]) == (str(len(data)), len(data))
    config = local.get(f"/v2/library/{MODEL}/blobs/{manifest['config']['digest']}").json()
    assert config["descriptor"] == {"name": MODEL, "version": "1.1.0"}


def test_it_is_the_image_that_export_writes(local: httpx.Client, site: Site, tmp_path: Path) -> None:
    assert run(["export", f"{MODEL}@1.0.0", f"oci:{tmp_path / 'layout'}", "--home", str(site.home)]) == 0
    (entry,) = json.loads((tmp_path / "layout" / "index.json").read_text())["manifests"]
    digest = local.head(f"/v2/{MODEL}/manifests/latest").headers["docker-content-digest"]
    assert digest == entry["digest"]
    # A new service has not been asked for the tag before.
    with serving(site.home, "--oci", "--read-only") as fresh:
        assert httpx.get(f"{fresh.url}v2/{MODEL}/manifests/{digest}").status_code == 200
        layer = f"sha256:{site.contents('1.1.0')['config.json']}"
        assert httpx.get(f"{fresh.url}v2/{MODEL}/blobs/{layer}").json()["version"] == "1.1.0"


def test_an_imported_image_keeps_its_digest(service: Running, site: Site, tmp_path: Path) -> None:
    layout, back = tmp_path / "layout", tmp_path / "back"
    with site.store() as store:
        store.export("tiny@1.0.0+cpu", f"oci:{layout}:one")
        data = (layout / "index.json").read_bytes()
        (entry,) = json.loads(data)["manifests"]
        place = layout / "blobs" / "sha256"
        image = json.loads((place / entry["digest"][7:]).read_bytes())
        image["mediaType"] = DOCKER
        image["annotations"] = {"by": "another tool"}
        changed = json.dumps(image).encode()
        digest = f"sha256:{hashlib.sha256(changed).hexdigest()}"
        (place / digest[7:]).write_bytes(changed)
        entry |= {"digest": digest, "size": len(changed), "mediaType": DOCKER}
        (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        (done,) = store.import_from(f"oci:{layout}", "another/tiny")
        store.export(f"another/tiny@{done.version}", f"oci:{back}:one")
    (again,) = json.loads((back / "index.json").read_bytes())["manifests"]
    assert (again["digest"], again["mediaType"]) == (digest, DOCKER)
    tag = done.version.replace("+", "_")
    answer = service.client.get(f"/v2/another/tiny/manifests/{tag}")
    assert (answer.content, answer.headers["content-type"]) == (changed, DOCKER)
    for each in [image["config"], *image["layers"]]:
        found = service.client.get(f"/v2/another/tiny/blobs/{each['digest']}").content
        assert found == (place / each["digest"][7:]).read_bytes()
    with site.store() as store:
        store.remove("another/tiny", whole_model=True)


def test_ollama_gets_the_image_that_it_reads(local: httpx.Client) -> None:
    manifest = local.get("/v2/library/tiny/manifests/1.0.0_cpu", headers=OLLAMA).json()
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    kinds = [layer["mediaType"].rpartition(".")[2] for layer in manifest["layers"]]
    assert kinds == ["model", "template"]
    model = manifest["layers"][0]
    data = local.get(f"/v2/library/tiny/blobs/{model['digest']}", headers=OLLAMA).content
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == model["digest"]
    assert data.startswith(b"GGUF")
    config = local.get(f"/v2/library/tiny/blobs/{manifest['config']['digest']}").json()
    assert config["model_format"] == "gguf"


def test_lists(local: httpx.Client, service: Running) -> None:
    assert local.get("/v2/_catalog").json() == {"repositories": [MODEL, "tiny"]}
    every = service.client.get("/v2/_catalog").json()["repositories"]
    assert every == ["acme/own", MODEL, "tiny"]
    assert local.get("/v2/tiny/tags/list").json() == {"name": "tiny", "tags": ["1.0.0_cpu"]}
    assert local.get(f"/v2/{MODEL}/tags/list?n=1").json()["tags"] == ["1.0.0"]
    assert local.get(f"/v2/{MODEL}/referrers/sha256:{'0' * 64}").json()["manifests"] == []


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"/v2/{MODEL}/manifests/9.9.9", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/{MODEL}/manifests/sha256:{'0' * 64}", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/{MODEL}/blobs/sha256:{'0' * 64}", 404, "BLOB_UNKNOWN"),
        ("/v2/nobody/manifests/latest", 401, "UNAUTHORIZED"),
        ("/v2/acme/own/manifests/0.1.0", 401, "UNAUTHORIZED"),
    ],
)
def test_errors(local: httpx.Client, path: str, status: int, code: str) -> None:
    answer = local.get(path)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (status, code)
    assert ("www-authenticate" in answer.headers) == (status == 401)


def test_the_token_is_a_password_too(local: httpx.Client, service: Running) -> None:
    own = local.get("/v2/acme/own/manifests/0.1.0", auth=("anyone", service.ready["token"]))
    assert own.status_code == 200
    assert local.get("/v2/acme/own/manifests/0.1.0", auth=("anyone", "wrong")).status_code == 401
    assert service.client.get("/v2/nobody/manifests/latest").status_code == 404
    assert local.put(f"/v2/{MODEL}/manifests/1.0.0").status_code == 405


def test_a_miss_is_filled(local: httpx.Client, site: Site) -> None:
    manifest = local.get(f"/v2/{MODEL}/manifests/1.2.0").json()
    for layer in manifest["layers"]:
        path = layer["annotations"]["org.cncf.model.filepath"]
        data = local.get(f"/v2/{MODEL}/blobs/{layer['digest']}", timeout=30).content
        assert data == (site.source("1.2.0") / path).read_bytes()


def skopeo(*words: str) -> str:
    """Run skopeo, and return what it says about an error; empty without one."""
    tool = shutil.which("skopeo")
    if tool is None:
        pytest.skip("skopeo is not installed (Debian: apt install skopeo)")
    done = subprocess.run([tool, *words], capture_output=True, text=True, timeout=60)
    return done.stderr or "failed" if done.returncode else ""


def copy_image(service: Running, name: str, layout: Path, *options: str) -> str:
    """Copy an image with skopeo, which compares each digest; as `skopeo`."""
    source = f"docker://{service.url.removeprefix('http://')}{name}"
    usual = ["--all", "--preserve-digests", "--src-tls-verify=false"]
    return skopeo("--insecure-policy", "copy", *usual, *options, source, f"oci:{layout}:copied")


def copied(service: Running, name: str, layout: Path, *options: str) -> Path:
    """Copy an image, and return the folder of the blobs."""
    assert copy_image(service, name, layout, *options) == ""
    return layout / "blobs" / "sha256"


def test_skopeo_copies_an_image(service: Running, site: Site, tmp_path: Path) -> None:
    blobs = copied(service, f"library/{MODEL}:1.1.0", tmp_path / "layout")
    assert set(site.contents("1.1.0").values()) <= {path.name for path in blobs.iterdir()}


def test_skopeo_copies_a_model_that_needs_the_token(service: Running, site: Site, tmp_path: Path) -> None:
    token = service.ready["token"]
    assert "unauthorized" in copy_image(service, "acme/own:0.1.0", tmp_path / "without")
    assert copy_image(service, "acme/own:0.1.0", tmp_path / "wrong", "--src-creds", "anyone:wrong")
    blobs = copied(service, "acme/own:0.1.0", tmp_path / "layout", "--src-creds", f"anyone:{token}")
    assert set(site.contents("1.2.0").values()) <= {path.name for path in blobs.iterdir()}
    by_token = ["--src-registry-token", token]
    copied(service, "acme/own:0.1.0", tmp_path / "registry token", *by_token)


def test_skopeo_logs_in_with_the_token_only(service: Running, tmp_path: Path) -> None:
    logins = tmp_path / "auth.json"
    host = service.url.removeprefix("http://").rstrip("/")
    login = ["login", "--tls-verify=false", "--authfile", str(logins), "--username", "anyone", "--password"]
    assert skopeo(*login, "wrong", host)
    assert not logins.exists()
    assert skopeo(*login, service.ready["token"], host) == ""
    copied(service, "acme/own:0.1.0", tmp_path / "layout", "--authfile", str(logins))


def test_clients_that_ask_for_a_challenge_first_get_a_token(local: httpx.Client, service: Running) -> None:
    asked = local.get("/v2/")
    realm = f"{service.url}v2/token"
    assert asked.status_code == 401
    assert asked.headers["www-authenticate"] == f'Bearer realm="{realm}",service="ystore"'
    nobody = local.get(realm, params={"service": "ystore", "scope": "repository:acme/own:pull"}).json()
    assert nobody["token"] == nobody["access_token"] != service.ready["token"]
    headers = {"Authorization": f"Bearer {nobody['token']}"}
    assert local.get("/v2/", headers=headers).status_code == 200
    assert local.get(f"/v2/{MODEL}/manifests/1.0.0", headers=headers).status_code == 200
    refused = local.get("/v2/acme/own/manifests/0.1.0", headers=headers)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].endswith('scope="repository:acme/own:pull"')
    owner = local.get(realm, auth=("anyone", service.ready["token"])).json()
    assert owner["token"] == service.ready["token"]
    for wrong in ("Basic Og==", "Bearer wrong", "Basic x"):
        assert local.get(realm, headers={"Authorization": wrong}).status_code == 401
        assert local.get("/v2/", headers={"Authorization": wrong}).status_code == 401
    assert service.client.get("/v2/").status_code == 200


def test_other_machines_are_asked_for_a_password_at_any_address(local: httpx.Client) -> None:
    for path in ("/v2/", "/v2/token", f"/v2/{MODEL}/manifests/1.0.0"):
        answer = local.get(path, headers={"X-Forwarded-For": "10.0.0.9"})
        assert answer.status_code == 401
        # By http or https: only the proxy knows by which its clients reach a server of tokens here.
        assert answer.headers["www-authenticate"] == 'Basic realm="ystore"'


@pytest.mark.parametrize("name", ["", "library/"])
def test_a_container_unpacks_the_layers_of_a_volume(
    service: Running, site: Site, tmp_path: Path, name: str
) -> None:
    blobs = copied(service, f"volume/{name}{MODEL}:1.1.0", tmp_path / "layout")
    (entry,) = json.loads((tmp_path / "layout" / "index.json").read_text())["manifests"]
    index = json.loads((blobs / entry["digest"][7:]).read_bytes())
    platforms = {each["platform"]["architecture"]: each["digest"] for each in index["manifests"]}
    assert set(platforms) == {"amd64", "arm64"}
    layers = []
    for digest in platforms.values():
        manifest = json.loads((blobs / digest[7:]).read_bytes())
        config = json.loads((blobs / manifest["config"]["digest"][7:]).read_bytes())
        layers = manifest["layers"]
        assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in layers]
    root = tmp_path / "root"
    for layer in layers:
        with tarfile.open(blobs / layer["digest"][7:], "r:") as archive:
            archive.extractall(root, filter="data")
    found = {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }
    assert found == site.contents("1.1.0")


def test_any_range_of_a_layer_of_a_volume_is_sent(local: httpx.Client, site: Site) -> None:
    where = f"/v2/volume/{MODEL}"
    index = local.get(f"{where}/manifests/1.1.0")
    assert local.get(f"{where}/manifests/{index.headers['docker-content-digest']}").content == index.content
    manifest = local.get(f"{where}/manifests/{index.json()['manifests'][1]['digest']}").json()
    with serving(site.home, "--oci", "--read-only") as fresh, httpx.Client(base_url=fresh.url) as other:
        for layer in manifest["layers"]:
            blob = f"{where}/blobs/{layer['digest']}"
            data = other.get(blob).content  # this service was not asked for the manifest before
            assert f"sha256:{hashlib.sha256(data).hexdigest()}" == layer["digest"]
            assert len(data) == layer["size"] == int(local.head(blob).headers["content-length"])
            for start, end in ((0, 0), (500, 513), (len(data) - 1030, len(data) - 1), (7, len(data) // 2)):
                part = local.get(blob, headers={"Range": f"bytes={start}-{end}"})
                assert (part.status_code, part.content) == (206, data[start : end + 1])


def test_digests_that_name_nothing_cost_one_search_until_the_store_changes(
    tmp_path: Path,
) -> None:
    from yarnstore.web.access import Access  # these need the extra
    from yarnstore.web.faces.front import FaceRequest
    from yarnstore.web.faces.library import Library
    from yarnstore.web.faces.oci import Oci
    from yarnstore.web.service import Service

    searches: list[str] = []

    class Counting(Library):
        async def versions(self, model: str) -> list[StoredVersion]:
            searches.append(model)
            return await super().versions(model)

    fresh = make_site(tmp_path)
    with fresh.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
    service = Service(lambda: Store.open(fresh.home), Access("t"))
    face = Oci(Counting(service, fill=False), "t")

    def status(path: str) -> int:
        request = FaceRequest("GET", f"/v2/volume/{MODEL}/{path}", {}, {}, trusted=True)
        return asyncio.run(face.answer(request)).status

    for number in range(20):
        for kind in ("blobs", "manifests"):
            assert status(f"{kind}/sha256:{number:064}") == 404
    assert searches == [MODEL]
    with fresh.store() as store:
        store.fetch(f"{MODEL}@1.1.0")
    with serving(fresh.home, "--oci") as other:
        answer = other.client.get(f"/v2/volume/{MODEL}/manifests/1.1.0")
        new = answer.headers["docker-content-digest"]
    assert status(f"manifests/{new}") == 200
    assert status(f"blobs/{answer.json()['manifests'][0]['digest']}") == 200
    assert status(f"blobs/sha256:{'f' * 64}") == 404
    assert status(f"blobs/sha256:{'e' * 64}") == 404
    assert len(searches) == 3


def test_the_digests_that_are_remembered_are_bounded() -> None:
    from yarnstore.web.faces.digests import Digests, Named

    files = VersionFiles(MODEL, "1.0.0", "default", "sha256:0", (), stored=True)
    known, here = Digests(limit=3), (True, MODEL)
    known.note_searched(here, "now")
    for number in range(3):
        known.add(here, str(number), Named(files, bytes([number])))
    assert known.get(here, "0") == Named(files, b"\0")
    assert known.is_searched(here, "now")
    assert not known.is_searched(here, "later")
    known.add(here, "3", Named(files, b"\3"))
    assert [known.get(here, str(number)) is not None for number in range(4)] == [True, False, True, True]
    assert not known.is_searched(here, "now")  # what it forgot exists


def test_the_files_of_a_volume_share_a_layer_unless_they_are_large() -> None:
    from yarnstore.web.faces.volumes import archives  # needs the extra

    files = [VersionFile(f"{n:03}.bin", 2 * MIB + n, "0" * 64) for n in range(70)]
    small = [VersionFile("a", 0, "0" * 64), VersionFile("é" * 120, 9 * 2**30, "0" * 64, executable=True)]
    groups = archives([*files, *small])
    names = [[part.path for part in group if not isinstance(part, bytes)] for group in groups]
    assert len(groups) == 65
    assert names[0] == [file.path for file in files[:7]] + ["a"]
    assert ["é" * 120] in names
    for group in groups:
        assert sum(len(part) if isinstance(part, bytes) else part.size_bytes for part in group) % 512 == 0


def test_a_version_with_the_name_of_a_whiteout_has_no_volume(site: Site, tmp_path: Path) -> None:
    fresh = site.copy(tmp_path / "copy")
    folder = tmp_path / "odd"
    (folder / "part").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 5000)
    with fresh.store() as store:
        store.import_model(folder, "acme/odd@1.0.0")
        (folder / "part" / ".wh.weights.bin").write_bytes(b"kept")
        store.import_model(folder, "acme/odd@1.1.0")
    with serving(fresh.home, "--oci") as running:
        client = running.client
        refused = client.get("/v2/volume/acme/odd/manifests/1.1.0")
        assert refused.status_code == 404
        assert "begins with .wh." in refused.json()["errors"][0]["message"]
        index = client.get("/v2/volume/acme/odd/manifests/1.0.0").content
        by_digest = f"/v2/volume/acme/odd/manifests/sha256:{hashlib.sha256(index).hexdigest()}"
        assert client.get(by_digest).content == index
        assert client.get("/v2/acme/odd/manifests/1.1.0").status_code == 200


def _layers(client: httpx.Client, model: str, tag: str) -> list[dict[str, object]]:
    """The layers of an image with tar layers."""
    index = client.get(f"/v2/volume/{model}/manifests/{tag}").json()
    first = index["manifests"][0]["digest"]
    layers: list[dict[str, object]] = client.get(f"/v2/volume/{model}/manifests/{first}").json()["layers"]
    return layers


@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_a_version_that_was_replaced_is_not_served_under_its_former_digests(
    site: Site, tmp_path: Path, size: int
) -> None:
    fresh = site.copy(tmp_path / "copy")
    for name, content in (("before", b"a" * 2_000_000), ("after", b"b" * size)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.bin").write_bytes(content)
    spec, model = "acme/again@1.0.0", "acme/again"
    with fresh.store() as store, serving(fresh.home, "--oci") as running:
        store.import_model(tmp_path / "before", spec)
        client = running.client
        raw = client.get(f"/v2/{model}/manifests/1.0.0").json()["layers"][0]["digest"]
        blobs = [f"/v2/{model}/blobs/{raw}"]
        blobs.append(f"/v2/volume/{model}/blobs/{_layers(client, model, '1.0.0')[0]['digest']}")
        assert [client.head(blob).status_code for blob in blobs] == [200, 200]
        store.remove(spec)
        store.import_model(tmp_path / "after", spec)
        for blob in blobs:
            assert client.head(blob).status_code == 404
            assert client.get(blob, timeout=20).status_code == 404
        store.import_model(tmp_path / "before", "acme/again@2.0.0")
        for blob in blobs:
            got = client.get(blob)
            assert f"sha256:{hashlib.sha256(got.content).hexdigest()}" == blob.rpartition("/")[2]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_thousands_of_small_files_of_a_volume_do_not_look_their_version_up_each(
    site: Site, tmp_path: Path
) -> None:
    fresh = site.copy(tmp_path / "copy")
    (tmp_path / "many").mkdir()
    for number in range(1200):
        (tmp_path / "many" / f"{number}.txt").write_bytes(b"%d" % number * (number % 50))
    with fresh.store() as store:
        store.import_model(tmp_path / "many", "acme/many@1.0.0")
    with serving(fresh.home, "--oci") as running:
        began = processor_s(running)
        (layer,) = _layers(running.client, "acme/many", "1.0.0")
        data = running.client.get(f"/v2/volume/acme/many/blobs/{layer['digest']}").content
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == layer["digest"]
        assert processor_s(running) - began < 10  # each time that the version is looked up takes 10 ms


def processor_s(running: Running) -> float:
    """The processor time of a service so far."""
    with open(f"/proc/{running.process.pid}/stat") as file:
        words = file.read().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def test_a_stored_version_is_served_without_the_download_of_a_newer_one(site: Site, tmp_path: Path) -> None:
    fresh = site.copy(tmp_path / "copy")
    with fresh.store() as store:
        store.remove(MODEL, whole_model=True)
        store.fetch(f"{MODEL}@1.0.0")
    with serving(fresh.home, "--oci", "--fill") as running:
        digest = _layers(running.client, MODEL, "1.0.0")[0]["digest"]
    with serving(fresh.home, "--oci", "--fill") as running:  # which has not been asked for the manifest
        assert running.client.get(f"/v2/volume/{MODEL}/blobs/{digest}").status_code == 200
    with fresh.store() as store:
        assert [row.version for row in store.list_versions(MODEL)] == ["1.0.0"]
