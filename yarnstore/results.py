"""The types of what the API returns and tells, in one place for annotations."""

from __future__ import annotations

from yarnstore.ops.catalogue import Offer, RegistryInfo, VersionDetails
from yarnstore.ops.checkout import UpdateResult
from yarnstore.ops.fetch import FetchResult
from yarnstore.ops.fsck import FsckResult, Problem
from yarnstore.ops.gc import GcResult
from yarnstore.ops.history import History, HistoryMove, HistoryVersion
from yarnstore.ops.inventory import InstalledModel
from yarnstore.ops.local import ExportResult, ImportResult, PinResult, RemoveResult
from yarnstore.ops.moves import CheckoutResult
from yarnstore.ops.outdated import Update
from yarnstore.ops.progress import OnProgress, Progress
from yarnstore.ops.publish import PublishResult
from yarnstore.ops.status import StoreStatus

__all__ = [
    "CheckoutResult",
    "ExportResult",
    "FetchResult",
    "FsckResult",
    "GcResult",
    "History",
    "HistoryMove",
    "HistoryVersion",
    "ImportResult",
    "InstalledModel",
    "Offer",
    "OnProgress",
    "PinResult",
    "Problem",
    "Progress",
    "PublishResult",
    "RegistryInfo",
    "RemoveResult",
    "StoreStatus",
    "Update",
    "UpdateResult",
    "VersionDetails",
]
