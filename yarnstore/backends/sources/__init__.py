"""Where files come from: several addresses, asked in order, and tried again.

A `SourceSet` has two calls for the engine: `get_checked`, a small file that a check accepts, and `stream`,
the ranges of a file until its receiver has verified all of them.

    sourceset      the loop over sources and tries
    tries          how often a source is tried, and how long to wait in between
    mirrors        the order of the mirrors, and which are put last
    faults         which source sent wrong bytes, and the error if all sources failed
    wanted         what a download wants of a file

docs/operations.md (mirrors and retries) governs the behaviour.
"""

from yarnstore.backends.sources.faults import EARLIER, BadPart
from yarnstore.backends.sources.mirrors import Fault, Kind, Mirror
from yarnstore.backends.sources.sourceset import Retrying, SourceSet
from yarnstore.backends.sources.tries import RetryPolicy, Sleep
from yarnstore.backends.sources.wanted import Kept, Wanted

__all__ = [
    "EARLIER",
    "BadPart",
    "Fault",
    "Kept",
    "Kind",
    "Mirror",
    "RetryPolicy",
    "Retrying",
    "Sleep",
    "SourceSet",
    "Wanted",
]
