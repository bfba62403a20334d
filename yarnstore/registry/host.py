"""The machine and application that a version must fit, as a value; `decide` compares them.

A separate module, so that commands which choose no version start without `decide`.  Pure.
"""

from __future__ import annotations

import msgspec


class Host(msgspec.Struct, frozen=True):
    """The machine and application that a version must fit; an unknown value (None) excludes nothing.

    `variants` are preferred to the registry's first, in their order.
    """

    app_version: str | None = None
    ram_gb: float | None = None
    variants: tuple[str, ...] = ()
