"""Download an image from a registry: its manifest, then each layer, which is continued if it was cut."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from yarnstore.core.canonical import parse_json_object
from yarnstore.core.digest import Sha256
from yarnstore.core.index import id_bytes
from yarnstore.core.manifest import ManifestFile
from yarnstore.core.oci import MANIFEST_LIMIT_BYTES, Layer, listed_manifests, read_image
from yarnstore.core.suggestions import close_names
from yarnstore.errors import (
    BackendError,
    FormatError,
    IntegrityError,
    MissingKeyError,
    NotFoundError,
    UsageError,
)
from yarnstore.ops.exchange.address import Address
from yarnstore.ops.exchange.images.found import FoundImage, files_of
from yarnstore.ops.exchange.images.repository import connect_repository, run_each
from yarnstore.ops.fetching.single_file import WantedFile, claim
from yarnstore.ops.session import counting
from yarnstore.ops.session.session import Session
from yarnstore.progress import Meter
from yarnstore.store import fsread, growing
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.filepath import Path

if TYPE_CHECKING:
    from yarnstore.backends import SourceSet

_LATEST: Final = "latest"
_DAMAGED: Final = "nothing was imported; the registry's copy is damaged"


def find_image(session: Session, address: Address) -> FoundImage:
    """Return the image of an address: its tag, or `latest`, or its digest.

    Raises: NotFoundError, FormatError, IntegrityError, BackendError; UsageError for an index of several.
    """
    _, sources = connect_repository(session, address)
    reference = address.revision or _LATEST
    try:
        data = _read(sources, f"manifests/{reference}", str(address), address.is_digest)
    except MissingKeyError as error:
        near = [] if address.is_digest else close_names(reference, _tags(sources))
        where = str(address).removesuffix(reference).rstrip(":@")
        raise NotFoundError("image", reference, where=where, near=near) from error
    entries = listed_manifests(parse_json_object(data, str(address)), str(address))
    if entries is not None:
        if len(entries) != 1:
            names = ", ".join(str(entry.sha256) for entry in entries[:3])
            raise UsageError(
                f"{address} is an index of {len(entries)} images",
                hint=f"name one by its digest, as in docker://HOST/NAME@sha256:…: {names}",
            )
        data = _read(sources, f"manifests/{entries[0].sha256}", str(address), is_digest=True)
    image = read_image(data, str(address))
    config = _read(sources, f"blobs/{image.config.sha256}", str(address), is_digest=True)
    tag = "" if address.is_digest else reference
    return FoundImage(
        place=str(address),
        name=address.name,
        known_as="/".join(address.repository[1].split("/")[-2:]).removeprefix("library/"),
        tag=tag,
        data=data,
        config=config,
        image=image,
    )


def _read(sources: SourceSet, key: str, place: str, is_digest: bool) -> bytes:
    """Return a small content; one that is named by its digest is compared with it."""

    def check(data: bytes) -> bytes:
        if is_digest and str(Sha256.of(data)) != key.partition("/")[2]:
            got = str(Sha256.of(data))
            what = f"{place}: {key.partition('/')[0]}"
            raise IntegrityError(what, expected=key.partition("/")[2], got=got, hint=_DAMAGED)
        return data

    return sources.get_checked(key, check, limit_bytes=MANIFEST_LIMIT_BYTES)[0]


def _tags(sources: SourceSet) -> list[str]:
    """Return the tags of a repository, as far as it tells them."""
    with contextlib.suppress(BackendError, FormatError):
        fetched = sources.get("tags/list", limit_bytes=MANIFEST_LIMIT_BYTES)
        tags = parse_json_object(fetched.data, "tags").get("tags") if fetched else None
        return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
    return []


@contextlib.contextmanager
def downloaded(
    session: Session, address: Address, found: FoundImage, model: str, chunks: ChunkStore
) -> Iterator[dict[Sha256, Path]]:
    """Yield the files of all layers.  What the versions of `model` have is not downloaded again.

    They are in `tmp/`, and removed afterwards; after an error they stay, for the next run to continue.

    Raises: BackendError, IntegrityError, DiskFullError.
    """
    files_of(found.image)  # refuses bad paths before anything is downloaded
    layout = session.layout
    _, sources = connect_repository(session, address)
    layers = {layer.sha256: layer for layer in found.image.layers}
    known = _known_files(session, model)
    total = sum(layer.size for layer in layers.values())
    fsread.require_space(layout.root, total, layout.reserve)
    meter = Meter(session.activity.report, "download", str(address), total)
    paths: dict[Sha256, Path] = {}
    # Held for the whole import, so that two imports of one image do not share the files.
    with claim(session, _partial(layout.tmp, found.sha256, found.sha256)) as mark:
        for sha256, layer in layers.items():
            paths[sha256] = _partial(layout.tmp, found.sha256, sha256)
            with growing.PartialFile(paths[sha256]) as part:
                if sha256 in known and not part.size_bytes:
                    _copy(known[sha256], chunks, part)
                meter.add(min(part.size_bytes, layer.size))

        def download(layer: Layer) -> None:
            with growing.PartialFile(paths[layer.sha256]) as part:
                wanted = WantedFile(
                    str(layer.sha256),
                    str(address),
                    part,
                    layer.sha256,
                    layer.size,
                    meter,
                    layout.reserve,
                    promised=("size in the manifest", "digest in the manifest"),
                    hint=_DAMAGED,
                )
                sources.stream(f"blobs/{layer.sha256}", wanted)

        with counting.download(meter):
            run_each(session, [partial(download, layer) for layer in layers.values()])
        yield paths
        for path in paths.values():
            with growing.PartialFile(path) as part:
                part.remove()
        mark.remove()


def _partial(tmp: Path, image: Sha256, content: Sha256) -> Path:
    return tmp / f"{Sha256.of(f'image {image} {content}'.encode()).hex}.download"


def _known_files(session: Session, model: str) -> dict[Sha256, ManifestFile]:
    """Return the files of the stored versions of a model, by their hashes."""
    found: dict[Sha256, ManifestFile] = {}
    for name in session.refs.versions(model):
        with contextlib.suppress(IntegrityError):
            manifest = session.refs.checked_version(name)
            found |= {file.sha256: file for file in manifest.files} if manifest else {}
    return found


def _copy(file: ManifestFile, chunks: ChunkStore, part: growing.PartialFile) -> None:
    """Write a stored file; one that is damaged in the store is downloaded instead."""
    ids, _ = file.chunk_list()
    try:
        for number in range(len(ids)):
            chunk_id = id_bytes(ids, number)
            part.write(chunks.read(chunk_id, chunks.row_of(chunk_id)))
    except (IntegrityError, NotFoundError):
        part.truncate()
