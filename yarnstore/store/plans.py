"""What getting a version would bring over the wire, as it was planned last: so that asking again what is
new asks for no manifest and no index again.

docs/format/store.md governs `registries/<name>/plans.json`.  It is a cache: a plan counts as long as the
store holds the same packs and files, and one that cannot be read is one that is not there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import msgspec

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import MIB
from yarnstore.errors import FormatError, NotFoundError, StorageError
from yarnstore.store import fsio, fsread
from yarnstore.store.layout import StoreLayout

PLANS_FILE = "plans.json"
# A machine has few models; more are not worth keeping.
_PLANS_LIMIT = 1000


class _Plan(msgspec.Struct, frozen=True):
    """`given` hashes all that the plan was made from."""

    given: str
    bytes: int


def plan_basis(layout: StoreLayout, offered: Iterable[str]) -> str:
    """What a plan is made from, as one digest: what the store holds, and the packs that are offered."""
    held = (*fsread.list_names(layout.root / "packs"), "", *fsread.list_names(layout.files))
    return Sha256.of("\n".join((*held, "", *offered)).encode()).hex


def read_plan(layout: StoreLayout, registry: str, manifest: Sha256, basis: str) -> int | None:
    """The bytes that were planned for a version; None where it was not, or from something else."""
    plan = _read(layout, registry).get(manifest.hex)
    return plan.bytes if plan is not None and plan.given == basis else None


def write_plan(layout: StoreLayout, registry: str, manifest: Sha256, basis: str, planned: int) -> None:
    """Keep a plan, where the store can be written."""
    plans = _read(layout, registry)
    plans.pop(manifest.hex, None)
    plans[manifest.hex] = _Plan(basis, planned)
    newest = dict(list(plans.items())[-_PLANS_LIMIT:])
    with contextlib.suppress(StorageError):
        path = layout.registry(registry) / PLANS_FILE
        fsio.write_atomic(path, msgspec.json.encode(newest), tmp_dir=layout.tmp)


def _read(layout: StoreLayout, registry: str) -> dict[str, _Plan]:
    with contextlib.suppress(
        NotFoundError, FormatError, StorageError, msgspec.DecodeError, UnicodeDecodeError, RecursionError
    ):
        data = fsread.read_bytes(layout.registry(registry) / PLANS_FILE, MIB)
        return msgspec.json.decode(data, type=dict[str, _Plan])
    return {}
