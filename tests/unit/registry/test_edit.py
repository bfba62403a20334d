import copy
import json

import pytest

from yarnstore.errors import ConflictError, FormatError, InvalidNameError
from yarnstore.registry.edit import add_version, decode_registry, encode_registry, new_registry
from yarnstore.registry.schema import parse_registry
from yarnstore.registry.select import latest_version

NOW, LATER = "2024-01-01T00:00:00Z", "2024-02-02T00:00:00Z"


def digest(letter):
    return "sha256:" + letter * 64


def build(letter="a", **fields):
    return {"manifest": digest(letter), "checksum": digest(letter), "size_bytes": 1, **fields}


def put(raw, version="1.0.0", entry=None, *, model="phi", now=NOW, **options):
    return add_version(
        raw, model=model, version=version, entry=build() if entry is None else entry, now=now, **options
    )


def published(*versions, **options):
    raw = new_registry(NOW)
    for version in versions:
        assert put(raw, version, **options)
    return raw


def test_a_first_version_to_the_byte():
    raw = new_registry("2023-01-01T00:00:00Z")
    assert put(raw, entry={"checksum": digest("a"), "changelog": "Größer"}, variant="cpu", tags=["x"])
    assert encode_registry(raw).decode() == (
        """\
{
  "registry_version": "1.0.0",
  "last_updated": "2024-01-01T00:00:00Z",
  "models": {
    "phi": {
      "model_id": "phi",
      "name": "phi",
      "description": "",
      "current_version": "1.0.0",
      "tags": [
        "x"
      ],
      "category": "",
      "versions": {
        "1.0.0": {
          "model_id": "phi",
          "version": "1.0.0",
          "checksum": "sha256:…",
          "changelog": "Größer",
          "variant": "cpu"
        }
      }
    }
  }
}
""".replace("sha256:…", digest("a"))
    )
    assert parse_registry(encode_registry(raw)).models["phi"].versions["1.0.0"].variant == "cpu"


def test_unknown_keys_and_their_order_survive():
    text = (
        b'{"z":1,"models":{"phi":{"y":[{}],"versions":{"0.1.0":{"x":4.5,"w":null}},"v":"\xc3\xa9"}},"a":{}}'
    )
    raw = decode_registry(text)
    before = copy.deepcopy(raw)
    assert put(raw)
    assert list(raw) == ["z", "models", "a", "last_updated"]
    assert list(raw["models"]["phi"]) == ["y", "versions", "v", "current_version"]
    del (
        raw["last_updated"],
        raw["models"]["phi"]["current_version"],
        raw["models"]["phi"]["versions"]["1.0.0"],
    )
    assert raw == before


def test_the_same_build_again_changes_no_byte():
    raw = published("1.0.0", variant="cpu")
    put(raw, entry=build("b"), variant="gpu")
    before = encode_registry(raw)
    assert not put(raw, variant="cpu", now=LATER)
    assert not put(raw, entry=build("b"), variant="gpu", now=LATER)
    assert encode_registry(raw) == before


def test_a_later_release_date_alone_changes_nothing():
    raw = new_registry(NOW)
    put(raw, entry=build(release_date=NOW))
    before = encode_registry(raw)
    assert not put(raw, entry=build(release_date=LATER), now=LATER)
    assert encode_registry(raw) == before


def test_the_same_content_takes_over_other_facts():
    raw = published("1.0.0")
    raw["models"]["phi"]["versions"]["1.0.0"]["x"] = 1
    assert put(raw, entry=build(changelog="Better", deltas=()), now=LATER)
    entry = raw["models"]["phi"]["versions"]["1.0.0"]
    assert (entry["changelog"], entry["x"], raw["last_updated"]) == ("Better", 1, LATER)
    assert not put(raw, entry=build(changelog="Better", deltas=()), now=LATER)


def test_an_entry_of_the_old_schema_gains_its_manifest():
    raw = new_registry(NOW)
    put(raw, entry={"checksum": "a" * 64})
    assert put(raw, entry=build("a"))
    assert raw["models"]["phi"]["versions"]["1.0.0"]["manifest"] == digest("a")


@pytest.mark.parametrize("variant", ["default", "gpu"])
@pytest.mark.parametrize("key", ["manifest", "checksum"])
def test_another_content_under_the_same_name_is_refused(variant, key):
    raw = published("1.0.0")
    put(raw, entry=build("b"), variant="gpu")
    before = copy.deepcopy(raw)
    old = build("a" if variant == "default" else "b")
    with pytest.raises(ConflictError) as caught:
        put(raw, entry={**old, key: digest("c")}, variant=variant, now=LATER)
    assert f"phi 1.0.0 ({variant}) is already published" in caught.value.message
    assert "as a new version" in caught.value.hint
    assert raw == before


def test_what_cannot_be_compared_is_refused():
    raw = new_registry(NOW)
    put(raw, entry={"checksum": digest("a")})
    with pytest.raises(ConflictError, match="without a checksum or manifest to compare"):
        put(raw, entry={"manifest": digest("a")})


def test_further_variants_go_under_the_first():
    raw = published("1.0.0", variant="cpu")
    assert put(raw, entry=build("b"), variant="gpu")
    assert put(raw, entry=build("c", variant="npu"))
    assert put(raw, entry=build("d"), variant="default")
    version = raw["models"]["phi"]["versions"]["1.0.0"]
    assert version["variant"] == "cpu"
    assert {name: (one["variant"], one["manifest"]) for name, one in version["variants"].items()} == {
        "gpu": ("gpu", digest("b")),
        "npu": ("npu", digest("c")),
        "default": ("default", digest("d")),
    }
    parse_registry(encode_registry(raw))


@pytest.mark.parametrize(
    ("versions", "current"),
    [
        (["1.0.0", "1.1.0"], "1.1.0"),
        (["1.1.0", "1.0.0"], "1.1.0"),
        (["1.9.0", "1.10.0"], "1.10.0"),
        (["1.0.0", "2.0.0-rc.1"], "1.0.0"),
        (["1.0.0-rc.1"], "1.0.0-rc.1"),
        (["1.0.0-rc.1", "1.0.0"], "1.0.0"),
    ],
)
def test_the_current_version_moves_forward_to_releases(versions, current):
    assert published(*versions)["models"]["phi"]["current_version"] == current


def test_a_further_variant_does_not_undo_a_current_version_that_was_set_back():
    raw = published("1.0.0", "1.1.0")
    raw["models"]["phi"]["current_version"] = "1.0.0"
    assert put(raw, "1.1.0", build("b"), variant="gpu")
    assert raw["models"]["phi"]["current_version"] == "1.0.0"


def test_a_yanked_version_does_not_become_current():
    raw = published("1.0.0")
    put(raw, "1.1.0", build("b", yanked=True))
    assert raw["models"]["phi"]["current_version"] == "1.0.0"


@pytest.mark.parametrize("current", [None, "9.9.9"])
def test_a_backport_into_a_model_without_a_current_version_does_not_become_latest(current):
    raw = published("1.0.0")
    raw["models"]["phi"]["current_version"] = current
    put(raw, "0.9.1", build("b"))
    assert raw["models"]["phi"]["current_version"] == "1.0.0"
    assert latest_version(parse_registry(encode_registry(raw)).models["phi"]) == "1.0.0"


def test_texts_of_a_model_are_set_where_given_and_kept_where_not():
    raw = published("1.0.0", name="Phi", description="d", tags=["a"], category="c")
    put(raw, "1.1.0", build("b"), category="e")
    phi = raw["models"]["phi"]
    assert [phi[key] for key in ("name", "description", "tags", "category")] == ["Phi", "d", ["a"], "e"]
    assert put(raw, "1.1.0", build("b"), name="Phi 3", now=LATER)
    assert (phi["name"], raw["models"]["phi"]["name"]) == ("Phi", "Phi 3")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": "PHI"}, ConflictError, 'model id "PHI" differs only in case from "phi"'),
        ({"model": "../x"}, InvalidNameError, "may contain only"),
        ({"version": "1.1"}, InvalidNameError, "MAJOR.MINOR.PATCH"),
        ({"variant": "a/b"}, InvalidNameError, "may contain only"),
        ({"variant": "Default"}, FormatError, "differs only in case"),
        ({"version": "1.1.0", "entry": {"size_bytes": "1"}}, FormatError, "size_bytes: expected int"),
        ({"version": "1.1.0", "entry": {"checksum": "1"}}, FormatError, "checksum: is not sha256:"),
        ({"version": "1.1.0", "entry": {"version": "1.0.0"}}, FormatError, ".version: is '1.0.0'"),
        ({"version": "1.1.0", "entry": {"variants": {}}}, FormatError, "contains variants"),
    ],
)
def test_what_is_refused_leaves_the_document_alone(change, error, message):
    raw = published("1.0.0")
    before = copy.deepcopy(raw)
    with pytest.raises(error) as caught:
        put(raw, **change)
    assert message in caught.value.message
    assert raw == before


def test_a_faulty_model_is_not_built_upon():
    raw = decode_registry(b'{"models":{"phi":{"versions":{"1.0.0":[]}}}}')
    with pytest.raises(FormatError, match=r'versions\["1.0.0"\]: expected object, got array'):
        put(raw, "1.1.0")


def test_the_document_does_not_share_what_the_caller_passed():
    entry = build(mirrors=["https://a"])
    raw = new_registry(NOW)
    put(raw, entry=entry)
    entry["mirrors"].append("https://b")
    assert raw["models"]["phi"]["versions"]["1.0.0"]["mirrors"] == ["https://a"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "$: expected object"),
        (b"{}", "$.models: expected object"),
        (b'{"models":{},"a":1,"a":2}', "'a' occurs twice"),
        (b'{"models":{},"a":NaN}', "NaN is not a JSON number"),
        (b'{"models":{},"a":1e999}', "the number 1e999 is too large"),
        (b'{"models":{},"a":' + b"9" * 5000 + b"}", "is not JSON"),
        (b'{"models":{},"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
    ],
)
def test_a_document_that_cannot_be_edited(data, why):
    with pytest.raises(FormatError) as caught:
        decode_registry(data)
    assert why in caught.value.message


def test_what_json_cannot_hold_is_not_written():
    for bad in ("\ud800", object()):
        with pytest.raises(FormatError, match="cannot be written"):
            encode_registry({"models": {}, "bad": bad})


def test_written_bytes_are_read_back_and_written_again_the_same():
    data = (
        b'{"models":{},"big":12345678901234567890123,"f":[1.5,1e22,-0.0,1e-7],"s":"\\u0000\xf0\x9f\xa7\xb6"}'
    )
    raw = decode_registry(data)
    once = encode_registry(raw)
    assert encode_registry(decode_registry(once)) == once
    assert json.loads(once) == json.loads(data)
