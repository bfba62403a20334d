"""What the service takes: memory and time while nothing is asked, and the time of answers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.servers import static_server
from tests.support.services import PATIENCE_S, Running, needs_web, serving
from tests.support.stores import MODEL, Site, make_site
from yarnstore import Store
from yarnstore.core.manifest import Manifest
from yarnstore.core.reflog import Installed
from yarnstore.store.layout import StoreLayout
from yarnstore.store.refs import Refs, VersionName

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
pytestmark = [
    needs_web,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc"),
    *([pytest.mark.deep] if DEEP else []),
]

MODELS = 1000

# The budgets are for a quiet machine (`make deep`); any other may take so many times as long.
SLACK = 1 if DEEP else 5


def cpu_ticks(service: Running) -> int:
    fields = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def resident_mib(service: Running) -> float:
    lines = Path(f"/proc/{service.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def install_many(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install one content under many names; the disk need not have them when the power fails."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    source = home.with_name("model.bin")
    source.write_bytes(b"model " * 50)
    with Store.open(home) as store:
        store.import_model(source, "m0@1.0.0")
        store.checkout("m0@1.0.0")
    layout = StoreLayout(home)
    refs = Refs(layout)
    first = layout.read_manifest(refs.installed("m0"))  # type: ignore[arg-type]
    for number in range(1, MODELS):
        manifest = Manifest.make(f"m{number}", "1.0.0", "default", list(first.files))
        layout.write_manifest(manifest)
        refs.set_version(VersionName(f"m{number}", "default", "1.0.0"), manifest.digest)
        refs.move(
            f"m{number}",
            Installed(manifest=manifest.digest, variant="default", version="1.0.0"),
            "checkout",
            time_ms=number,
        )
    monkeypatch.undo()


def best_ms(service: Running, path: str, limit_ms: float) -> float:
    """The shortest time of up to 100 requests until one is below the limit: other work only adds to it."""
    best_s = 1e9
    for _ in range(100):
        started_s = time.perf_counter()
        assert service.client.get(path).status_code == 200
        best_s = min(best_s, time.perf_counter() - started_s)
        if best_s * 1000 < limit_ms:
            break
    return best_s * 1000


def test_a_thousand_models_are_listed_in_50_ms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    install_many(home, monkeypatch)
    with serving(home) as service:
        assert len(service.get("/models").json()) == MODELS
        assert best_ms(service, "/api/v1/models", 50 * SLACK) < 50 * SLACK
        assert service.client.get("/metrics").text.count("ystore_installed_version{") == MODELS
        assert best_ms(service, "/metrics", 150 * SLACK) < 150 * SLACK, (
            "sizes and statistics are not read again"
        )
        with Store.open(home) as store:
            store.pin("m7@1.0.0")
        assert [item["model"] for item in service.get("/models").json() if item["pinned"]] == ["m7"]


def test_it_takes_little_while_nothing_is_asked(service: Running) -> None:
    for path in ("/models", "/overview", "/jobs", "/settings", f"/models/{MODEL}"):
        assert service.get(path).status_code == 200
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        before = cpu_ticks(service)
        time.sleep(1.0)
        if cpu_ticks(service) - before <= 1:  # of a hundredth of a second
            break
        assert (
            time.monotonic() < give_up_s
        )  # what it still does for the requests takes longer on a busy machine
    assert resident_mib(service) < 80


def test_it_takes_little_after_all_routes_and_jobs(tmp_path: Path) -> None:
    """With a registry on a web server, which needs more modules than one in a folder."""
    site = make_site(tmp_path, versions=("1.0.0", "1.1.0"))
    with static_server(site.registry) as url:
        with site.store() as store:
            store.checkout(f"{MODEL}@1.0.0")
            store.remove_registry("made")
            store.add_registry("made", url)
        with serving(site.home) as service:
            assert service.done(service.post(f"/models/{MODEL}/update", json={}))["version"] == "1.1.0"
            for path, operations in service.get("/openapi.json").json()["paths"].items():
                if "get" in operations and not path.endswith("/events"):
                    answer = service.client.get(path.replace("{model}", MODEL))
                    assert answer.status_code in (200, 404), path
            assert service.client.get("/metrics").status_code == 200
            versions = {"old": f"{MODEL}@1.0.0", "new": f"{MODEL}@1.1.0"}
            for path, body in (("/diff", versions), (f"/models/{MODEL}/rollback", {}), ("/fsck", {})):
                service.done(service.post(path, json=body))
            plan = service.post("/gc/plans", json={}).json()
            service.done(service.post(f"/gc/plans/{plan['id']}/apply"))
            # A moment after the job.  The budget is 80; runs of the same code differ by 2.
            service.until(lambda: resident_mib(service) < 83)


def test_a_download_takes_no_longer_than_by_the_command_line(tmp_path: Path) -> None:
    """Of several tries the best ones, since other work on this machine makes any of them slower."""
    site: Site = make_site(tmp_path, versions=("1.0.0",))
    empty = Path(shutil.copytree(site.home, tmp_path / "empty", symlinks=True))
    by_command_s = by_service_s = 1e9
    with serving(site.home) as service:
        for attempt in range(6):
            other = Path(shutil.copytree(empty, tmp_path / f"other-{attempt}", symlinks=True))
            command = [sys.executable, "-m", "yarnstore", "fetch", f"{MODEL}@1.0.0", "--home", str(other)]
            started_s = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            by_command_s = min(by_command_s, time.perf_counter() - started_s)
            started_s = time.perf_counter()
            service.done(service.post(f"/models/{MODEL}/fetch", json={"version": "1.0.0"}))
            by_service_s = min(by_service_s, time.perf_counter() - started_s)
            if by_service_s < by_command_s + 0.1 * SLACK:
                break
            service.request("DELETE", f"/models/{MODEL}")
            plan = service.post("/gc/plans", json={"keep": 0, "keep_within_s": 0, "grace_s": 0}).json()
            service.done(service.post(f"/gc/plans/{plan['id']}/apply"))
        assert by_service_s < by_command_s + 0.1 * SLACK
