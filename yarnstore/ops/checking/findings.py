"""The results of `fsck`: problems to report, and the damage for `repair`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal

from yarnstore.core.digest import PackId, Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.store.filepath import Path

Kind = Literal[
    "format",
    "folder",
    "ref",
    "log",
    "manifest",
    "index",
    "pack",
    "chunk",
    "file",
    "view",
    "link",
    "registry",
    "use",
    "seen",
    "record",
    "state",
]


@dataclass(frozen=True)
class Problem:
    """One problem that fsck found."""

    kind: Kind  #: The kind of thing that is damaged.
    where: str  #: The place, relative to the store.
    what: str  #: What is wrong with it.
    hurts: tuple[str, ...] = ()  #: The versions that it affects.


@dataclass(frozen=True)
class FsckResult:
    """The result of checking the store."""

    quick: bool  #: Whether contents were not read.
    models: int  #: How many models were checked.
    versions: int  #: How many versions were checked.
    chunks: int  #: How many chunks were checked.
    checked_bytes: int  #: How many bytes were read and hashed.
    seconds: float
    problems: list[Problem]  #: The problems that were found.
    repaired: list[str] = field(default_factory=list)  #: What `--repair` did, one sentence each.
    remaining: list[Problem] = field(default_factory=list)  #: The problems that `--repair` could not fix.
    sample: float | None = None  #: The share of the contents that `--sample` requested; None for all.
    stored_bytes: int = 0  #: How many bytes the packs and files have.


@dataclass
class Findings:
    """The findings of a check, as `ops/checking/repair` needs them."""

    problems: list[Problem] = field(default_factory=list)
    bad_refs: list[Path] = field(default_factory=list)
    bad_holds: list[Path] = field(default_factory=list)
    bad_logs: list[str] = field(default_factory=list)
    bad_manifests: list[Sha256] = field(default_factory=list)
    bad_indexes: list[PackId] = field(default_factory=list)
    bad_packs: list[PackId] = field(default_factory=list)
    bad_files: list[str] = field(default_factory=list)
    bad_views: list[Manifest] = field(default_factory=list)
    surplus: list[Path] = field(default_factory=list)  # in views, but in no manifest
    bad_links: list[str] = field(default_factory=list)
    bad_registries: list[str] = field(default_factory=list)
    bad_uses: list[Path] = field(default_factory=list)
    bad_records: list[Path] = field(default_factory=list)  # that begin again
    bad_folders: list[Path] = field(default_factory=list)  # files in place of folders
    bad_format: bool = False
    bad_state: bool = False
    manifests: dict[Sha256, Manifest] = field(default_factory=dict)
    users: dict[Sha256, set[str]] = field(default_factory=lambda: defaultdict(set))
    models: int = 0
    versions: int = 0
    chunks: int = 0
    checked_bytes: int = 0
    stored_bytes: int = 0
