"""Files that run code when they are loaded: found, told, and refused where the user's policy says so.

What counts is `core/loadcode`'s; docs/operations.md has the policy.  By the bytes alone, whatever a registry
says of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from yarnstore.core.limits import MIB
from yarnstore.core.loadcode import LoadedCode, find_code, find_named_code, is_config
from yarnstore.core.manifest import Manifest
from yarnstore.core.pickles import Budget
from yarnstore.errors import PolicyError, YarnstoreError
from yarnstore.ops.session.session import Session
from yarnstore.progress import OnProgress, Progress
from yarnstore.registry.policies import LoadPolicy
from yarnstore.store.source_files import Opener, SourceFile, list_few, open_file, openers

_CONFIG_LIMIT_BYTES = 8 * MIB
# How many files are listed one by one.
_SHOWN = 10


def find_in(files: Iterable[tuple[str, Opener]]) -> list[LoadedCode]:
    """What runs code in the files of one version, each with its path, pickles of plain data too.

    Raises: as what opens and reads them.
    """
    budget = Budget()
    found: list[LoadedCode] = []
    configs: dict[str, bytes | None] = {}
    paths: list[str] = []
    for path, open_ in files:
        paths.append(path)
        with open_() as source:
            found += find_code(source, path, budget)
            if is_config(path):
                small = source.size <= _CONFIG_LIMIT_BYTES
                configs[path] = source.read(0, source.size) if small else None
    return found + find_named_code(configs, paths)


def find_in_sources(sources: Sequence[SourceFile]) -> list[LoadedCode]:
    """What runs code in a source's files.  Raises: StorageError, NotFoundError."""
    return find_in(openers(sources))


def find_in_version(session: Session, manifest: Manifest) -> list[LoadedCode]:
    """What runs code in a version whose files are materialised.  Raises: StorageError, NotFoundError."""
    return find_in((file.path, partial(open_file, session.layout.file(file))) for file in manifest.files)


def note_code(found: Sequence[LoadedCode], on_progress: OnProgress) -> None:
    """Say what runs code, a line for each file."""
    told = [item for item in found if item.suspect]
    for item in told[:_SHOWN]:
        on_progress(Progress("note", "", text=f"warning: {item}"))
    if len(told) > _SHOWN:
        text = f"warning: {len(told) - _SHOWN} more files run code when they are loaded"
        on_progress(Progress("note", "", text=f"{text}   (ystore inspect lists them)"))


def refuse_code(found: Sequence[LoadedCode], policy: LoadPolicy, label: str) -> None:
    """Raises: PolicyError for what the policy does not allow."""
    for kind, allowed in (("pickle", policy.allow_pickle), ("code", policy.allow_code)):
        refused = [item for item in found if item.kind == kind]
        if refused and not allowed:
            raise PolicyError(
                label,
                f"allow_{kind}",
                list_few([str(item) for item in refused], "; "),
                paths=[item.path for item in refused],
            )


def admit_version(session: Session, manifest: Manifest, tell: bool) -> None:
    """Look into a version before it is given to anybody; with `tell`, warn of what runs code.

    Raises: PolicyError; StorageError, NotFoundError where it cannot be read and a policy needs it.
    """
    policy = session.load_policy
    if not policy.restricts and not tell:
        return
    try:
        found = find_in_version(session, manifest)
    except YarnstoreError:
        if policy.restricts:
            raise
        return
    refuse_code(found, policy, manifest.label)
    if tell:
        note_code(found, session.activity.report)
