"""The machine and application that a version must fit, as a value; `decide` compares them.

By itself, so that commands which decide nothing start without what decides.  Pure.
"""

from __future__ import annotations

import msgspec


class Host(msgspec.Struct, frozen=True):
    """The machine and application that a version must fit; an unknown value (None) refuses nothing.

    `variants` are preferred over the registry's first, the first of them most.
    """

    app_version: str | None = None
    ram_gb: float | None = None
    variants: tuple[str, ...] = ()
