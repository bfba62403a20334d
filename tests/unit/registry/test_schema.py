"""Reading registries: the established schema, the new keys, and where a bad field is."""

import json
import re
from pathlib import Path

import pytest

from yarnstore.core import limits
from yarnstore.errors import FormatError
from yarnstore.registry.entries import VersionEntry
from yarnstore.registry.schema import parse_model, parse_registry
from yarnstore.registry.select import find_model, resolve
from yarnstore.registry.spec import Spec

REPO = Path(__file__).resolve().parents[3]
HEX = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"

# The established schema, to the letter.
ESTABLISHED = """\
{
  "registry_version": "1.0.0",
  "last_updated": "2024-01-01T00:00:00Z",
  "models": {
    "phi-3-mini": {
      "model_id": "phi-3-mini", "name": "Phi-3 Mini", "description": "…",
      "current_version": "1.0.0",
      "tags": ["language-model", "microsoft", "phi-3"], "category": "language-model",
      "versions": {
        "1.0.0": {
          "model_id": "phi-3-mini", "version": "1.0.0",
          "checksum": "sha256:…", "download_url": "https://…", "size_bytes": 2147483648,
          "compatibility": [">=1.0.0"], "release_date": "2024-01-01T00:00:00Z",
          "changelog": "Initial release", "deprecated": false,
          "minimum_ram_gb": 4, "recommended_ram_gb": 8, "variant": "cpu-int4"
        }
      }
    }
  }
}
"""


def registry(**models):
    return {"models": models}


def model(**versions_by_name):
    return {"versions": versions_by_name}


def versions(**fields):
    return {"versions": {"1.0.0": fields}}


def parse(raw):
    return parse_registry(json.dumps(raw).encode())


def fault(raw):
    with pytest.raises(FormatError) as caught:
        parse(raw)
    return caught.value.message


def test_the_established_schema_alone_is_enough():
    doc = parse_registry(ESTABLISHED.replace("sha256:…", f"sha256:{HEX}").encode())
    build = resolve(find_model(doc, "phi-3-mini"), Spec.parse("phi-3-mini"))
    assert str(build) == "phi-3-mini 1.0.0 (cpu-int4)"
    assert build.entry == VersionEntry(
        model_id="phi-3-mini",
        version="1.0.0",
        variant="cpu-int4",
        checksum=f"sha256:{HEX}",
        download_url="https://…",
        size_bytes=2147483648,
        compatibility=(">=1.0.0",),
        release_date="2024-01-01T00:00:00Z",
        changelog="Initial release",
        minimum_ram_gb=4,
        recommended_ram_gb=8,
    )


def test_a_placeholder_is_no_checksum():
    with pytest.raises(FormatError) as caught:
        parse_registry(ESTABLISHED.encode())
    assert caught.value.message.startswith(
        'registry.json: $.models["phi-3-mini"].versions["1.0.0"].checksum: is not sha256: and 64'
    )


def test_the_example_of_the_page_is_read_whole():
    text = (REPO / "docs" / "registry.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    entry = parse_registry(example.encode()).models["phi-3-mini"]
    version = entry.versions["1.1.0"]
    assert entry.aliases == {"stable": "1.0.0"}
    assert [file.path for file in version.files] == ["phi-3-mini.onnx"]
    assert [delta.base for delta in version.deltas] == ["1.0.0"]
    assert version.variants["cuda-fp16"].size_bytes == 7516192768
    raw = json.loads(example)
    page = set(re.findall(r"`(\w+)`", text.split("## Example")[0]))
    assert keys_of(raw) - {"phi-3-mini", "1.0.0", "1.1.0", "cuda-fp16"} <= page, "a key without its rule"


def keys_of(value):
    if isinstance(value, list):
        return set().union(*map(keys_of, value))
    if isinstance(value, dict):
        return set(value).union(*map(keys_of, value.values()))
    return set()


def test_the_page_has_a_rule_for_every_field():
    text = (REPO / "docs" / "registry.md").read_text(encoding="utf-8").split("## Example")[0]
    for field in VersionEntry.__struct_fields__:
        assert re.search(rf"^\|[^|]*`{field}`[^|]*\|", text, re.MULTILINE), field


def test_nearly_everything_may_be_missing_or_null():
    doc = parse(registry(m=versions(changelog=None, size_bytes=None), empty=model()))
    assert doc.models["m"].versions["1.0.0"] == VersionEntry()
    assert doc.models["m"].model_id == "m"
    assert doc.models["empty"].versions == {}


def test_unknown_keys_are_ignored():
    doc = parse({"models": {"m": {"versions": {"1.0.0": {"x": [1e9]}}, "y": {}}}, "z": None})
    assert list(doc.models["m"].versions) == ["1.0.0"]


def test_a_byte_order_mark_is_skipped():
    assert parse_registry(b'\xef\xbb\xbf{"models":{}}').models == {}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "registry.json: $: expected object, got array"),
        ({}, "registry.json: $: object missing required field models"),
        (registry(m={}), 'registry.json: $.models["m"]: object missing required field versions'),
        (
            registry(ok=versions(), phi=versions(size_bytes="12")),
            'registry.json: $.models["phi"].versions["1.0.0"].size_bytes: expected int, got str',
        ),
        (
            registry(m=versions(size_bytes=1.0)),
            'registry.json: $.models["m"].versions["1.0.0"].size_bytes: expected int, got float',
        ),
        (
            registry(m=versions(size_bytes=-1)),
            'registry.json: $.models["m"].versions["1.0.0"].size_bytes: expected int >= 0',
        ),
        (
            registry(m=versions(size_bytes=2**53)),
            'registry.json: $.models["m"].versions["1.0.0"].size_bytes: expected int <= 9007199254740991',
        ),
        (
            registry(m=versions(variants={"a": {}, "b": {"files": [{"path": "f", "size_bytes": 1}]}})),
            'registry.json: $.models["m"].versions["1.0.0"].variants["b"].files[0]: '
            "object missing required field sha256",
        ),
        (
            registry(m={"versions": {}, "aliases": {"a": "1.0.0", "b": 1}}),
            'registry.json: $.models["m"].aliases["b"]: expected str, got int',
        ),
    ],
)
def test_a_wrong_type_is_named_by_its_path(raw, message):
    assert fault(raw) == message


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"../x": model()}, '$.models["../x"]: may contain only'),
        ({"a\x1b[2J": model()}, '$.models["a\\u001b[2J"]: may contain only'),
        ({"con": model()}, '$.models["con"]: is a device name'),
        ({"M" * 200: model()}, f'$.models["{"M" * 77}..."]: is longer than 96'),
        ({"Phi": model(), "phi": model()}, "$.models[\"phi\"]: differs only in case from 'Phi'"),
        ({"m": {"model_id": "n", "versions": {}}}, "$.models[\"m\"].model_id: is 'n', but the key is 'm'"),
        ({"m": model(**{"1.0": {}})}, '$.models["m"].versions["1.0"]: is not MAJOR.MINOR.PATCH'),
        (
            {"m": model(**{"1.0.0-RC": {}, "1.0.0-rc": {}})},
            '$.models["m"].versions["1.0.0-rc"]: differs only in case',
        ),
        ({"m": versions(version="1.0.1")}, ".version: is '1.0.1', in the entry of '1.0.0'"),
        ({"m": versions(model_id="n")}, ".model_id: is 'n', in the entry of 'm'"),
        ({"m": versions(variant="a/b")}, ".variant: may contain only"),
        ({"m": versions(checksum=HEX.upper())}, ".checksum: is not sha256:"),
        ({"m": versions(manifest=f"blake3:{HEX}")}, ".manifest: is not sha256:"),
        ({"m": versions(packs=[HEX, f"sha256:{HEX}"])}, ".packs[1]: is not blake3:"),
        (
            {"m": versions(files=[{"path": "../a", "size_bytes": 0, "sha256": HEX}])},
            ".files: has an empty, '.' or '..' part",
        ),
        (
            {"m": versions(files=[{"path": "a", "size_bytes": 0, "sha256": "a"}])},
            ".files[0].sha256: is not sha256:",
        ),
        (
            {"m": versions(deltas=[{"base": "1", "base_manifest": HEX, "pack": HEX, "size_bytes": 1}])},
            ".deltas[0].base: is not MAJOR.MINOR.PATCH",
        ),
        ({"m": versions(variants={"a b": {}})}, '.variants["a b"]: may contain only'),
        ({"m": versions(variants={"a": {"variant": "b"}})}, ".variants[\"a\"].variant: is not the key, 'a'"),
        ({"m": versions(variants={"a": {"checksum": "?"}})}, '.variants["a"].checksum: is not sha256:'),
        ({"m": versions(variants={"a": {"variants": {"b": {}}}})}, '.variants["a"].variants: is inside'),
        ({"m": versions(variants={"default": {}})}, '.variants["default"]: is also the variant'),
        ({"m": versions(variant="a", variants={"A": {}})}, "[\"A\"]: differs only in case from 'a'"),
    ],
)
def test_a_broken_rule_is_named_by_its_path(models, message):
    said = fault({"models": models})
    assert message in said
    assert said.startswith("registry.json: $.models[")


def test_a_good_name_in_one_model_does_not_excuse_a_bad_one_in_the_next():
    good = {"versions": {"1.0.0": {"variant": "a", "files": [{"path": "f", "size_bytes": 1, "sha256": HEX}]}}}
    bad = {"versions": {"1.0.0": {"variant": "a", "files": [{"path": "f", "size_bytes": 1, "sha256": "0"}]}}}
    assert '$.models["b"].versions["1.0.0"].files[0].sha256' in fault(registry(a=good, b=bad))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b'{"models":{}} x', "is not JSON"),
        (b'{"models":{},"x":NaN}', "is not JSON"),
        (b'{"models":{},"last_updated":"\\ud800"}', "is not JSON"),
        (b'{"models":{},"last_updated":"\xff"}', "is not JSON"),
        (b"\n<!doctype html>", "it looks like a web page"),
        (b'{"models":{},"x":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}", "nested too deeply"),
        (
            b'{"models":{"m":{"versions":{"1.0.0":' + b'{"variants":{"a":' * 50_000,
            "nested too deeply",
        ),
        (b'{"models":{"m":{"versions":{"1.0.0":{"minimum_ram_gb":1e999}}}}}', "umber out of range"),
    ],
)
def test_hostile_bytes_are_a_format_error(data, why):
    with pytest.raises(FormatError) as caught:
        parse_registry(data, source="https://example.org/registry.json")
    assert why in caught.value.message
    assert caught.value.fields["source"] == "https://example.org/registry.json"


def test_of_a_key_that_occurs_twice_the_last_counts():
    data = b'{"models":{"m":{"versions":{},"name":"a","name":"b"}}}'
    assert parse_registry(data).models["m"].name == "b"


def test_a_newer_format_is_named_even_where_its_shape_is_another():
    for models in ({}, []):
        assert "has format 2; this yarnstore reads up to 1" in fault(
            {"registry_version": "2.0", "models": models}
        )
        assert "has format 10;" in fault({"registry_version": "10", "models": models})


def test_sizes_are_limited(monkeypatch):
    assert limits.REGISTRY_MODEL_LIMIT_BYTES < limits.REGISTRY_LIMIT_BYTES
    with pytest.raises(FormatError, match="is larger than"):
        parse_model(b" " * (limits.REGISTRY_MODEL_LIMIT_BYTES + 1))


def test_a_model_by_itself():
    entry = parse_model(json.dumps(versions(size_bytes=1)).encode(), model="org/m")
    assert entry.model_id == "org/m"
    assert entry.versions["1.0.0"].size_bytes == 1


@pytest.mark.parametrize(
    ("raw", "wanted", "message"),
    [
        (model(), "", "the model's JSON: $.model_id: is missing"),
        (
            {"model_id": "m", "versions": {}},
            "org/n",
            "models/org~n.json: $.model_id: is 'm', but the key is 'org/n'",
        ),
        (versions(yanked="no"), "m", 'models/m.json: $.versions["1.0.0"].yanked: expected bool, got str'),
        (versions(checksum="x"), "m", 'models/m.json: $.versions["1.0.0"].checksum: is not sha256:'),
    ],
)
def test_a_faulty_model_by_itself(raw, wanted, message):
    with pytest.raises(FormatError) as caught:
        parse_model(json.dumps(raw).encode(), model=wanted)
    assert caught.value.message.startswith(message)
