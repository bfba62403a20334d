"""Images of a version with tar layers, which container runtimes mount or unpack: Kubernetes' image volumes.

The largest files have a layer each, so that an update brings only those that changed; the others share one.
A runtime counts on the digests of tar archives, which are known only once the content was read: that is done
when the image is asked for, and remembered.  Source: the OCI image specification, layer.md and config.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import tarfile
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import closing

import msgspec

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import MIB
from yarnstore.core.oci import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, OCI_TAR, descriptor
from yarnstore.results import VersionFile, VersionFiles
from yarnstore.web.faces.digests import LIMIT
from yarnstore.web.faces.joined import Joined, Part, size_of
from yarnstore.web.faces.library import Library
from yarnstore.web.faces.shapes import Image, ImageLayer

# File systems of containers are stacks of layers, of which the kernel takes 128 at the least.
_OWN_LAYERS = 64
_OWN_LAYER_BYTES = MIB
# By such names a layer removes files of those below it (layer.md, Whiteouts); it cannot contain one.
_WHITEOUT = ".wh."
# A runtime takes an image whose platform is its own; the files are for any.
_ARCHITECTURES = ("amd64", "arm64")
_BLOCK_BYTES = MIB
_RECORD = tarfile.BLOCKSIZE
_END = bytes(2 * _RECORD)


class Volumes:
    """Makes the images, and remembers the digests of their layers."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._digests: OrderedDict[str, str] = OrderedDict()
        self._turns: dict[str, asyncio.Lock] = {}

    async def images(self, found: VersionFiles) -> list[Image]:
        """Return the index of a version's images, then the image for each processor; nothing if a file has a
        name that layers cannot contain.

        Reads the whole version once.  Raises: FillingError, YarnstoreError.
        """
        if any(f"/{_WHITEOUT}" in f"/{file.path}" for file in found.files):
            return []
        layers = [ImageLayer(await self._digest(found, parts), parts) for parts in archives(found.files)]
        images = [_image(found, layers, architecture) for architecture in _ARCHITECTURES]
        index = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [
                {
                    **descriptor(OCI_MANIFEST, Sha256.of(image.manifest), len(image.manifest)),
                    "platform": {"architecture": architecture, "os": "linux"},
                }
                for architecture, image in zip(_ARCHITECTURES, images, strict=True)
            ],
        }
        return [Image(found, msgspec.json.encode(index), OCI_INDEX, b"", ()), *images]

    async def _digest(self, found: VersionFiles, parts: Sequence[Part]) -> str:
        names = [Sha256.of(part).hex if isinstance(part, bytes) else part.sha256 for part in parts]
        key = Sha256.of(" ".join(names).encode()).hex
        if key not in self._digests:
            # All clients wait for a download together, and then for one that reads.
            with closing(await self._library.open_parts(found, parts)) as content:
                async with self._turns.setdefault(key, asyncio.Lock()):
                    if key not in self._digests:
                        self._digests[key] = await asyncio.to_thread(_hash, content, size_of(parts))
            self._turns.pop(key, None)
            if len(self._digests) > LIMIT:
                self._digests.popitem(last=False)
        self._digests.move_to_end(key)
        return self._digests[key]


def archives(files: Sequence[VersionFile]) -> list[tuple[Part, ...]]:
    """Return the tar archives of a version's files, each as the parts that it consists of."""
    large = [file for file in files if file.size_bytes >= _OWN_LAYER_BYTES]
    large = sorted(large, key=lambda file: (-file.size_bytes, file.path))[:_OWN_LAYERS]
    own = {file.path for file in large}
    rest = [file for file in files if file.path not in own]
    groups = [*([rest] if rest else []), *([file] for file in files if file.path in own)]
    return [_archive(group) for group in groups]


def _archive(files: Sequence[VersionFile]) -> tuple[Part, ...]:
    parts: list[Part] = []
    between = b""
    for file in files:
        entry = tarfile.TarInfo(file.path)
        entry.size, entry.mode = file.size_bytes, 0o755 if file.executable else 0o644
        parts += [between + entry.tobuf(tarfile.PAX_FORMAT), file]
        between = bytes(-file.size_bytes % _RECORD)
    return (*parts, between + _END)


def _hash(content: Joined, size_bytes: int) -> str:
    digest = hashlib.sha256()
    for at in range(0, size_bytes, _BLOCK_BYTES):
        digest.update(content.read_at(at, _BLOCK_BYTES))
    return f"sha256:{digest.hexdigest()}"


def _image(found: VersionFiles, layers: Sequence[ImageLayer], architecture: str) -> Image:
    config = msgspec.json.encode(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        }
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, Sha256.of(config), len(config)),
        "layers": [descriptor(OCI_TAR, Sha256.parse(layer.digest), layer.size_bytes) for layer in layers],
    }
    return Image(found, msgspec.json.encode(manifest), OCI_MANIFEST, config, layers)
