"""`registry lint`: find all problems of a registry, in a folder, at a URL or in one file.

Reads the registry, and with `deep` checks that its manifests and packs exist and agree (`lint_deep`).
`registry/lint` has the rules of the JSON; docs/registry.md governs them.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from yarnstore.backends import Backend, connect_file, is_remote
from yarnstore.backends.urls import bare_address, check_address, shown, tidy_address
from yarnstore.core.limits import REGISTRY_LIMIT_BYTES, REGISTRY_MODEL_LIMIT_BYTES
from yarnstore.core.names import model_from_dirname
from yarnstore.errors import InvalidNameError, MissingKeyError, NotFoundError, UsageError
from yarnstore.ops.publishing.lint_deep import DeepLint
from yarnstore.ops.publishing.tree import RegistryFolder
from yarnstore.ops.session.connections import connect_source, source_at
from yarnstore.ops.session.model_files import model_key
from yarnstore.ops.session.sources import Network, RegistrySource
from yarnstore.progress import OnProgress, ignore
from yarnstore.registry.entries import ModelEntry
from yarnstore.registry.lint import Finding, Linted, is_model_document, lint_model, lint_registry
from yarnstore.store import fsread, paths
from yarnstore.store.filepath import Path
from yarnstore.store.registry_cache import REGISTRY_FILE


@dataclass(frozen=True)
class LintResult:
    """The result of checking a registry."""

    source: str  #: What was checked.
    models: int  #: How many models were checked.
    versions: int  #: How many versions were checked.
    deep: bool  #: Whether manifests and packs were compared with the entries.
    findings: list[Finding]  #: The problems, errors first.
    seconds: float

    @property
    def errors(self) -> int:
        """The number of errors."""
        return sum(item.severity == "error" for item in self.findings)

    @property
    def warnings(self) -> int:
        """The number of warnings."""
        return len(self.findings) - self.errors


def lint(
    source: str,
    *,
    models: tuple[str, ...] = (),
    deep: bool = False,
    decode: bool = False,
    sources: tuple[RegistrySource, ...] = (),
    network: Network | None = None,
    on_progress: OnProgress = ignore,
    check: Callable[[], None] | None = None,
) -> LintResult:
    """Check the registry at a folder or a URL, or one `registry.json` or `models/<model>.json`.

    A URL is read with the settings of `network`, and with the credentials that one of `sources` has for it.

    `models` limits it to some models; of a split registry at a URL, which cannot be listed, only these are
    checked.  `deep` compares manifests and indexes, `decode` also reads every pack and hashes every file.
    `check` is called while a server is silent, and may raise to stop.

    Raises: NotFoundError, BackendError, UsageError.
    """
    started = time.perf_counter()
    source = bare_address(source)
    if source.endswith("/index.html"):
        source = tidy_address(source)
    where = shown(source)
    path = _local(source)
    if path is not None and not path.is_dir():
        linted = _lint_file(path, source, deep=deep or decode)
    else:
        backend, key = _reach(source, path, sources, network or Network(), deep=deep or decode, check=check)
        linted = _lint_tree(
            where, path, backend, key, models, deep=deep, decode=decode, on_progress=on_progress
        )
    if models:
        missing = [model for model in models if model not in linted.models]
        linted = Linted(
            [
                *linted.findings,
                *(Finding("error", f"$.models[{m!r}]", "does not exist") for m in missing),
            ],
            linted.models,
        )
    findings = sorted(linted.findings, key=lambda item: item.severity == "warning")
    return LintResult(
        source=where,
        models=len(linted.models),
        versions=sum(len(entry.versions) for entry in linted.models.values()),
        deep=deep or decode,
        findings=findings,
        seconds=round(time.perf_counter() - started, 3),
    )


def _local(source: str) -> Path | None:
    """Return the path in an argument; None for a URL."""
    return None if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", source) else paths.source_path(source)


def _lint_file(path: Path, source: str, *, deep: bool) -> Linted:
    if fsread.stat_or_none(path) is None:
        check_address(source)
        raise paths.missing("registry", path)
    if deep:
        raise UsageError("--deep needs the whole registry, not a single file", hint="give its folder")
    return _lint_document(fsread.read_bytes(paths.follow(path), REGISTRY_LIMIT_BYTES), path.name)


def _lint_document(data: bytes, name: str) -> Linted:
    if not is_model_document(data):
        return lint_registry(data, now=datetime.now(UTC))
    model = ""
    with contextlib.suppress(InvalidNameError):  # then it has to name its model itself
        model = model_from_dirname(name.removesuffix(".json"))
    return lint_model(data, model=model)


def _reach(
    source: str,
    path: Path | None,
    sources: tuple[RegistrySource, ...],
    network: Network,
    *,
    deep: bool,
    check: Callable[[], None] | None,
) -> tuple[Backend, str]:
    """Return the backend, and the key of the first document to check."""
    if path is not None or not urlsplit(source).path.endswith(".json"):
        own = source_at(source, sources, network)
        return connect_source(own, source, network, check=check), REGISTRY_FILE
    if deep:
        raise UsageError("--deep needs the whole registry, not a single file", hint="give its base URL")
    if not is_remote(source):
        return connect_file(source)
    bare = source.partition("?")[0]
    folder = bare.rpartition("/")[0] + "/"
    # A query belongs to the address of a file, but not to a key below a folder.
    key = bare[len(folder) :] if bare == source else source
    return connect_source(source_at(folder, sources, network), folder, network, check=check), key


def _lint_tree(
    source: str,
    path: Path | None,
    backend: Backend,
    key: str,
    models: tuple[str, ...],
    *,
    deep: bool,
    decode: bool,
    on_progress: OnProgress,
) -> Linted:
    try:
        data = _get(backend, key, REGISTRY_LIMIT_BYTES)
        if data is None:
            raise NotFoundError("registry", source, hint=f"{REGISTRY_FILE} is missing")
        if key != REGISTRY_FILE:
            return _lint_document(data, urlsplit(source).path.rpartition("/")[2])
        linted = lint_registry(data, now=datetime.now(UTC))
        if linted.split:
            linted = _lint_split(backend, path, linted, models)
        elif path is not None:
            linted = Linted([*linted.findings, *_own_files(backend, path, linted)], linted.models)
        if models:
            chosen = {model: entry for model, entry in linted.models.items() if model in models}
            linted = Linted(linted.findings, chosen, linted.split)
        if deep or decode:
            if decode and path is None:
                raise UsageError("--decode reads every pack, and needs the registry's folder, not its URL")
            looked = DeepLint(backend, path, on_progress, decode)
            found = looked.check(linted.models, split=linted.split)
            linted = Linted([*linted.findings, *found], linted.models)
        return linted
    finally:
        backend.close()


def _get(backend: Backend, key: str, limit_bytes: int) -> bytes | None:
    try:
        answer = backend.get(key, limit_bytes=limit_bytes)
    except MissingKeyError:
        return None
    return answer.data if answer is not None else None


def _lint_split(backend: Backend, path: Path | None, linted: Linted, models: tuple[str, ...]) -> Linted:
    findings = list(linted.findings)
    found: dict[str, ModelEntry] = {}
    names = models or tuple(RegistryFolder(path).models() if path is not None else ())
    if not names and path is None:
        why = "is split, and cannot be listed over HTTP: give models with --model, or lint its folder"
        findings.append(Finding("warning", "$.split", why))
    for model in names:
        data = _get(backend, model_key(model), REGISTRY_MODEL_LIMIT_BYTES)
        if data is None:
            continue
        own = lint_model(data, model=model)
        findings += [_in_file(item, model) for item in own.findings]
        found.update(own.models)
    return Linted(findings, found, split=True)


def _in_file(item: Finding, model: str) -> Finding:
    return Finding(item.severity, f"{model_key(model)}{item.path}", item.message)


def _own_files(backend: Backend, path: Path, linted: Linted) -> list[Finding]:
    """Return the differences between the models' own files and `registry.json`, which must be equal."""
    findings = []
    for model in RegistryFolder(path).models():
        data = _get(backend, model_key(model), REGISTRY_MODEL_LIMIT_BYTES)
        entry = linted.models.get(model)
        if data is None or entry is None:
            if data is not None:
                findings.append(
                    Finding("warning", model_key(model), f"exists, but is not in {REGISTRY_FILE}")
                )
        elif lint_model(data, model=model).models.get(model) != entry:
            findings.append(Finding("error", model_key(model), f"differs from {REGISTRY_FILE}"))
    return findings
