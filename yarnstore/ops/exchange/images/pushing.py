"""Upload a version to a registry as an image: its contents first, then the manifest, which names them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from yarnstore.core.digest import Sha256
from yarnstore.core.imported import imported_from
from yarnstore.core.index import id_bytes
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.core.oci import MANIFEST_LIMIT_BYTES, read_image
from yarnstore.errors import MissingKeyError, UsageError
from yarnstore.ops.exchange.address import Address
from yarnstore.ops.exchange.images.making import image_of, tag_of
from yarnstore.ops.exchange.images.repository import connect_repository, run_each
from yarnstore.ops.session.session import Session
from yarnstore.progress import Meter
from yarnstore.store.chunks import ChunkStore

if TYPE_CHECKING:
    from yarnstore.backends import SourceSet
    from yarnstore.backends.images import ImageRegistry, Reader

_KINDS: Final = ("oci", "ollama")


def with_tag(address: Address, manifest: Manifest) -> Address:
    """Return the address with the tag that a version gets there.  Raises: UsageError for a digest."""
    if address.is_digest:
        raise UsageError(f"{address} names an image that exists", hint="give a tag: docker://HOST/NAME:TAG")
    return Address(address.kind, address.name, address.revision or tag_of(manifest), address.scheme)


def is_pushed(session: Session, manifest: Manifest, address: Address, flavour: str | None) -> bool:
    """Whether a tag is the image of a version.  Raises: BackendError, UsageError."""
    data, _ = image_of(manifest, flavour, _KINDS)
    _, sources = connect_repository(session, address)
    return _is_tagged(sources, address, data)


def _is_tagged(sources: SourceSet, address: Address, data: bytes) -> bool:
    try:
        fetched = sources.get(f"manifests/{address.revision}", limit_bytes=MANIFEST_LIMIT_BYTES)
    except MissingKeyError:
        return False
    return fetched is not None and fetched.data == data


def push(
    session: Session,
    manifest: Manifest,
    chunks: ChunkStore,
    address: Address,
    flavour: str | None,
) -> str:
    """Upload what the registry does not have, then tag it; return `uploaded`, or `present`.

    Raises: BackendError, IntegrityError, UsageError.
    """
    data, config = image_of(manifest, flavour, _KINDS)
    registry, sources = connect_repository(session, address)
    if _is_tagged(sources, address, data):
        return "present"
    meter = Meter(session.activity.report, "write", manifest.label, manifest.size_bytes)
    mount_from = _same_registry(manifest, address)
    contents = {file.sha256: (file.size_bytes, _reader(chunks, file)) for file in manifest.files}
    uploads = [
        partial(_upload, registry, sources, sha256, size_bytes, read, mount_from, meter.add)
        for sha256, (size_bytes, read) in contents.items()
    ]
    if (sha256 := Sha256.of(config)) not in contents:
        uploads.append(
            partial(_upload, registry, sources, sha256, len(config), lambda start, end: [config[start:end]])
        )
    run_each(session, uploads)
    media_type = read_image(data, "the image").media_type
    sources.call(address.revision, lambda: registry.put_manifest(address.revision, data, media_type))
    return "uploaded"


def _upload(
    registry: ImageRegistry,
    sources: SourceSet,
    sha256: Sha256,
    size_bytes: int,
    read: Reader,
    mount_from: str = "",
    on_bytes: Callable[[int], None] = lambda _: None,
) -> None:
    """Upload a content unless the registry has it, and count its bytes."""
    key = f"blobs/{sha256}"
    told = 0
    if not sources.call(key, lambda: registry.has(sha256)):
        upload = registry.upload(sha256, size_bytes, read, mount_from)
        while not upload.done:
            sources.call(key, upload.step)
            if upload.sent_bytes > told:
                on_bytes(upload.sent_bytes - told)
                told = upload.sent_bytes
    on_bytes(size_bytes - told)


def _same_registry(manifest: Manifest, address: Address) -> str:
    """Return another repository of the registry that had the version, from which it may take the contents."""
    origin = imported_from(manifest.extra)
    if origin is None or origin.kind not in _KINDS or not origin.name.startswith(f"{address.repository[0]}/"):
        return ""
    name = Address("docker", origin.name).repository[1]
    return name if name != address.repository[1] else ""


def _reader(chunks: ChunkStore, file: ManifestFile) -> Reader:
    """Return what yields a part of a stored file, chunk by chunk, each hashed when it is read."""
    ids, lengths = file.chunk_list()
    sizes = [int(length) for length in lengths]
    ends = list(accumulate(sizes))

    def read(start: int, end: int) -> Iterator[bytes]:
        number = bisect_right(ends, start)
        while number < len(ends) and (at := ends[number] - sizes[number]) < end:
            chunk_id = id_bytes(ids, number)
            data = memoryview(chunks.read(chunk_id, chunks.row_of(chunk_id)))
            yield bytes(data[max(0, start - at) : end - at])
            number += 1

    return read
