"""The examples of docs/frontends.md run: JavaScript with Node.js against a real service, JSON is parsed."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import REPO, blocks
from tests.support.services import needs_web
from tests.support.stores import MODEL, make_site
from yarnstore.web.commands import COMMANDS

PAGE = REPO / "docs" / "frontends.md"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="needs node (Debian: apt install nodejs)")
RUSTFMT = shutil.which("rustfmt")

# Tauri's `invoke` is one request here, as the Rust of the page makes it.
_TAURI = """
import { Service } from "../../../ystore.mjs";
export const service = {};
export const invoke = (name, args) => new Service(service.url, service.token).command(name, args);
"""
_ONE_SERVICE = """
import { start as first } from "./first.mjs";
let ready;
export const start = () => (ready ??= first());
"""
_WINDOWS = """
import { start } from "./start.mjs";
import { service } from "@tauri-apps/api/core";
import electron from "electron";
import * as models from "./models.mjs";
const { url, token } = await start();
Object.assign(service, { url, token });
const id = "phi-3-mini";
const found = {
  list_installed_models: (await models.listInstalledModels())[0].file_path,
  get_model_registry: Object.keys((await models.getModelRegistry()).models),
  get_model_version_history: (await models.getModelVersionHistory(id)).map((row) => row.version),
  check_model_updates: (await models.checkModelUpdates(id)).map((row) => row.latest_version),
  update_model: (await models.updateModel(id)).version,
  rollback_model: (await models.rollbackModel(id)).version,
  enable_auto_updates: (await models.enableAutoUpdates(true, undefined, "patch")).policy,
};
console.log(JSON.stringify(found));

globalThis.document = { title: "" };
await import("./main.mjs");
await electron.opened;
let jobs = 0;
window.models.onJob(() => { jobs += 1; });
await import("./page.mjs");
console.log(document.title);
const missing = await window.models.update_model({ model_id: "none-such" });
for (let n = 0; !jobs && n < 50; n += 1) {  // the first job may have ended before its events were asked for
  await window.models[n % 2 ? "update_model" : "rollback_model"]({ model_id: "phi-3-mini" });
  await new Promise((resolve) => setTimeout(resolve, 100));
}
console.log(missing.problem.code, jobs > 0);
electron.frame.url = "https://elsewhere.example/";
await window.models.list_installed_models().catch((error) => console.log(error.message));
process.exit();
"""
# What Electron does for main.mjs, preload.cjs and page.mjs, in one process.
_ELECTRON = """
const { EventEmitter } = require("node:events");
const handlers = new Map(), jobs = new EventEmitter(), frame = { url: "" };
const invoke = async (name, args) => handlers.get(name)({ senderFrame: frame }, args);
exports.frame = frame;
exports.opened = new Promise((resolve) => { exports.open = resolve; });
exports.app = { whenReady: async () => {}, on() {}, quit() {} };
exports.ipcMain = { handle: (name, work) => handlers.set(name, work) };
exports.ipcRenderer = { invoke, on: (channel, tell) => jobs.on(channel, (job) => tell({}, job)) };
exports.contextBridge = { exposeInMainWorld: (name, api) => { globalThis.window = { [name]: api }; } };
exports.BrowserWindow = class {
  constructor({ webPreferences }) {
    this.preload = webPreferences.preload;
    const send = (channel, job) => jobs.emit(channel, job);
    this.webContents = { on() {}, setWindowOpenHandler() {}, send };
  }
  isDestroyed() { return false; }
  async loadURL(url) { frame.url = url; require(this.preload); exports.open(); }
};
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of the page, beside a store with phi-3-mini 1.0.0 installed and 1.1.0 published."""
    site = make_site(tmp_path, versions=("1.0.0", "1.1.0"))
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
    for block in blocks(PAGE, "js"):
        name = re.match(r"// (\S+\.[mc]js)\b", block)
        assert name, block[:60]
        (tmp_path / name[1]).write_text(block, encoding="utf-8")
    return tmp_path


def run_node(folder: Path, script: str) -> list[str]:
    """The lines that a script prints."""
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        [str(NODE), script],
        cwd=folder,
        env={**os.environ, "PATH": tools, "YSTORE_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.splitlines()


def add_package(folder: Path, name: str, file: str, text: str) -> None:
    package = folder / "node_modules" / name
    (package / file).parent.mkdir(parents=True)
    (package / file).write_text(text)
    kind = "module" if file.endswith(".mjs") else "commonjs"
    exports = {".": f"./{file}", "./core": f"./{file}"}
    (package / "package.json").write_text(json.dumps({"name": name, "type": kind, "exports": exports}))


@needs_web
@needs_node
def test_the_javascript_runs(folder: Path) -> None:
    told = run_node(folder, "example.mjs")
    assert told[0].startswith("phi-3-mini 1.0.0 at /")
    assert told[1].startswith("1.0.0 → 1.1.0, minor")
    assert "updated to 1.1.0" in told
    assert told[-1] == "not-found [ 'phi-3-mini' ]"


@needs_web
@needs_node
def test_the_windows_of_tauri_and_electron_get_answers(folder: Path) -> None:
    add_package(folder, "@tauri-apps/api", "core.mjs", _TAURI)
    add_package(folder, "electron", "electron.cjs", _ELECTRON)
    (folder / "start.mjs").rename(folder / "first.mjs")
    (folder / "start.mjs").write_text(_ONE_SERVICE)
    (folder / "windows.mjs").write_text(_WINDOWS)
    line, *electron = run_node(folder, "windows.mjs")
    found = json.loads(line)
    assert found.keys() == set(COMMANDS)
    assert Path(found.pop("list_installed_models")).is_dir()
    assert found == {
        "get_model_registry": [MODEL],
        "get_model_version_history": ["1.1.0", "1.0.0"],
        "check_model_updates": ["1.1.0"],
        "update_model": "1.1.0",
        "rollback_model": "1.0.0",
        "enable_auto_updates": "patch",
    }
    assert electron == ["phi-3-mini 1.1.0", "not-found true", "another page asked"]


def test_the_json_is_that_of_tauri_2() -> None:
    config, capability = map(json.loads, blocks(PAGE, "json"))
    assert config["bundle"]["externalBin"] == ["binaries/ystore"]
    assert set(capability["windows"]) == {window["label"] for window in config["app"]["windows"]}
    assert not any(permission.startswith("shell:") for permission in capability["permissions"])


def test_each_of_the_seven_commands_is_in_each_frontend() -> None:
    (rust,) = blocks(PAGE, "rust")
    script = "\n".join(blocks(PAGE, "js"))
    handled = rust.partition("generate_handler![")[2].partition("]")[0]
    for name in COMMANDS:
        assert f"async fn {name}(" in rust
        assert re.search(rf"\b{name}\b", handled)
        assert f'service.command("{name}"' in " ".join(rust.split()).replace(
            "service .command", "service.command"
        )
        assert f'invoke("{name}"' in script
        assert f'call("{name}")' in script


@pytest.mark.skipif(RUSTFMT is None, reason="needs rustfmt")
def test_the_rust_can_be_parsed() -> None:
    (rust,) = blocks(PAGE, "rust")
    environment = {**os.environ, "HOME": pwd.getpwuid(os.getuid()).pw_dir}  # where rustup has its toolchains
    known = subprocess.run([str(RUSTFMT), "--version"], env=environment, capture_output=True, timeout=60)
    if known.returncode:
        pytest.skip("rustfmt has no toolchain")
    ran = subprocess.run(
        [str(RUSTFMT), "--edition", "2021", "--check"],
        env=environment,
        input=rust,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
