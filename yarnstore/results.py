"""The types of what the API returns and tells, in one place for annotations."""

from __future__ import annotations

from yarnstore.ops.catalogue import Offer, RegistryInfo, VersionDetails
from yarnstore.ops.checkout import UpdateResult
from yarnstore.ops.diff import DiffResult, DiffSide, DiffTotals, FileDiff, StatusCounts
from yarnstore.ops.diff_tensors import TensorDiff
from yarnstore.ops.fetch import FetchResult
from yarnstore.ops.fsck import FsckResult, Problem
from yarnstore.ops.gc import GcResult
from yarnstore.ops.history import History, HistoryMove, HistoryVersion
from yarnstore.ops.inspect import FileInfo, InspectResult, StoredAs, TensorInfo, TypeInfo
from yarnstore.ops.inventory import InstalledModel
from yarnstore.ops.local import ExportResult, ImportResult, PinResult, RemoveResult
from yarnstore.ops.moves import CheckoutResult
from yarnstore.ops.outdated import Update
from yarnstore.ops.progress import OnProgress, Progress
from yarnstore.ops.publish import PublishResult
from yarnstore.ops.status import StoreStatus

__all__ = [
    "CheckoutResult",
    "DiffResult",
    "DiffSide",
    "DiffTotals",
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
    "Offer",
    "OnProgress",
    "PinResult",
    "Problem",
    "Progress",
    "PublishResult",
    "RegistryInfo",
    "RemoveResult",
    "StatusCounts",
    "StoreStatus",
    "StoredAs",
    "TensorDiff",
    "TensorInfo",
    "TypeInfo",
    "Update",
    "UpdateResult",
    "VersionDetails",
]
