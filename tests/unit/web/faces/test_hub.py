"""The Hub's API of `ystore serve --hub`, through huggingface_hub and by its bytes."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.services import Running, needs_web, serving
from tests.support.stores import MODEL, Site, make_site
from yarnstore.cli import run

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    hub = pytest.importorskip("huggingface_hub", reason="needs pip install huggingface_hub")
    from huggingface_hub import errors

pytestmark = [needs_web, pytest.mark.filterwarnings("ignore")]
HOST = "models.example.org"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """1.0.0 installed, 1.1.0 stored, 1.2.0 only in the registry; and an imported model."""
    found = make_site(tmp_path_factory.mktemp("hub"))
    with found.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
        store.fetch(f"{MODEL}@1.1.0")
        store.import_model(found.source("1.2.0"), "acme/own@0.1.0+a")
    return found


@pytest.fixture(scope="module")
def service(site: Site) -> Iterator[Running]:
    with serving(site.home, "--hub", "--allow-host", HOST) as running:
        yield running


@pytest.fixture(scope="module")
def local(service: Running) -> Iterator[httpx.Client]:
    """A program of this machine without a token."""
    with httpx.Client(base_url=service.url) as client:
        yield client


def options(service: Running, cache: Path, **more: Any) -> dict[str, Any]:
    return {"endpoint": service.url.rstrip("/"), "cache_dir": cache, "token": False, **more}


def contents(folder: str) -> dict[str, bytes]:
    root = Path(folder)
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def commit(site: Site, version: str) -> str:
    with site.store() as store:
        return store.list_files(f"{MODEL}@{version}").manifest.removeprefix("sha256:")[:40]


def test_a_snapshot_has_the_bytes_and_works_offline(service: Running, site: Site, tmp_path: Path) -> None:
    found = hub.snapshot_download(MODEL, **options(service, tmp_path))
    assert contents(found) == contents(str(site.source("1.0.0")))
    assert Path(found).name == commit(site, "1.0.0")
    blobs = {path.name for path in Path(found).parents[1].joinpath("blobs").iterdir()}
    assert blobs == set(site.contents("1.0.0").values())
    again = hub.snapshot_download(MODEL, cache_dir=tmp_path, local_files_only=True)
    assert again == found


@pytest.mark.parametrize("name", [MODEL, f"library/{MODEL}"])
@pytest.mark.parametrize("by_commit", [False, True])
def test_a_file_of_a_version(
    service: Running, site: Site, tmp_path: Path, name: str, by_commit: bool
) -> None:
    revision = commit(site, "1.1.0") if by_commit else "1.1.0"
    path = hub.hf_hub_download(name, "adapter/delta.bin", revision=revision, **options(service, tmp_path))
    assert Path(path).read_bytes() == (site.source("1.1.0") / "adapter" / "delta.bin").read_bytes()


def test_what_the_hub_says_of_a_model(service: Running, site: Site) -> None:
    api = hub.HfApi(endpoint=service.url.rstrip("/"), token=False)
    info = api.model_info(MODEL, files_metadata=True)
    assert info.sha == commit(site, "1.0.0")
    assert {file.rfilename: file.lfs.sha256 for file in info.siblings} == site.contents("1.0.0")
    rows = {row.path: type(row).__name__ for row in api.list_repo_tree(MODEL)}
    assert rows == {"adapter": "RepoFolder", "config.json": "RepoFile", "model.bin": "RepoFile"}
    assert [row.path for row in api.list_repo_tree(MODEL, "adapter")] == ["adapter/delta.bin"]
    assert [row.path for row in api.get_paths_info(MODEL, ["config.json", "no"])] == ["config.json"]
    refs = api.list_repo_refs(MODEL)
    assert {ref.name: ref.target_commit for ref in refs.tags} == {
        version: commit(site, version) for version in ("1.0.0", "1.1.0")
    }
    assert [model.id for model in api.list_models()] == [MODEL]
    assert api.file_exists(MODEL, "config.json")
    assert not api.file_exists(MODEL, "no.json")


@pytest.mark.parametrize("ref", ["refs/heads/main", "refs/tags/1.0.0"])
def test_a_revision_may_be_the_full_name_of_a_ref(
    service: Running, site: Site, tmp_path: Path, ref: str
) -> None:
    api = hub.HfApi(endpoint=service.url.rstrip("/"), token=False)
    assert api.model_info(MODEL, revision=ref).sha == commit(site, "1.0.0")
    assert [row.path for row in api.list_repo_tree(MODEL, "adapter", revision=ref)] == ["adapter/delta.bin"]
    path = hub.hf_hub_download(MODEL, "adapter/delta.bin", revision=ref, **options(service, tmp_path))
    assert Path(path).read_bytes() == (site.source("1.0.0") / "adapter/delta.bin").read_bytes()


def test_there_are_no_pull_requests_and_the_error_names_the_ref(service: Running) -> None:
    api = hub.HfApi(endpoint=service.url.rstrip("/"), token=False)
    assert api.list_repo_refs(MODEL, include_pull_requests=True).pull_requests == []
    with pytest.raises(errors.RevisionNotFoundError, match="refs/pr/1"):
        api.model_info(MODEL, revision="refs/pr/1")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"search": MODEL[:3].upper()}, [MODEL]),
        ({"search": "none"}, []),
        ({"author": "acme"}, []),
        ({"filter": "gguf"}, []),
    ],
)
def test_a_search_for_models(service: Running, wanted: dict[str, str], found: list[str]) -> None:
    api = hub.HfApi(endpoint=service.url.rstrip("/"), token=False)
    assert [model.id for model in api.list_models(**wanted)] == found


def test_the_token_of_the_service_is_somebody_s_and_any_other_is_nobody_s(
    service: Running, tmp_path: Path
) -> None:
    api = hub.HfApi(endpoint=service.url.rstrip("/"))
    assert api.whoami(token=service.ready["token"])["name"] == "ystore"
    with pytest.raises(errors.HfHubHTTPError, match="Invalid user token"):
        api.whoami(token="hf_" + "x" * 34)
    api.auth_check(MODEL, token=False)
    api.auth_check("acme/own", token=service.ready["token"])
    with pytest.raises(errors.RepositoryNotFoundError):
        api.auth_check("acme/own", token=False)
    # `hf auth login`, as people do it first.
    env = {**os.environ, "HF_ENDPOINT": service.url.rstrip("/"), "HF_HOME": str(tmp_path)}
    login = ("auth", "login", "--token", service.ready["token"])
    command = [sys.executable, "-m", "huggingface_hub.cli.hf", *login]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("write", ["upload", "tag", "create", "delete"])
def test_writes_are_refused_as_such(service: Running, write: str) -> None:
    api = hub.HfApi(endpoint=service.url.rstrip("/"), token=service.ready["token"])
    calls = {
        "upload": lambda: api.upload_file(path_or_fileobj=b"x", path_in_repo="x.md", repo_id=MODEL),
        "tag": lambda: api.create_tag(MODEL, tag="x"),
        "create": lambda: api.create_repo("acme/new"),
        "delete": lambda: api.delete_repo(MODEL),
    }
    with pytest.raises(errors.HfHubHTTPError, match="read-only") as told:
        calls[write]()
    assert not isinstance(told.value, errors.RepositoryNotFoundError)


def test_what_is_not_known_of_a_model_is_no_missing_model(service: Running) -> None:
    api = hub.HfApi(endpoint=service.url.rstrip("/"), token=False)
    with pytest.raises(errors.HfHubHTTPError, match="no such information") as told:
        list(api.list_repo_likers(f"library/{MODEL}"))
    assert not isinstance(told.value, errors.RepositoryNotFoundError)
    with pytest.raises(errors.RepositoryNotFoundError, match="models only"):
        hub.snapshot_download(MODEL, repo_type="dataset", endpoint=service.url.rstrip("/"), token=False)


def test_the_commits_of_a_revision_are_its_versions_and_older_ones(service: Running, site: Site) -> None:
    api = hub.HfApi(endpoint=service.url.rstrip("/"), token=False)
    both = api.list_repo_commits(MODEL, revision="1.1.0")
    assert [(item.commit_id, item.title) for item in both] == [
        (commit(site, version), version) for version in ("1.1.0", "1.0.0")
    ]
    with site.store() as store:
        said = store.show(f"{MODEL}@1.1.0")
    assert both[0].message == (said.changelog or "")
    assert both[0].created_at == datetime.fromisoformat(said.release_date or "")
    for revision in (None, "main", commit(site, "1.0.0"), commit(site, "1.0.0")[:9]):
        assert [item.title for item in api.list_repo_commits(MODEL, revision=revision)] == ["1.0.0"]
    with pytest.raises(errors.RevisionNotFoundError):
        api.list_repo_commits(MODEL, revision="9.9.9")
    with pytest.raises(errors.RepositoryNotFoundError):
        api.list_repo_commits("nobody/nothing")
    assert service.client.get(f"/api/models/{MODEL}/commits/1.1.0").headers["x-total-count"] == "2"


def test_a_commit_may_be_cut_to_seven_digits(service: Running, site: Site, tmp_path: Path) -> None:
    api = hub.HfApi(endpoint=service.url.rstrip("/"), token=False)
    whole = commit(site, "1.1.0")
    for digits in (7, 12, 39):
        assert api.model_info(MODEL, revision=whole[:digits]).sha == whole
    path = hub.hf_hub_download(MODEL, "config.json", revision=whole[:7], **options(service, tmp_path))
    assert Path(path).read_bytes() == (site.source("1.1.0") / "config.json").read_bytes()
    other = "0" if whole[6] != "0" else "1"
    for wrong in (whole[:6], whole[:6] + other, whole[:38] + "zz"):
        with pytest.raises(errors.RevisionNotFoundError):
            api.model_info(MODEL, revision=wrong)


def test_the_hub_s_file_system(service: Running, site: Site, tmp_path: Path) -> None:
    files = hub.HfFileSystem(endpoint=service.url.rstrip("/"), token=False, skip_instance_cache=True)
    root = f"library/{MODEL}@1.1.0"  # its names have a `/`
    assert files.ls(f"{root}/adapter", detail=False) == [f"{root}/adapter/delta.bin"]
    model = (site.source("1.1.0") / "model.bin").read_bytes()
    with files.open(f"{root}/model.bin") as file:
        file.seek(len(model) - 1000)
        assert file.read() == model[-1000:]
    files.get(f"{root}/", str(tmp_path), recursive=True)
    assert contents(str(tmp_path)) == contents(str(site.source("1.1.0")))


def test_errors_are_those_of_the_hub(service: Running, tmp_path: Path) -> None:
    given = options(service, tmp_path)
    with pytest.raises(errors.RepositoryNotFoundError):
        hub.hf_hub_download("nobody/nothing", "config.json", **given)
    with pytest.raises(errors.RevisionNotFoundError):
        hub.hf_hub_download(MODEL, "config.json", revision="1.2.0", **given)
    with pytest.raises(errors.EntryNotFoundError):
        hub.hf_hub_download(MODEL, "no.json", **given)
    api = hub.HfApi(endpoint=service.url.rstrip("/"), token=False)
    with pytest.raises(errors.RepositoryNotFoundError):
        api.model_info("nobody/nothing")
    with pytest.raises(errors.RevisionNotFoundError):
        api.model_info(MODEL, revision="1.2.0")
    assert not api.repo_exists("nobody/nothing")


def test_an_imported_model_needs_the_token(service: Running, site: Site, tmp_path: Path) -> None:
    given = options(service, tmp_path)
    with pytest.raises(errors.RepositoryNotFoundError):
        hub.snapshot_download("acme/own", **given)
    with pytest.raises(errors.RepositoryNotFoundError):  # the user's token of the real Hub
        hub.snapshot_download("acme/own", **{**given, "token": "hf_of_the_real_hub"})
    found = hub.snapshot_download(
        "acme/own", revision="0.1.0+a", **{**given, "token": service.ready["token"]}
    )
    assert contents(found) == contents(str(site.source("1.2.0")))


def test_ranges(local: httpx.Client, site: Site) -> None:
    path = f"/{MODEL}/resolve/main/model.bin"
    data = (site.source("1.0.0") / "model.bin").read_bytes()
    whole = local.get(path)
    assert (whole.content, whole.headers["accept-ranges"]) == (data, "bytes")
    tag = whole.headers["etag"]
    for asked, start, end in (("5-9", 5, 10), ("699000-", 699_000, 700_000), ("-12", 699_988, 700_000)):
        part = local.get(path, headers={"Range": f"bytes={asked}", "If-Range": tag})
        assert (part.status_code, part.content) == (206, data[start:end])
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/700000"
    beyond = local.get(path, headers={"Range": "bytes=700000-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */700000")
    other = local.get(path, headers={"Range": "bytes=5-9", "If-Range": '"other"'})
    assert (other.status_code, len(other.content)) == (200, 700_000)
    assert local.get(path, headers={"If-None-Match": tag}).status_code == 304
    for odd in (f"{'9' * 5000}-", f"-{'9' * 5000}", "9-5", "x-", "-", "1-2,4-5"):
        assert len(local.get(path, headers={"Range": f"bytes={odd}"}).content) == 700_000


def test_a_head_has_the_headers_of_the_file(local: httpx.Client, site: Site) -> None:
    head = local.head(f"/{MODEL}/resolve/1.1.0/model.bin")
    assert head.headers["etag"] == f'"{site.contents("1.1.0")["model.bin"]}"'
    assert head.headers["x-repo-commit"] == commit(site, "1.1.0")
    assert (head.headers["content-length"], head.content) == ("700000", b"")


@pytest.mark.parametrize(
    "header",
    [
        {"Host": HOST},
        {"X-Forwarded-For": "192.0.2.7"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": HOST, "Authorization": "Bearer hf_of_the_real_hub"},
    ],
)
def test_others_need_the_token(local: httpx.Client, service: Running, header: dict[str, str]) -> None:
    path = f"/{MODEL}/resolve/main/config.json"
    assert local.get(path, headers=header).status_code == 401
    trusted = {**header, "Authorization": f"Bearer {service.ready['token']}"}
    assert local.get(path, headers=trusted).status_code == 200


def test_nothing_else_is_open_without_a_token(local: httpx.Client) -> None:
    assert local.get("/api/v1/models").status_code == 401
    assert local.get("/static/resolve/x/y").status_code == 401
    assert local.put(f"/{MODEL}/resolve/main/config.json").status_code == 405
    assert local.get("/api/datasets/x").status_code == 404
    assert local.get(f"/{MODEL}/resolve/main/..%2f..%2fformat").status_code == 404


def test_a_miss_is_filled_and_nothing_is_installed(site: Site, tmp_path: Path) -> None:
    own = site.copy(tmp_path)
    with serving(own.home, "--hub", "--fill") as service:
        given = options(service, tmp_path / "cache")
        head = httpx.head(f"{service.url}{MODEL}/resolve/1.2.0/model.bin")
        assert head.headers["etag"] == f'"{own.contents("1.2.0")["model.bin"]}"'
        with own.store() as store:
            assert {row.version for row in store.list_versions(MODEL)} == {"1.0.0", "1.1.0"}
        found = hub.snapshot_download(MODEL, revision="1.2.0", **given)
        assert contents(found) == contents(str(own.source("1.2.0")))
        with own.store() as store:
            assert {row.version for row in store.list_versions(MODEL)} == {"1.0.0", "1.1.0", "1.2.0"}
            assert [row.version for row in store.list_installed_models()] == ["1.0.0"]
        with pytest.raises(errors.RepositoryNotFoundError):
            hub.hf_hub_download("nobody/nothing", "config.json", **given)


def test_a_long_download_goes_on_and_says_when_to_come_again(tmp_path: Path) -> None:
    own = make_site(tmp_path, versions=("1.2.0",))
    with serving(own.home, "--hub", "--fill", "--limit-rate", "10k") as service:
        path = f"{service.url}{MODEL}/resolve/1.2.0/model.bin"
        answer = httpx.get(path, timeout=60)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 2
        (job,) = service.get("/jobs").json()
        assert (job["kind"], job["model"], job["state"]) == ("fetch", MODEL, "running")


def test_clients_that_ask_at_once_wait_for_one_download(tmp_path: Path) -> None:
    own = make_site(tmp_path, versions=("1.2.0",))
    options = ("--hub", "--fill", "--limit-rate", "250k")  # so that all have come before it ends
    with serving(own.home, *options) as service, ThreadPoolExecutor(8) as threads:
        path = f"/{MODEL}/resolve/1.2.0/model.bin"
        asked = [threads.submit(service.client.get, path) for _ in range(8)]
        assert {each.result().status_code for each in asked} == {200}
        assert len(service.get("/jobs").json()) == 1


def test_a_failed_download_is_an_error(tmp_path: Path) -> None:
    own = make_site(tmp_path, versions=("1.2.0",))
    for pack in (own.registry / "packs").glob("*.pack"):
        pack.unlink()
    with serving(own.home, "--hub", "--fill") as service:
        answer = httpx.get(f"{service.url}{MODEL}/resolve/1.2.0/model.bin", timeout=60)
        assert answer.status_code == 502
        assert answer.json()["error"]


def test_a_read_only_service_serves_and_does_not_fill(site: Site, tmp_path: Path) -> None:
    with serving(site.home, "--hub", "--read-only") as service:
        found = hub.snapshot_download(MODEL, **options(service, tmp_path))
        assert contents(found) == contents(str(site.source("1.0.0")))
    assert run(["serve", "--home", str(site.home), "--hub", "--fill", "--read-only"]) == 2
    assert run(["serve", "--home", str(site.home), "--fill"]) == 2


def test_without_hub_its_paths_are_closed(tmp_path: Path) -> None:
    with serving(tmp_path / "home") as service:
        assert httpx.get(f"{service.url}{MODEL}/resolve/main/x").status_code == 401
        assert service.client.get(f"/{MODEL}/resolve/main/x").status_code == 404


def test_a_registry_with_credentials_is_not_public(site: Site) -> None:
    secret = {**os.environ, "YSTORE_TOKEN_MADE": "secret"}
    with serving(site.home, "--hub", "--read-only", env=secret) as service:
        path = f"{service.url}{MODEL}/resolve/main/config.json"
        assert httpx.get(path).status_code == 401
        given = {"Authorization": f"Bearer {service.ready['token']}"}
        assert httpx.get(path, headers=given).status_code == 200
