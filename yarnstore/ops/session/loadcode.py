"""Finds files that run code when they are loaded, reports them, and refuses them if the user's policy does.

`core/loadcode` finds code; docs/operations.md describes the policy.  Only the files are examined, not the
registry's statements about them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from yarnstore.core.layouts.model import Source
from yarnstore.core.limits import MIB
from yarnstore.core.loadcode import LoadedCode, find_code, find_named_code, is_config
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.core.pickles import Budget
from yarnstore.errors import PolicyError, YarnstoreError
from yarnstore.ops.session.session import Session
from yarnstore.progress import OnProgress, Progress
from yarnstore.registry.policies import LoadPolicy
from yarnstore.store import held
from yarnstore.store.layout import StoreLayout, file_name
from yarnstore.store.opentree import OpenTree
from yarnstore.store.source_files import Opener, list_few, look_into, open_stored

_CONFIG_LIMIT_BYTES = 8 * MIB
# How many files are listed one by one.
_SHOWN = 10


class CodeSearch:
    """The search for code in the files of one version, which are added one by one."""

    def __init__(self) -> None:
        self._budget = Budget()
        self._found: list[LoadedCode] = []
        self._configs: dict[str, bytes | None] = {}
        self._paths: list[str] = []

    def add(self, path: str, source: Source) -> None:
        """Check one file.  Raises: the errors of reading it."""
        self._paths.append(path)
        self._found += find_code(source, path, self._budget)
        if is_config(path):
            small = source.size <= _CONFIG_LIMIT_BYTES
            self._configs[path] = source.read(0, source.size) if small else None

    def finish(self) -> list[LoadedCode]:
        """Return the parts of the added files that run code, including pickles of plain data."""
        return self._found + find_named_code(self._configs, self._paths)


def find_in(files: Iterable[tuple[str, Opener]]) -> list[LoadedCode]:
    """Return the parts of one version's files that run code, including pickles of plain data.

    Raises: the errors of opening and reading them.
    """
    search = CodeSearch()
    look_into(files, search)
    return search.finish()


def find_in_version(session: Session, manifest: Manifest) -> list[LoadedCode]:
    """Return the parts of a version's materialised files that run code.

    Raises: StorageError, NotFoundError.
    """
    layout = session.layout
    with OpenTree(layout.root) as folder:
        return find_in(
            (file.path, partial(open_stored, folder, _place(layout, folder, file))) for file in manifest.files
        )


def _place(layout: StoreLayout, store: OpenTree, file: ManifestFile) -> str:
    """Return where a materialised file is, relative to the store's folder, which is open."""
    if store.stat_or_none(path := f"{layout.files.name}/{file_name(file)}") is not None:
        return path
    return held.find(layout, file_name(file)).path.relative_to(layout.root).as_posix()


def note_code(found: Sequence[LoadedCode], on_progress: OnProgress) -> None:
    """Report parts that run code, one line for each file."""
    told = [item for item in found if item.suspect]
    for item in told[:_SHOWN]:
        on_progress(Progress("note", "", text=f"warning: {item}"))
    if len(told) > _SHOWN:
        text = f"warning: {len(told) - _SHOWN} more files run code when they are loaded"
        on_progress(Progress("note", "", text=f"{text}   (`ystore inspect` lists them)"))


def refuse_code(found: Sequence[LoadedCode], policy: LoadPolicy, label: str) -> None:
    """Raise PolicyError if the policy does not allow the code."""
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
    """Check a version against the policy before it is used; with `tell`, also warn of code.

    Raises: PolicyError; StorageError, NotFoundError if it cannot be read and a policy applies.
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
