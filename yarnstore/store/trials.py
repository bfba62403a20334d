"""Records of versions that a self-check is testing, so that a killed process leaves none untested.

A record is one line of a reflog, the move that is tested, in `logs/trying/<model>`.  It is written before the
move is made, and removed after the check; meanwhile its process holds its lock.  Beginning one, and finding
those that killed processes left, are done within `Refs.moving`.  docs/format/store.md governs it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from yarnstore.core.limits import REFLOG_LINE_LIMIT_BYTES
from yarnstore.core.names import model_dirname, model_from_dirname
from yarnstore.core.reflog import Move, format_move, parse_move
from yarnstore.errors import FormatError, InvalidNameError, NotFoundError, SelfCheckError
from yarnstore.store import fsio, fsread, growing, trash
from yarnstore.store.layout import StoreLayout


@contextlib.contextmanager
def trying(layout: StoreLayout, model: str, move: Move) -> Iterator[None]:
    """Keep a record of a move that is being tested.

    If anything but the check ends this, the record stays, and the next command looks at what is installed
    then.
    """
    path = layout.trials / model_dirname(model)
    fsio.ensure_dir(path.parent)
    fsio.write_atomic(path, format_move(move), tmp_dir=layout.tmp)
    with growing.PartialFile(path) as record:
        try:
            yield
        except SelfCheckError:
            _remove(record)
            raise
        _remove(record)


def _remove(record: growing.PartialFile) -> None:
    if record.is_there():  # and not that of a process which tries another version by now
        record.remove()


@contextlib.contextmanager
def left_trials(layout: StoreLayout) -> Iterator[list[tuple[str, Move]]]:
    """Give the moves that killed processes left untested, with their models.

    Their records are removed if the context ends without an error.  A record that cannot be read goes into
    the trash.
    """
    found: list[tuple[str, Move]] = []
    with contextlib.ExitStack() as held:
        records = []
        for name in fsread.list_names(layout.trials):
            path = layout.trials / name
            record = held.enter_context(growing.PartialFile(path))
            if not record.locked:
                continue
            if not record.size_bytes:  # its process has removed it meanwhile: this made it again
                record.remove()
                continue
            try:
                data = fsread.read_bytes(path, REFLOG_LINE_LIMIT_BYTES + 1)
                found.append((model_from_dirname(name), parse_move(data.removesuffix(b"\n"))))
                records.append(record)
            except (FormatError, InvalidNameError, NotFoundError):
                trash.move_aside(path, layout.trash)
        yield found
        for record in records:
            record.remove()
