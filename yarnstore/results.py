"""The types of what the API returns and tells, in one place for annotations."""

from __future__ import annotations

from yarnstore.core.loadcode import LoadedCode
from yarnstore.ops.fetching.fetch import FetchResult
from yarnstore.ops.fetching.queue import QueuedFetch, QueueRun
from yarnstore.ops.inspecting.diff import DiffResult, DiffSide, DiffTotals, FileDiff, StatusCounts
from yarnstore.ops.inspecting.inspect import FileInfo, InspectResult, StoredAs, TensorInfo, TypeInfo
from yarnstore.ops.inspecting.tensors import TensorDiff
from yarnstore.ops.installing.activate import CheckoutResult
from yarnstore.ops.installing.auto_update import (
    AutoUpdateModel,
    AutoUpdateOutcome,
    AutoUpdateRound,
    AutoUpdateStatus,
)
from yarnstore.ops.installing.from_lock import LockedBuild, LockResult
from yarnstore.ops.installing.outdated import Update
from yarnstore.ops.installing.pin import PinResult
from yarnstore.ops.installing.timers import TimerFiles
from yarnstore.ops.installing.update import UpdateSummary
from yarnstore.ops.installing.update_plan import UpdateResult
from yarnstore.ops.local.import_export import ExportResult, ImportResult, RemoveResult
from yarnstore.ops.local.takeover import TakenModel, TakeoverResult
from yarnstore.ops.publishing.amend import AmendResult
from yarnstore.ops.publishing.lint import LintResult
from yarnstore.ops.publishing.publish import PublishResult
from yarnstore.ops.querying.catalogue import MirrorInfo, Offer, RegistryInfo, VersionDetails
from yarnstore.ops.querying.compat import CompatRow, CompatTable
from yarnstore.ops.querying.history import History, HistoryMove, HistoryVersion
from yarnstore.ops.querying.inventory import InstalledModel
from yarnstore.ops.querying.status import StoreStatus
from yarnstore.ops.querying.usage import StoredVersion
from yarnstore.ops.upkeep.doctor import Check, DoctorResult
from yarnstore.ops.upkeep.findings import FsckResult, Problem
from yarnstore.ops.upkeep.gc import GcResult
from yarnstore.ops.upkeep.gc_views import KeptView
from yarnstore.progress import OnProgress, Progress
from yarnstore.registry.decide import Change
from yarnstore.registry.standing import Standing

__all__ = [
    "AmendResult",
    "AutoUpdateModel",
    "AutoUpdateOutcome",
    "AutoUpdateRound",
    "AutoUpdateStatus",
    "Change",
    "Check",
    "CheckoutResult",
    "CompatRow",
    "CompatTable",
    "DiffResult",
    "DiffSide",
    "DiffTotals",
    "DoctorResult",
    "ExportResult",
    "FetchResult",
    "FileDiff",
    "FileInfo",
    "FsckResult",
    "GcResult",
    "History",
    "HistoryMove",
    "HistoryVersion",
    "ImportResult",
    "InspectResult",
    "InstalledModel",
    "KeptView",
    "LintResult",
    "LoadedCode",
    "LockResult",
    "LockedBuild",
    "MirrorInfo",
    "Offer",
    "OnProgress",
    "PinResult",
    "Problem",
    "Progress",
    "PublishResult",
    "QueueRun",
    "QueuedFetch",
    "RegistryInfo",
    "RemoveResult",
    "Standing",
    "StatusCounts",
    "StoreStatus",
    "StoredAs",
    "StoredVersion",
    "TakenModel",
    "TakeoverResult",
    "TensorDiff",
    "TensorInfo",
    "TimerFiles",
    "TypeInfo",
    "Update",
    "UpdateResult",
    "UpdateSummary",
    "VersionDetails",
]
