"""The types of what the API returns and reports, in one place for annotations.

Each is imported from its module when it is first used: most are defined beside the operations that make
them, which need numpy.  `results.pyi` beside this file says the same to type checkers, and is written by
`make docs`.
"""

from __future__ import annotations

import importlib

_NAMES = {
    "yarnstore.core.loadcode": ("LoadedCode",),
    "yarnstore.ops.exchange.adopt": ("AdoptResult", "CopiedFile", "ReplacedFile", "SimilarFile"),
    "yarnstore.ops.exchange.identify": ("IdentifiedFile",),
    "yarnstore.ops.exchange.knowledge": ("KnownFile",),
    "yarnstore.ops.fetching.fetch": ("FetchResult",),
    "yarnstore.ops.fetching.queue": ("QueuedFetch", "QueueRun"),
    "yarnstore.ops.inspecting.contents": ("VersionFile", "VersionFiles"),
    "yarnstore.ops.inspecting.diff": ("DiffResult", "DiffSide", "DiffTotals", "FileDiff", "StatusCounts"),
    "yarnstore.ops.inspecting.inspect": ("FileInfo", "InspectResult", "StoredAs", "TensorInfo", "TypeInfo"),
    "yarnstore.ops.inspecting.readme": ("Readme",),
    "yarnstore.ops.inspecting.stored_file": ("StoredFile",),
    "yarnstore.ops.inspecting.tensors": ("TensorDiff",),
    "yarnstore.ops.installing.activate": ("CheckoutResult",),
    "yarnstore.ops.installing.auto_update": (
        "AutoUpdateModel",
        "AutoUpdateOutcome",
        "AutoUpdateRound",
        "AutoUpdateStatus",
    ),
    "yarnstore.ops.installing.from_lock": ("LockedBuild", "LockResult"),
    "yarnstore.ops.installing.outdated": ("Update",),
    "yarnstore.ops.installing.pin": ("PinResult",),
    "yarnstore.ops.installing.timers": ("TimerFiles",),
    "yarnstore.ops.installing.update": ("UpdateSummary",),
    "yarnstore.ops.installing.update_plan": ("UpdateResult",),
    "yarnstore.ops.local.import_export": ("ExportResult", "ImportResult"),
    "yarnstore.ops.local.move": ("MoveResult",),
    "yarnstore.ops.local.removal": ("RemovedVersion", "RemoveResult", "RestoreResult"),
    "yarnstore.ops.local.takeover": ("TakenModel", "TakeoverResult"),
    "yarnstore.ops.publishing.amend": ("AmendResult",),
    "yarnstore.ops.publishing.lint": ("LintResult",),
    "yarnstore.ops.publishing.optimize": ("OptimizeResult", "RegistryDelta"),
    "yarnstore.ops.publishing.publish": ("PublishResult",),
    "yarnstore.ops.querying.catalogue": ("MirrorInfo", "Offer", "RegistryInfo", "VersionDetails"),
    "yarnstore.ops.querying.compat": ("CompatRow", "CompatTable"),
    "yarnstore.ops.querying.history": ("History", "HistoryMove", "HistoryVersion"),
    "yarnstore.ops.querying.inventory": ("InstalledModel",),
    "yarnstore.ops.querying.statistics": (
        "FailureStatistics",
        "ModelStatistics",
        "OperationStatistics",
        "Statistics",
    ),
    "yarnstore.ops.querying.status": ("StoreStatus",),
    "yarnstore.ops.querying.storage": ("StorageModel", "StorageOther", "StorageUsage", "StorageVersion"),
    "yarnstore.ops.querying.usage": ("StoredVersion",),
    "yarnstore.ops.checking.doctor": ("DoctorResult",),
    "yarnstore.ops.checking.doctor_disk": ("Check",),
    "yarnstore.ops.checking.findings": ("FsckResult", "Problem"),
    "yarnstore.ops.upkeep.gc": ("GcResult",),
    "yarnstore.ops.upkeep.gc_items": ("GcForecast", "GcItem"),
    "yarnstore.ops.upkeep.gc_views": ("KeptView",),
    "yarnstore.progress": ("OnProgress", "Progress"),
    "yarnstore.registry.decide": ("Change",),
    "yarnstore.registry.standing": ("Standing",),
    "yarnstore.settings.editable": ("SettingInfo",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """Import a type from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(importlib.import_module(_HOMES[name]), name)
    return found
