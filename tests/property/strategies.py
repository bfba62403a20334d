"""What the properties draw from: values of every format, and bytes that are almost of it."""

from __future__ import annotations

from hypothesis import strategies as st

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import CHUNK_LIMIT_BYTES
from yarnstore.core.manifest import Manifest, ManifestFile, pack_chunk_list
from yarnstore.core.names import check_file_paths
from yarnstore.core.pack import PACK_HEADER_BYTES, Entry
from yarnstore.core.reflog import Installed, Move
from yarnstore.errors import FormatError

# Ids that end in zeros are common here, since numpy drops trailing zeros of S32 values.
ids = st.one_of(
    st.binary(min_size=32, max_size=32),
    st.builds(lambda head: head.ljust(32, b"\0"), st.binary(max_size=4)),
)
sha256s = ids.map(Sha256)

words = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,6}[A-Za-z0-9]", fullmatch=True).filter(
    lambda text: text.partition(".")[0].lower() not in {"con", "prn", "aux", "nul"} and not _is_port(text)
)
model_ids = st.one_of(words, st.builds("{}/{}".format, words, words))
versions = st.builds(
    "{}.{}.{}{}".format,
    *[st.integers(0, 30)] * 3,
    st.sampled_from(["", "-rc.1", "-0a", "+build.7", "-a.b+c"]),
)


def _is_port(text: str) -> bool:
    head = text.partition(".")[0].lower()
    return len(head) == 4 and head[:3] in ("com", "lpt") and head[3].isdigit()


# --- packs and indexes ---------------------------------------------------------------------------


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """An entry that a reader accepts, of any encoding."""
    payload = draw(st.binary(max_size=40))
    plain = draw(st.integers(max(1, len(payload)), 4096) | st.just(CHUNK_LIMIT_BYTES))
    base = draw(st.just(b"") | st.binary(min_size=32, max_size=32))
    return Entry(draw(ids), plain, draw(st.integers(0, 255)), payload, base)


entry_lists = st.lists(entries(), max_size=8)


@st.composite
def _index_row(draw: st.DrawFn) -> tuple[bytes, int, int, int, int, bytes]:
    plain = draw(st.integers(1, CHUNK_LIMIT_BYTES))
    base = draw(st.just(b"") | ids.filter(any))
    stored = draw(st.integers(44, 44 + len(base) + min(plain, 5_000)))
    return (
        draw(ids),
        draw(st.integers(PACK_HEADER_BYTES, 10_000)),
        stored,
        plain,
        draw(st.integers(0, 255)),
        base,
    )


index_rows = st.lists(_index_row(), max_size=12)


# --- manifests -----------------------------------------------------------------------------------

_segments = st.one_of(words, st.text("abcé日 .-_~()", min_size=1, max_size=6))
paths = st.lists(_segments, min_size=1, max_size=3).map("/".join)


def _are_paths(found: list[str]) -> bool:
    try:
        check_file_paths(found)
    except FormatError:
        return False
    return True


path_lists = st.lists(paths, min_size=1, max_size=4).filter(_are_paths)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(st.text(max_size=5), json_values, max_size=4)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    files = []
    for path in draw(path_lists):
        chunks = draw(st.lists(st.tuples(ids, st.integers(1, 9000)), max_size=3))
        size = sum(length for _, length in chunks)
        extra = {f"x-{key}": value for key, value in draw(json_objects).items()}
        files.append(ManifestFile(path, size, draw(sha256s), pack_chunk_list(chunks), extra))
    return Manifest.make(draw(model_ids), draw(versions), draw(words), files)


# --- reflogs -------------------------------------------------------------------------------------

installeds = st.builds(Installed, sha256s, words, versions)
operations = st.from_regex(r"[a-z][a-z-]{0,10}", fullmatch=True)
moves = st.builds(
    Move, st.integers(0, 10**15 - 1), operations, st.none() | installeds, st.none() | installeds
)


# --- hostile bytes -------------------------------------------------------------------------------


@st.composite
def nearly(draw: st.DrawFn, good: st.SearchStrategy[bytes]) -> bytes:
    """Bytes a few edits away from good ones: what gets past the first checks of a parser."""
    data = bytearray(draw(good))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        edit = draw(st.integers(0, 4))
        if edit == 0:
            data[at:] = b""
        elif edit == 1:
            data[at:at] = draw(st.binary(min_size=1, max_size=12))
        elif edit == 2:
            data[at : at + draw(st.integers(1, 40))] = b""
        elif edit == 3:
            data[at : at + 1] = bytes([draw(st.integers(0, 255))])
        else:
            data[at : at + 8] = draw(st.sampled_from([b"\0" * 8, b"\xff" * 8, b"\xff" * 4, b"\0\0\0\x80"]))
    return bytes(data)
