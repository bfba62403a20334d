"""What of a folder is published and imported: links, leavings, registries and stores inside of it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.models import REPO
from tests.support.stores import quiet_env
from yarnstore import Store
from yarnstore.core.ignore import LEAVINGS, IgnoreRules
from yarnstore.errors import ConflictError, StorageError, UsageError
from yarnstore.ops.publishing.publish import PublishResult
from yarnstore.store.source_files import list_sources

Publish = Callable[..., PublishResult]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "w.bin").write_bytes(b"w" * 5000)
    return folder


@pytest.fixture
def publish(source: Path, tmp_path: Path) -> Publish:
    def run(spec: str = "m@1.0.0", **options: object) -> PublishResult:
        return Store.publish(source, spec, registry=tmp_path / "reg", **options)  # type: ignore[arg-type]

    return run


def paths(source: Path, **options: object) -> list[str]:
    return [item.path for item in list_sources(source, **options).files]  # type: ignore[arg-type]


# --- links -------------------------------------------------------------------------------------


def test_links_inside_of_the_folder_are_followed(source: Path) -> None:
    (source / "sub").mkdir()
    (source / "sub" / "alias.bin").symlink_to("../w.bin")
    (source / "whole.bin").symlink_to(source / "w.bin")
    assert paths(source) == ["sub/alias.bin", "w.bin", "whole.bin"]


@pytest.mark.parametrize("publishing", [True, False])
def test_links_to_folders_inside_of_the_folder_are_followed(
    source: Path, tmp_path: Path, publishing: bool
) -> None:
    (source / "real" / "deep").mkdir(parents=True)
    (source / "real" / "deep" / "a").write_bytes(b"a")
    (source / "real" / "b").symlink_to("deep/a")
    (source / "real" / "up").symlink_to("../other")
    (source / "other" / "empty").mkdir(parents=True)
    (source / "other" / ".git").mkdir()
    (source / "alias").symlink_to("real")
    (source / "absolute").symlink_to(source / "alias" / "deep")
    with Store.open(tmp_path / "home") as store:
        if publishing:
            store.publish(source, "m@1.0.0", registry=tmp_path / "reg")
            store.add_registry("r", tmp_path / "reg")
            store.checkout("m@1.0.0")
        else:
            assert "alias/up/.git/" in store.import_model(source, "m@1.0.0").ignored
        store.export("m@1.0.0", tmp_path / "out")
    out = tmp_path / "out"
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert found == ["absolute/a", "alias/b", "alias/deep/a", "real/b", "real/deep/a", "w.bin"]
    assert (out / "alias" / "deep" / "a").read_bytes() == b"a"
    assert all((out / path / "empty").is_dir() for path in ("other", "real/up", "alias/up"))
    assert not any(path.is_symlink() for path in out.rglob("*"))


def test_loops_of_links_to_folders_are_refused_and_named(source: Path) -> None:
    (source / "a").mkdir()
    (source / "b").mkdir()
    (source / "self").symlink_to(".")
    (source / "a" / "up").symlink_to("..")
    (source / "a" / "across").symlink_to("../b")
    (source / "b" / "back").symlink_to("../a")
    with pytest.raises(UsageError) as caught:
        list_sources(source)
    named = {str(text).partition(" ")[0] for text in caught.value.fields["links"]}  # type: ignore[attr-defined]
    assert {"self", "a/up", "a/across/back", "b/back/across"} <= named
    (source / ".ystoreignore").write_text("self\nup\nback\n")
    assert paths(source) == ["w.bin"]


def test_folders_that_links_repeat_without_end_are_refused(source: Path) -> None:
    for n in range(20):
        (source / f"d{n}").mkdir()
        for name in ("x", "y"):
            (source / f"d{n}" / name).symlink_to(f"../d{n + 1}")
    (source / "d20").mkdir()
    with pytest.raises(UsageError, match="more than 1000 folders through links"):
        list_sources(source)


def test_the_source_itself_may_be_a_link(source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    (source / "alias.bin").symlink_to(source / "w.bin")
    assert paths(tmp_path / "link") == ["alias.bin", "w.bin"]
    (tmp_path / "file.bin").symlink_to(source / "w.bin")
    assert paths(tmp_path / "file.bin") == ["file.bin"]


def test_links_out_of_the_folder_are_refused_and_all_are_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("PRIVATE")
    (source / "absolute").symlink_to(tmp_path / "secret" / "key")
    (source / "relative").symlink_to("../secret/key")
    (source / "step").symlink_to("absolute")
    (source / "folder").symlink_to("../secret")
    (source / "gone").symlink_to("nowhere")
    (source / "loop").symlink_to("loop")
    with pytest.raises(UsageError) as caught:
        list_sources(source)
    named = " ".join(caught.value.fields["links"])  # type: ignore[arg-type]
    assert all(name in named for name in ("absolute", "relative", "step", "folder", "gone", "loop"))
    assert "and 1 more" in caught.value.message


def test_a_cache_of_hugging_face_is_followed_to_its_blobs_and_no_further(tmp_path: Path) -> None:
    model = tmp_path / "hub" / "models--org--name"
    snapshot = model / "snapshots" / "0123abc"
    (snapshot / "onnx").mkdir(parents=True)
    (model / "blobs").mkdir()
    (model / "blobs" / "e7a9").write_bytes(b"weights")
    (snapshot / "w.bin").symlink_to("../../blobs/e7a9")
    (snapshot / "onnx" / "w.bin").symlink_to("../../../blobs/e7a9")
    assert paths(snapshot) == ["onnx/w.bin", "w.bin"]
    (model / "refs").write_text("secret")
    (snapshot / "out").symlink_to("../../refs")
    with pytest.raises(UsageError, match="out →"):
        list_sources(snapshot)
    (snapshot / "out").unlink()
    (model / "blobs").rename(tmp_path / "elsewhere")
    (model / "blobs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="outside the folder"):
        list_sources(snapshot)


def test_what_is_no_file_is_refused_and_never_waited_for(source: Path, tmp_path: Path) -> None:
    os.mkfifo(source / "pipe")
    with pytest.raises(UsageError, match="pipe"):
        list_sources(source)
    with pytest.raises(UsageError, match="is not a file"):
        list_sources(source / "pipe")
    (source / ".ystoreignore").write_text("pipe\n")
    assert paths(source) == ["w.bin"]
    os.mkfifo(tmp_path / "format")
    (source / ".ystoreignore").unlink()
    os.replace(tmp_path / "format", source / "pipe")
    (source / "pipe").unlink()
    (source / "folder").mkdir()
    os.mkfifo(source / "folder" / "format")  # a store's folder has a file of this name
    done = threading.Event()

    def look() -> None:
        with pytest.raises(UsageError, match="folder/format"):
            list_sources(source)
        done.set()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    assert done.wait(20)


# --- output inside of the input ----------------------------------------------------------------


@pytest.mark.parametrize("linked", [False, True])
def test_a_registry_inside_of_the_source_is_left_out(source: Path, tmp_path: Path, linked: bool) -> None:
    registry = source / "sub" / "reg"
    registry.parent.mkdir()
    if linked:
        (tmp_path / "out").mkdir()
        registry.symlink_to(tmp_path / "out")
    Store.publish(source, "m@1.0.0", registry=registry)
    (source / "w.bin").write_bytes(b"2")
    done = Store.publish(source, "m@1.1.0", registry=registry, all_files=True)
    assert done.size_bytes == 1
    assert done.ignored == ["sub/reg/"]
    assert not Store.publish(source, "m@1.1.0", registry=registry).changed


def test_a_registry_or_its_packs_are_not_published_into_themselves(publish: Publish, tmp_path: Path) -> None:
    publish()
    registry = tmp_path / "reg"
    (tmp_path / "alias").symlink_to(registry)
    (pack,) = (registry / "packs").glob("*.pack")
    for source in (registry, tmp_path / "alias", registry / "packs", pack):
        with pytest.raises(UsageError, match="into it"):
            Store.publish(source, "n@1.0.0", registry=registry)
    (registry / "work").mkdir()
    (registry / "work" / "w.bin").write_bytes(b"3")
    assert Store.publish(registry / "work", "n@1.0.0", registry=registry).changed


def test_stores_are_neither_imported_nor_published_nor_published_into(source: Path, tmp_path: Path) -> None:
    with Store.open(source / "home") as store:
        store.import_model(source, "m@1.0.0")
        again = store.import_model(source, "m@1.0.0")
        assert again.ignored == ["home/"]
        assert again.size_bytes == 5000
        with pytest.raises(UsageError, match="is a store"):
            store.import_model(source / "home", "n@1.0.0")
        with pytest.raises(UsageError, match="is a store"):
            store.publish(source, "n@1.0.0", registry=source / "home")
        store.checkout("m@1.0.0")
        view = source / "home" / "models" / "m"
        assert store.import_model(view, "n@1.0.0").size_bytes == 5000
        for inside in ("new", "files/new", "views"):
            with pytest.raises(UsageError, match="in the store"):
                store.export("m@1.0.0", source / "home" / inside)


# --- leavings ----------------------------------------------------------------------------------

_LEFT = (
    *(".git/HEAD", ".cache/huggingface/download/w.bin.metadata", "sub/.cache/huggingface/x", ".DS_Store"),
    *("sub/__pycache__/a.pyc", "Thumbs.db", "sub/THUMBS.DB", "._w.bin", "w.bin.part", "a.incomplete"),
    *(".w.bin.swp", "notes.txt~", ".svn/entries", ".hg/store", ".ipynb_checkpoints/x.ipynb", ".#lock"),
    *(".ystoreignore", "sub/.ystoreignore", "sub/.git"),
)
_KEPT = (".gitattributes", ".gitignore", ".cache/other/x", "sub/w.part.bin", "git/HEAD", "parts/a.bin")


def fill(source: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"")


def test_leavings_are_left_out_unless_asked_for(source: Path) -> None:
    fill(source, (*_LEFT, *_KEPT))
    assert set(paths(source)) == {"w.bin", *_KEPT}
    everything = set(paths(source, all_files=True))
    assert everything == {"w.bin", *_KEPT, *_LEFT} - {".ystoreignore", "sub/.ystoreignore"}


def test_what_was_left_out_is_said_and_changes_no_version(source: Path, publish: Publish) -> None:
    fill(source, (".git/HEAD", ".cache/huggingface/x"))
    notes: list[str] = []
    first = publish(progress=lambda event: notes.append(event.text) if event.phase == "note" else None)
    assert first.ignored == [".cache/huggingface/", ".git/"]
    assert ".git/" in notes[0]
    (source / ".git" / "HEAD").write_text("another")
    assert not publish().changed
    with pytest.raises(ConflictError):
        publish(all_files=True)


def test_a_published_version_stays_where_only_leavings_bits_and_empty_folders_differ(
    source: Path, publish: Publish, tmp_path: Path
) -> None:
    fill(source, ("a.part", ".git/HEAD"))
    first = publish(all_files=True)
    before = (tmp_path / "reg" / "registry.json").read_bytes()
    (source / "w.bin").chmod(0o755)
    (source / "empty").mkdir()
    again = publish()
    assert again.manifest == first.manifest
    assert not again.changed
    assert again.kept == [
        ".git/HEAD is now excluded",
        "a.part is now excluded",
        "w.bin is now executable",
        "the empty folder empty is new",
    ]
    assert (tmp_path / "reg" / "registry.json").read_bytes() == before
    with Store.open(tmp_path / "home") as store:
        one = store.import_model(source, "m@1.0.0")
        (source / "w.bin").chmod(0o644)
        two = store.import_model(source, "m@1.0.0")
        assert (two.manifest, two.kept) == (one.manifest, ["w.bin is no longer executable"])
        with pytest.raises(ConflictError):
            store.import_model(source, "m@1.0.0", all_files=True)


def test_one_named_file_is_published_whatever_it_is_called(source: Path, tmp_path: Path) -> None:
    (source / "w.part").write_bytes(b"x")
    for changed in (True, False):
        done = Store.publish(source / "w.part", "m@1.0.0", registry=tmp_path / "reg")
        assert (done.changed, done.ignored) == (changed, [])


def test_a_folder_of_leavings_alone_holds_no_files(tmp_path: Path) -> None:
    fill(tmp_path / "s", (".git/HEAD", ".DS_Store"))
    with pytest.raises(UsageError, match=r"no files except \.DS_Store, \.git/"):
        list_sources(tmp_path / "s")


@pytest.mark.parametrize(
    ("lines", "path", "left"),
    [
        ("*.log", "a.log", True),
        ("*.log", "sub/deep/a.log", True),
        ("*.log\n!keep.log", "sub/keep.log", False),
        ("!keep.log\n*.log", "keep.log", True),
        ("/a.bin", "a.bin", True),
        ("/a.bin", "sub/a.bin", False),
        ("sub/a.bin", "sub/a.bin", True),
        ("sub/a.bin", "x/sub/a.bin", False),
        ("**/sub/a.bin", "x/sub/a.bin", True),
        ("sub/**", "sub/x/y", True),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("a/**/z", "a/b/c/y", False),
        ("logs/", "logs/x", True),
        ("logs/", "sub/logs/x", True),
        ("logs/", "logs", False),
        ("# a\n\n   \n/", "a", False),
        ("\\#a", "#a", True),
        ("\\!a", "!a", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[ab].bin", "b.bin", True),
        ("[!ab].bin", "b.bin", False),
        ("*.BIN", "a.bin", False),
        ("!*.part", "a.part", False),
        ("!.git", ".git/HEAD", False),
        ("*\n!w.bin", "w.bin", False),
        ("!.ystoreignore", ".ystoreignore", True),
    ],
)
def test_patterns_of_ystoreignore(lines: str, path: str, left: bool) -> None:
    assert IgnoreRules(lines.encode()).leaves_out_file(path) is left


def test_patterns_do_not_take_long_whatever_they_are() -> None:
    stars = "a*" * 60 + "b"
    rules = IgnoreRules(f"{stars}\n{'**/' * 60}{stars}\n".encode() * 20)
    assert not rules.leaves_out_file("/".join(["a" * 250] * 4))


@pytest.mark.parametrize("data", [b"\xff\xfe", b"a\n" * 2000, b"#" * 70_000])
def test_a_ystoreignore_that_cannot_be_read_is_refused(source: Path, data: bytes) -> None:
    (source / ".ystoreignore").write_bytes(data)
    with pytest.raises(UsageError) as caught:
        list_sources(source)
    assert str(source / ".ystoreignore") in caught.value.message
    assert "UTF-8" in caught.value.hint


def test_empty_folders_belong_to_the_version(source: Path, tmp_path: Path) -> None:
    fill(source, (".cache/huggingface/x", "left/.DS_Store"))
    (source / "cache" / "logs").mkdir(parents=True)
    assert list_sources(source).empty_folders == ["cache/logs"]
    Store.publish(source, "m@1.0.0", registry=tmp_path / "reg")
    with Store.open(tmp_path / "home") as store:
        store.add_registry("r", tmp_path / "reg")
        store.checkout("m@1.0.0")
        assert (tmp_path / "home" / "models" / "m" / "cache" / "logs").is_dir()
        store.export("m@1.0.0", tmp_path / "out")
        assert (tmp_path / "out" / "cache" / "logs").is_dir()
        assert (tmp_path / "out" / "w.bin").is_file()
        assert not store.fsck().problems


def test_the_page_lists_all_leavings() -> None:
    page = (REPO / "docs" / "publishing.md").read_text()
    assert [text for text in LEAVINGS if f"`{text.removeprefix('**/')}`" not in page] == []


@pytest.mark.parametrize("place", ["new/", "deep/new/", "there", "there/"])
def test_a_destination_with_a_slash_is_a_folder(source: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "there").mkdir()
    with Store.open(tmp_path / "home") as store:
        store.import_model(source / "w.bin", "m@1.0.0")
        done = store.export("m@1.0.0", f"{tmp_path}/{place}")
        assert Path(done.path) == tmp_path / place / "w.bin"
        assert Path(done.path).read_bytes() == b"w" * 5000
        with pytest.raises(ConflictError):
            store.export("m@1.0.0", f"{tmp_path}/{place}")
        store.export("m@1.0.0", tmp_path / "plain")
        assert (tmp_path / "plain").is_file()
        with pytest.raises(ConflictError):
            store.export("m@1.0.0", f"{tmp_path}/plain/")
        with pytest.raises(ConflictError):
            store.export("m@1.0.0", f"{tmp_path}/plain/.")


@pytest.mark.parametrize("end", ["/", "//", "/."])
def test_a_source_with_a_slash_is_no_file(source: Path, tmp_path: Path, end: str) -> None:
    file, folder = f"{source}/w.bin{end}", f"{source}{end}"
    with Store.open(tmp_path / "home") as store:
        for refused in (
            lambda: store.import_model(file, "m@1.0.0"),
            lambda: Store.publish(file, "m@1.0.0", registry=tmp_path / "reg"),
            lambda: store.diff(file, folder),
            lambda: store.diff(folder, file),
            lambda: store.inspect(file),
            lambda: store.lint_registry(file),
        ):
            with pytest.raises(UsageError, match="is not a folder"):
                refused()
        assert not (tmp_path / "reg").exists()
        assert Store.publish(folder, "m@1.0.0", registry=tmp_path / "reg").changed
        assert store.import_model(folder, "m@1.0.0").size_bytes == 5000
        assert store.lint_registry(f"{tmp_path}/reg{end}").versions == 1


@pytest.mark.parametrize("name", ["new/", "new/.", "w.json/", "there", "there/"])
def test_a_file_with_a_slash_is_neither_written_nor_read(source: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "w.json").write_text("{}")
    Store.publish(source, "m@1.0.0", registry=tmp_path / "reg")
    place = f"{tmp_path}/{name}"
    with Store.open(tmp_path / "home") as store:
        store.add_registry("r", tmp_path / "reg")
        for refused in (
            lambda: store.lock("m@^1.0", file=place),
            lambda: store.fetch_locked(place),
            lambda: store.checkout_locked(place),
            lambda: store.diff(str(source), str(source), html=place),
            lambda: store.import_local_state(place),
        ):
            with pytest.raises(UsageError, match="is a folder; a file is needed"):
                refused()
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "w.json").read_text() == "{}"
    assert not any((tmp_path / "there").iterdir())


def test_folders_to_write_to_are_made_or_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with Store.open(tmp_path / "home") as store:
        store.write_timer("cron", f"{tmp_path}/new/")
        assert (tmp_path / "new").is_dir()
        with pytest.raises(StorageError, match="not a folder"):
            store.write_timer("cron", f"{tmp_path}/file/")
    assert (tmp_path / "file").read_bytes() == b""


def test_lock_writes_no_file_for_a_folder(tmp_path: Path) -> None:
    env = {**os.environ, **quiet_env(), "YSTORE_HOME": str(tmp_path / "home")}
    line = [sys.executable, "-m", "yarnstore", "lock", "m", "--file", "x/"]
    ran = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "x/ is a folder" in ran.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_an_ignore_file_that_is_no_file_is_refused_by_its_name(tmp_path: Path, kind: str) -> None:
    (tmp_path / "m.bin").write_bytes(b"m")
    place = tmp_path / ".ystoreignore"
    if kind == "folder":
        place.mkdir()
    elif kind == "link":
        place.symlink_to("nowhere")
    else:
        os.mkfifo(place)
    with pytest.raises(UsageError, match="is not a regular file"):
        list_sources(tmp_path)


# --- reading -----------------------------------------------------------------------------------

OPENINGS = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from yarnstore import Store
Store.publish(sys.argv[1], "m@1.0.0", registry=sys.argv[2])
print(sum(path.endswith("w.bin") for path in opened))
"""


def test_a_file_is_opened_once_to_look_into_it_and_once_to_store_it(source: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPENINGS, str(source), str(tmp_path / "reg")]
    ran = subprocess.run(command, env=quiet_env(), capture_output=True, text=True, timeout=60, check=True)
    assert int(ran.stdout) <= 2
