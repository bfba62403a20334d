"""The types of what the API returns and tells, in one place for annotations."""

from __future__ import annotations

from yarnstore.core.loadcode import LoadedCode
from yarnstore.ops.amend import AmendResult
from yarnstore.ops.auto_update import (
    AutoUpdateModel,
    AutoUpdateOutcome,
    AutoUpdateRound,
    AutoUpdateStatus,
)
from yarnstore.ops.catalogue import MirrorInfo, Offer, RegistryInfo, VersionDetails
from yarnstore.ops.compat import CompatRow, CompatTable
from yarnstore.ops.diff import DiffResult, DiffSide, DiffTotals, FileDiff, StatusCounts
from yarnstore.ops.diff_tensors import TensorDiff
from yarnstore.ops.doctor import Check, DoctorResult
from yarnstore.ops.fetch import FetchResult
from yarnstore.ops.findings import FsckResult, Problem
from yarnstore.ops.gc import GcResult
from yarnstore.ops.gc_views import KeptView
from yarnstore.ops.history import History, HistoryMove, HistoryVersion
from yarnstore.ops.inspect import FileInfo, InspectResult, StoredAs, TensorInfo, TypeInfo
from yarnstore.ops.inventory import InstalledModel
from yarnstore.ops.lint import LintResult
from yarnstore.ops.local import ExportResult, ImportResult, RemoveResult
from yarnstore.ops.lock import LockedBuild, LockResult
from yarnstore.ops.moves import CheckoutResult
from yarnstore.ops.outdated import Update
from yarnstore.ops.pin import PinResult
from yarnstore.ops.progress import OnProgress, Progress
from yarnstore.ops.publish import PublishResult
from yarnstore.ops.queue import QueuedFetch, QueueRun
from yarnstore.ops.status import StoreStatus
from yarnstore.ops.takeover import TakenModel, TakeoverResult
from yarnstore.ops.timers import TimerFiles
from yarnstore.ops.update import UpdateResult, UpdateSummary
from yarnstore.ops.usage import StoredVersion
from yarnstore.registry.lifecycle import Change
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
