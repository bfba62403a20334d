"""Files that run code when they are loaded are told by name, and refused where the policy says so."""

from __future__ import annotations

import bz2
import collections
import gzip
import io
import json
import lzma
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.samples import torch_sample
from yarnstore import Store
from yarnstore.errors import ConfigError, PolicyError
from yarnstore.progress import Progress


class Evil:
    """Would write a file if anybody loaded it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("loaded",)


NAME = f"{os.mkdir.__module__}.mkdir"
EVIL = pickle.dumps(Evil())
LONE = pickle.dumps(Evil(), 0)


def _zip(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def _torch(pickled: bytes, method: int = zipfile.ZIP_STORED, **further: bytes) -> bytes:
    return _zip({"a/data.pkl": pickled, "a/version": b"3", "a/data/0": bytes(64), **further}, method)


def _array(data: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(data, object))
    return file.getvalue()


_OLD_TORCH = b"".join(pickle.dumps(item, 2) for item in (0x1950A86A20F9469CFC6C, 1001, {"little": True}))
_KERAS = json.dumps({"config": {"layers": [{"class_name": "Lambda", "config": {}}]}}).encode()
_OTHERS = json.dumps({"module": "os", "class_name": "mkdir", "config": {}}).encode()
_AUTO = json.dumps({"auto_map": {"AutoModel": "modeling_x.Model"}}).encode()


@pytest.mark.parametrize(
    ("name", "data", "kind", "named"),
    [
        ("m.pkl", EVIL, "pickle", NAME),
        ("m.unknown", EVIL, "pickle", NAME),
        ("m.weights", LONE, "pickle", NAME),
        ("m.bin", LONE[:-1], "pickle", NAME),  # no STOP, which comes too late
        *((f"m{n}.pickle", pickle.dumps(Evil(), n), "pickle", NAME) for n in range(6)),
        ("m.joblib", gzip.compress(EVIL, mtime=0), "pickle", NAME),
        ("m.joblib", zlib.compress(EVIL), "pickle", NAME),
        ("m.joblib", bz2.compress(EVIL), "pickle", NAME),
        ("m.joblib", lzma.compress(EVIL), "pickle", NAME),
        ("m.pt", _torch(EVIL), "pickle", NAME),
        ("m.bin", _torch(EVIL, zipfile.ZIP_DEFLATED), "pickle", NAME),
        ("m.pth", _torch(pickle.dumps(1), **{"a/constants.pkl": EVIL}), "pickle", NAME),
        ("m.pt", b"junk" + _torch(EVIL), "pickle", None),
        ("m.ckpt", _OLD_TORCH + EVIL + pickle.dumps(["0"], 2) + bytes(range(256)), "pickle", NAME),
        ("m.npy", _array([Evil()]), "pickle", NAME),
        ("m.npz", _zip({"x.npy": _array([Evil()])}), "pickle", NAME),
        ("m.npz", _zip({"x": _array([Evil()])}, zipfile.ZIP_DEFLATED), "pickle", NAME),
        ("m.zip", _zip({"x.pkl": EVIL}, zipfile.ZIP_BZIP2), "pickle", None),
        ("m.pt", _torch(pickle.dumps(1), **{"a/code/x.py": b"def f(): pass"}), "code", None),
        ("m.keras", _zip({"config.json": _KERAS}), "code", None),
        ("m.keras", _zip({"config.json": _OTHERS}), "code", "os"),
        ("m.h5", b"\x89HDF\r\n\x1a\n" + bytes(2_000_000) + _KERAS, "code", None),
        ("config.json", _AUTO, "code", "modeling_x.Model"),
        ("sub/tokenizer_config.json", _AUTO, "code", "modeling_x.Model"),
        ("config.json", _AUTO.replace(b"mod", b"o/r--mod"), "code", "o?r--modeling_x.Model"),
        # What Python's json reads, and JSON does not allow.
        ("config.json", _AUTO[:-1] + b', "eps": NaN, "max": -Infinity}', "code", "modeling_x.Model"),
        ("config.json", _AUTO[:-1] + b', "x": "\\ud800"}', "code", "modeling_x.Model"),
        ("config.json", b"\xef\xbb\xbf" + _AUTO, "code", "modeling_x.Model"),
        ("config.json", _AUTO.decode().encode("utf-16"), "code", "modeling_x.Model"),
        ("m.keras", _zip({"config.json": _KERAS[:-1] + b', "x": NaN}'}), "code", None),
        ("config.json", b'{"trust_remote_code": true}', "code", "trust_remote_code"),
        ("model_index.json", b'{"_class_name": ["pipeline_x", "X"]}', "code", "pipeline_x.X"),
        ("modules.json", b'[{"type": "custom.Pooling"}]', "code", "custom.Pooling"),
    ],
)
def test_what_runs_code_is_told(tmp_path: Path, name: str, data: bytes, kind: str, named: str | None) -> None:
    place = tmp_path / "s" / name
    place.parent.mkdir(parents=True)
    place.write_bytes(data)
    (tmp_path / "s" / "modeling_x.py").write_text("x = 1\n")
    said: list[str] = []
    done = Store.publish(
        tmp_path / "s", "m@1.0.0", registry=tmp_path / "reg", changelog="x", progress=_telling(said)
    )
    assert [(item.path, item.kind) for item in done.code if item.suspect] == [(name, kind)]
    assert done.code[0].names == ((named,) if named else ())
    told = [text for text in said if text.startswith(f"warning: {name} ")]
    assert len(told) == 1
    assert named is None or named in told[0]
    store = Store.open(tmp_path / "home")
    for decode in (False, True):
        found = store.lint_registry(tmp_path / "reg", deep=True, decode=decode).findings
        assert [item.severity for item in found if f"{name} " in item.message] == ["warning"], found
    inspected = store.inspect(str(tmp_path / "s"))
    assert [item for file in inspected.files for item in file.code] == done.code
    assert not Path("loaded").exists()


def _telling(said: list[str]) -> Callable[[Progress], None]:
    return lambda event: said.append(event.text) if event.phase == "note" else None


def test_plain_data_and_other_files_are_not_warned_of(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    ordered = pickle.dumps(collections.OrderedDict(a=[1, "x"]), 2)
    text = "is\nit\nin\ncolumn\nrow\n(a) c. Rob.\n" * 500
    for name, data in {
        "model.pt": torch_sample(),
        "plain.pkl": ordered,
        "old.pth": _OLD_TORCH + ordered + pickle.dumps(["0"], 2) + np.random.default_rng(1).bytes(9999),
        "vocab.txt": text.encode(),
        "words.bin": text.encode(),
        "weights.bin": np.random.default_rng(2).bytes(100_000),
        "zeros.bin": bytes(100_000),
        "array.npy": _plain_array(),
        "data.zip": _zip({"a.txt": text.encode(), "d/": b"", "b.py": b"import os"}),
        "config.json": b'{"architectures": ["X"]}',
        "lonely/config.json": _AUTO,
        "broken.json": b"[" * 100_000,
        "m.h5": b"\x89HDF\r\n\x1a\n" + b'"class_name": "Dense"' * 1000,
        "m.keras": _zip({"config.json": _KERAS.replace(b"Lambda", b"Dense")}),
        "empty.pkl": b"",
    }.items():
        (tmp_path / "s" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "s" / name).write_bytes(data)
    said: list[str] = []
    done = Store.publish(tmp_path / "s", "m@1.0.0", registry=tmp_path / "reg", progress=_telling(said))
    assert {item.path for item in done.code} == {"model.pt", "plain.pkl", "old.pth"}
    assert not any(item.suspect for item in done.code), done.code
    assert not any("warning" in text for text in said)


def _plain_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(10))
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04" + b"(" * 6_000_000,
        gzip.compress(b"\x80\x04\x8d" + (1 << 40).to_bytes(8, "little") + bytes(400_000_000), 1),
        gzip.compress(EVIL, mtime=0)[:-20],
        _torch(EVIL)[:-30],
        _torch(b"\x80\x02cposix\nmkdir\n" + b"(" * 6_000_000, zipfile.ZIP_DEFLATED),
    ],
    ids=["opcodes", "bomb", "cut gzip", "cut zip", "packed opcodes"],
)
def test_what_cannot_be_read_to_its_end_is_told_and_published(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.pkl").write_bytes(data)
    done = Store.publish(tmp_path / "m.pkl", "m@1.0.0", registry=tmp_path / "reg")
    assert done.changed
    assert [item.suspect for item in done.code] == [True]
    assert done.code[0].why or done.code[0].names


# --- the policy ---------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that knows m 1.0.0, plain, and 1.1.0, with a pickle and with TorchScript."""
    for version, data in (("1.0.0", b"weights"), ("1.1.0", _torch(EVIL, **{"a/code/x.py": b""}))):
        (tmp_path / version).mkdir()
        (tmp_path / version / "m.bin").write_bytes(data)
        Store.publish(tmp_path / version, f"m@{version}", registry=tmp_path / "reg", changelog=version)
    found = Store.open(tmp_path / "home")
    found.add_registry("r", str(tmp_path / "reg"))
    return found


def _policy(store: Store, text: str) -> Store:
    with (store.home / "config.toml").open("a") as file:
        file.write(f"\n[policy]\n{text}\n")
    return Store.open(store.home)


@pytest.mark.parametrize("setting", ["allow_pickle", "allow_code"])
def test_a_policy_refuses_every_way_to_install_or_open(store: Store, tmp_path: Path, setting: str) -> None:
    store.checkout("m@1.1.0")
    store.checkout("m@1.0.0")
    strict = _policy(store, f"{setting} = false")
    ways: list[Callable[[], object]] = [
        lambda: strict.checkout("m@1.1.0"),
        lambda: strict.update_model("m"),
        lambda: strict.rollback_model("m", "1.1.0"),
        lambda: strict.path("m@1.1.0"),
        lambda: strict.import_model(tmp_path / "1.1.0", "other@1.0.0"),
    ]
    for way in ways:
        with pytest.raises(PolicyError) as caught:
            way()
        assert caught.value.code == "policy"
        assert caught.value.fields["setting"] == setting
        assert caught.value.fields["paths"] == ["m.bin"]
    assert [item.version for item in strict.list_installed_models()] == ["1.0.0"]
    assert strict.path("m")
    assert [item.model for item in strict.list_versions()] == ["m", "m"]
    assert strict.checkout("m@1.0.0").version == "1.0.0"


def test_a_policy_refuses_what_is_installed_already(store: Store) -> None:
    store.checkout("m@1.1.0")
    strict = _policy(store, "allow_pickle = false")
    with pytest.raises(PolicyError):
        strict.path("m")
    assert strict.fetch("m@1.1.0").version == "1.1.0"  # the store may hold it
    assert strict.checkout("m@1.0.0").version == "1.0.0"


def test_a_policy_refuses_pickles_of_plain_data_too(store: Store, tmp_path: Path) -> None:
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"a": 1}))
    assert _policy(store, "allow_code = false").import_model(tmp_path / "plain.pkl", "p@1.0.0")
    (store.home / "config.toml").write_text("[policy]\nallow_pickle = false\n")
    with pytest.raises(PolicyError):
        Store.open(store.home).import_model(tmp_path / "plain.pkl", "q@1.0.0")


@pytest.mark.parametrize("text", ["allow_pickles = false", "allow_pickle = 0", 'allow_code = "no"'])
def test_a_policy_that_cannot_be_read_is_an_error(store: Store, text: str) -> None:
    with pytest.raises(ConfigError, match=r"policy\.allow"):
        _policy(store, text)


def test_checkout_tells_once_of_each_version(store: Store) -> None:
    said: list[str] = []
    store.checkout("m@1.1.0", progress=_telling(said))
    assert len([text for text in said if NAME in text]) == 1
    said.clear()
    store.checkout("m@1.1.0", progress=_telling(said))
    assert not any("warning" in text for text in said)
    store.checkout("m@1.0.0")
    store.checkout("m@1.1.0", progress=_telling(said))
    assert not any("warning" in text for text in said)
