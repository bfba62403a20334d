"""Properties of the core: parsers raise only our errors, and what is written comes back."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Callable

import numpy as np
import zstandard
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from tests.property.strategies import (
    entry_lists,
    ids,
    index_rows,
    json_objects,
    manifests,
    model_ids,
    moves,
    nearly,
    sha256s,
    versions,
    words,
)
from yarnstore.core.canonical import encode_canonical, parse_canonical, parse_json_object
from yarnstore.core.codec import decode_entry, decode_payload, make_entry
from yarnstore.core.digest import ChunkId, PackId, Sha256
from yarnstore.core.index import PackIndex, encode_index, find_ids, id_bytes, parse_index, sorted_unique
from yarnstore.core.manifest import Manifest
from yarnstore.core.names import (
    check_file_paths,
    model_dirname,
    model_from_dirname,
    parse_file_path,
    parse_model_id,
    parse_registry_name,
    parse_variant,
    parse_version,
)
from yarnstore.core.pack import PACK_HEADER, Entry, EntryStream, encode_entry, parse_entry
from yarnstore.core.reflog import (
    Installed,
    Move,
    format_move,
    format_ref,
    install_stack,
    made_moves,
    parse_move,
    parse_ref,
    parse_reflog,
)
from yarnstore.errors import IncompatibleError, IntegrityError, InvalidNameError, YarnstoreError

PACK = PackId(b"p" * 32)


def attempt(call: Callable[..., object], *args: object) -> object:
    """What a call returns, or the error it raises on purpose; any other error fails the test."""
    try:
        return call(*args)
    except YarnstoreError as error:
        return error


def pack_bytes(entries: list[Entry]) -> bytes:
    return PACK_HEADER + b"".join(b"".join(encode_entry(entry)) for entry in entries)


def index_bytes(rows: list[tuple[bytes, int, int, int, int, bytes]]) -> bytes:
    return encode_index(PackIndex.from_rows(PACK, 20_000, rows))


def with_check(data: bytes) -> bytes:
    """A hostile index whose check is right all the same."""
    return data[:-32] + blake3(data[:-32]).digest()


# --- digests and names ---------------------------------------------------------------------------

hexlike = st.text("0123456789abcdefABCDEFg:-/.sha256\n٣０", max_size=80)


@given(st.text() | hexlike)
def test_a_digest_is_read_or_refused(text: str) -> None:
    for kind in (Sha256, ChunkId, PackId):
        found = attempt(kind.parse, text)
        if isinstance(found, IntegrityError):
            continue
        assert isinstance(found, kind)
        assert text in (found.hex, str(found))
        assert len(found.raw) == 32


pathlike = st.lists(
    st.sampled_from(
        [
            "/",
            ".",
            "..",
            "\\",
            ":",
            " ",
            "\0",
            "\n",
            "a",
            "A",
            "con",
            "é",
            "e\u0301",
            "\ud800",
            "\u202e",
            "~",
            "-",
        ]
    ),
    max_size=8,
).map("".join)


@given(st.text() | pathlike)
def test_a_path_that_is_read_stays_in_its_folder(text: str) -> None:
    found = attempt(parse_file_path, text)
    if isinstance(found, YarnstoreError):
        assert isinstance(found, IntegrityError)
        return
    assert found == text == unicodedata.normalize("NFC", text)
    parts = text.split("/")
    assert all(part and part.strip() == part and not part.endswith(".") for part in parts)
    assert not set(text) & set('\\:*?"<>|\0')
    assert (
        text.isprintable()
        or "\u3000" in text
        or any(unicodedata.category(c) in ("Zs", "Cn", "Co") for c in text)
    )


@given(st.lists(st.text(max_size=6) | pathlike, max_size=5))
def test_paths_that_are_read_are_different_files_everywhere(paths: list[str]) -> None:
    if not isinstance(attempt(check_file_paths, paths), YarnstoreError):
        folded = [unicodedata.normalize("NFC", path.casefold()) for path in paths]
        assert len(set(folded)) == len(paths)
        for one in folded:
            assert not any(other.startswith(one + "/") for other in folded)


@given(st.text() | pathlike | model_ids | versions)
def test_a_name_that_is_read_is_one_safe_file_name(text: str) -> None:
    for parse in (
        parse_model_id,
        parse_variant,
        parse_registry_name,
        parse_version,
        model_dirname,
        model_from_dirname,
    ):
        found = attempt(parse, text)
        if isinstance(found, YarnstoreError):
            assert isinstance(found, InvalidNameError)
        else:
            name = (
                found
                if parse is not parse_model_id and parse is not model_from_dirname
                else model_dirname(str(found))
            )
            assert isinstance(name, str)
            assert name.isascii()
            assert "/" not in name
            assert name[0].isalnum()
            assert len(name) <= 255


@given(model_ids)
def test_a_model_id_has_one_folder_name(model: str) -> None:
    assert parse_model_id(model) == model
    assert model_from_dirname(model_dirname(model)) == model


# --- canonical JSON and manifests ----------------------------------------------------------------


@given(json_objects)
def test_canonical_json_comes_back_and_is_the_only_one(value: dict) -> None:
    data = encode_canonical(value)
    assert parse_canonical(data, "JSON") == value
    assert encode_canonical(dict(reversed(value.items()))) == data


@given(st.binary() | nearly(json_objects.map(encode_canonical)))
def test_json_is_read_or_refused(data: bytes) -> None:
    found = attempt(parse_canonical, data, "JSON")
    if isinstance(found, dict):
        assert encode_canonical(found) == data
    attempt(parse_json_object, data, "JSON")


@given(manifests())
def test_a_manifest_comes_back(manifest: Manifest) -> None:
    again = Manifest.parse(manifest.data, expected=manifest.digest)
    assert again == manifest
    assert [f.extra for f in again.files] == [f.extra for f in manifest.files]
    for file in again.files:
        _, lengths = file.chunk_list()
        assert int(lengths.sum()) == file.size_bytes


@given(st.binary() | nearly(manifests().map(lambda m: m.data)))
def test_a_manifest_is_read_or_refused(data: bytes) -> None:
    found = attempt(Manifest.parse, data)
    if isinstance(found, Manifest):
        assert found.data == data
        for file in found.files:
            attempt(file.chunk_list)
    else:
        assert isinstance(found, IntegrityError | IncompatibleError)


# --- packs ---------------------------------------------------------------------------------------


@given(entry_lists, st.lists(st.integers(0, 400), max_size=6))
def test_a_pack_comes_back_however_it_is_cut(entries: list[Entry], cuts: list[int]) -> None:
    data = pack_bytes(entries)
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    stream = EntryStream()
    read = [item for start, end in itertools.pairwise(ends) for item in stream.feed(data[start:end])]
    stream.finish()
    assert [entry for _, entry in read] == entries
    for at, entry in read:
        assert parse_entry(data[at : at + entry.stored_bytes]) == entry


@given(st.binary() | nearly(entry_lists.map(pack_bytes)))
def test_a_pack_is_read_or_refused(data: bytes) -> None:
    def read() -> list[tuple[int, Entry]]:
        stream = EntryStream()
        found = list(stream.feed(data))
        stream.finish()
        return found

    found = attempt(read)
    if isinstance(found, list):
        assert pack_bytes([entry for _, entry in found]) == data
    else:
        assert isinstance(found, IntegrityError)
    attempt(parse_entry, data)
    attempt(parse_entry, data[len(PACK_HEADER) :])


# --- indexes -------------------------------------------------------------------------------------


@given(index_rows)
def test_an_index_comes_back_as_a_dict_would(rows: list[tuple[bytes, int, int, int, int, bytes]]) -> None:
    wanted: dict[bytes, tuple] = {}
    for row in rows:
        wanted.setdefault(row[0], row[1:])
    index = parse_index(index_bytes(rows), pack=PACK)
    found = {
        id_bytes(index.ids, n): (
            int(index.offsets[n]),
            int(index.stored[n]),
            int(index.plain[n]),
            int(index.encodings[n]),
            id_bytes(index.bases, n) if index.bases[n] else b"",
        )
        for n in range(len(index))
    }
    assert found == wanted
    assert encode_index(index) == index_bytes(rows)


@given(st.binary(max_size=200) | nearly(index_rows.map(index_bytes)))
def test_an_index_is_read_or_refused(data: bytes) -> None:
    for hostile in (data, with_check(data)):
        found = attempt(parse_index, hostile)
        if isinstance(found, PackIndex):
            assert (found.offsets >= 16).all()
            assert (found.offsets + found.stored <= found.pack_bytes).all()
            names = [id_bytes(found.ids, n) for n in range(len(found))]
            assert names == sorted(set(names))
        else:
            assert isinstance(found, IntegrityError)


@given(st.lists(ids, max_size=30), st.lists(ids, max_size=30))
def test_lookups_are_a_dicts(held: list[bytes], asked: list[bytes]) -> None:
    distinct, first = sorted_unique(np.array(held, "S32"))
    assert [id_bytes(distinct, n) for n in range(len(distinct))] == sorted(set(held))
    assert [held.index(id_bytes(distinct, n)) for n in range(len(distinct))] == first.tolist()
    places = {id_bytes(distinct, n): n for n in range(len(distinct))}
    wanted = [*asked, *held]
    found = find_ids(distinct, np.array(wanted, "S32"))
    assert found.tolist() == [places.get(name, -1) for name in wanted]


# --- encodings -----------------------------------------------------------------------------------

plains = st.one_of(
    st.binary(min_size=1, max_size=300),
    st.builds(lambda piece, times: piece * times, st.binary(min_size=1, max_size=20), st.integers(1, 5000)),
)
frames = plains.map(zstandard.ZstdCompressor(level=3).compress)


@given(plains)
def test_a_chunk_comes_back_and_never_grows(data: bytes) -> None:
    entry = make_entry(ChunkId.of(data).raw, data)
    assert len(entry.payload) <= len(data)
    assert decode_entry(entry) == data
    assert decode_entry(parse_entry(b"".join(encode_entry(entry)))) == data


@given(st.integers(0, 6), st.binary() | nearly(frames), st.integers(0, 2**40) | st.integers(0, 300))
def test_a_payload_is_decoded_to_its_size_or_refused(encoding: int, payload: bytes, size: int) -> None:
    found = attempt(decode_payload, Entry(bytes(32), size, encoding, payload))
    if isinstance(found, YarnstoreError):
        assert isinstance(found, IntegrityError)
    else:
        assert len(found) == size  # type: ignore[arg-type]


@given(nearly(plains.map(lambda data: b"".join(encode_entry(make_entry(ChunkId.of(data).raw, data))))))
def test_no_byte_that_was_not_hashed_comes_out(data: bytes) -> None:
    entry = attempt(parse_entry, data)
    if isinstance(entry, Entry):
        plain = attempt(decode_entry, entry)
        if not isinstance(plain, YarnstoreError):
            assert ChunkId.of(plain).raw == entry.chunk_id  # type: ignore[arg-type]


# --- refs and reflogs ----------------------------------------------------------------------------


@given(sha256s)
def test_a_ref_comes_back(digest: Sha256) -> None:
    assert parse_ref(format_ref(digest)) == digest


@given(st.binary() | nearly(sha256s.map(format_ref)))
def test_a_ref_is_read_or_refused(data: bytes) -> None:
    found = attempt(parse_ref, data)
    assert format_ref(found) == data if isinstance(found, Sha256) else isinstance(found, IntegrityError)


@given(moves)
def test_a_move_comes_back(move: Move) -> None:
    assert parse_move(format_move(move)[:-1]) == move


def relined(data: bytes) -> bytes:
    """Hostile lines, each with a check that is right all the same."""
    bodies = [line.rpartition(b"\t")[0] for line in data.split(b"\n")]
    return b"".join(body + b"\t" + blake3(body).hexdigest()[:16].encode() + b"\n" for body in bodies)


logs = st.lists(moves, max_size=5).map(lambda found: b"".join(map(format_move, found)))


@given(st.binary() | nearly(logs))
def test_a_reflog_is_read_as_far_as_it_can_be(data: bytes) -> None:
    for hostile in (data, relined(data)):
        found = attempt(parse_reflog, hostile)
        assert isinstance(found, tuple)
        assert len(found[0]) + len(found[1]) == hostile.count(b"\n")
        for line in hostile.split(b"\n"):
            attempt(parse_move, line)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Move], list[Move], Sha256 | None]:
    """A log in which crashes left lines for moves that were never made; those made; the ref."""
    names = [Installed(Sha256(bytes([n]) * 32), "default", f"{n}.0.0") for n in range(4)]
    log: list[Move] = []
    made: list[Move] = []
    current: Installed | None = None
    for time_ms in range(draw(st.integers(0, 10))):
        new = draw(st.sampled_from([*names, None]).filter(lambda item, now=current: item != now))
        move = Move(time_ms, "checkout", current, new)
        log.append(move)
        if draw(st.booleans()):
            made.append(move)
            current = new
    return log, made, current.manifest if current else None


@given(histories())
def test_moves_that_were_made_are_told_from_those_that_were_not(
    history: tuple[list[Move], list[Move], Sha256 | None],
) -> None:
    log, made, current = history
    assert made_moves(log, current) == made
    stack = install_stack(made)
    assert (stack[-1].manifest if stack else None) == current


@given(words)
def test_the_words_drawn_are_variants(text: str) -> None:
    assert parse_variant(text) == text
