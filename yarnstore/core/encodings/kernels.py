"""Which code transforms the bytes of chunks: C where it was built, numpy elsewhere; the bytes are the same.

Owns: the choice, made when an encoding is first imported.
"""

from __future__ import annotations

import contextlib

from yarnstore import machine
from yarnstore.core.encodings.transforms import VERSION, Kernels

_built: Kernels | None = None
if machine.wanted_kernels() != "numpy":
    with contextlib.suppress(ImportError):  # where no compiler was
        from yarnstore.core.encodings import _kernels

        if _kernels.VERSION == VERSION:
            _built = _kernels

if _built is not None:
    kernels = _built
else:
    from yarnstore.core.encodings import numpy_kernels

    kernels = numpy_kernels
