"""Where files come from: several addresses, asked in order, and tried again.

A `SourceSet` has two calls for the engine: `get_checked`, a small file that a check accepts, and `stream`,
the ranges of a file until its receiver has verified all of them.
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
