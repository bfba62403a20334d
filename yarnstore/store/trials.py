"""Records of running self-checks, so that a version is tested or reverted even if the process is killed.

A record is one line of a reflog, the tested move, in `logs/trying/<model>`.  It is written before the move,
and removed after the check; meanwhile its process holds its lock.  Records are made, and those of killed
processes found, within `Refs.moving`.  docs/format/store.md governs it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from yarnstore.core.limits import REFLOG_LINE_LIMIT_BYTES
from yarnstore.core.names import model_dirname, model_from_dirname
from yarnstore.core.reflog import Move, format_move, parse_move
from yarnstore.errors import FormatError, InvalidNameError, NotFoundError, SelfCheckError
from yarnstore.store import fsio, fsread, growing, lock, trash
from yarnstore.store.layout import StoreLayout


@contextlib.contextmanager
def trying(layout: StoreLayout, model: str, move: Move) -> Iterator[None]:
    """Keep a record of a move that is being tested.

    If something other than the check ends the context, the record is kept, and the next command handles it.
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
    if record.is_there():  # and not one of another process
        record.remove()


def any_left(layout: StoreLayout) -> bool:
    """Whether a killed process left a record."""
    for name in fsread.list_names(layout.trials):
        with lock.claimed(layout.trials / name) as left:
            if left:
                return True
    return False


@contextlib.contextmanager
def left_trials(layout: StoreLayout) -> Iterator[list[tuple[str, Move]]]:
    """Yield the moves that killed processes left untested, with their models.

    Their records are removed if the context ends without an error.  An unreadable record is moved to the
    trash.
    """
    found: list[tuple[str, Move]] = []
    with contextlib.ExitStack() as held:
        records = []
        for name in fsread.list_names(layout.trials):
            path = layout.trials / name
            record = held.enter_context(growing.PartialFile(path))
            if not record.locked:
                continue
            if not record.size_bytes:  # its process removed it meanwhile, and locking made it again
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
