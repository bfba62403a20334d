"""Exit codes by class of error, in one table."""

from __future__ import annotations

from yarnstore import errors

OK = 0
OTHER = 1
USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141  # as a shell reports a process that SIGPIPE ended

# The first class that an error is an instance of counts.
EXIT_CODES: tuple[tuple[type[errors.YarnstoreError], int], ...] = (
    (errors.UsageError, USAGE),
    (errors.NotFoundError, 3),
    (errors.IntegrityError, 4),
    (errors.BackendError, 5),
    (errors.IncompatibleError, 6),
    (errors.StorageError, 7),
    (errors.LockTimeoutError, 8),
    (errors.SelfCheckError, 9),
    (errors.CancelledError, INTERRUPTED),
    (errors.ConflictError, OTHER),
)

# What each code says, for docs/cli.md and the man pages.
MEANINGS = {
    0: "done",
    1: "another error; for `doctor`, something is to be mended",
    2: "the command line, a name or the settings cannot be read",
    3: "no such model, version, registry or file",
    4: "bytes are not what was promised; for `fsck`, something stays wrong; `registry lint` found errors",
    5: "a registry cannot be reached",
    6: "a version, a format or the machine does not fit",
    7: "the disk refused: full, read-only, no permission",
    8: "another process holds the store",
    9: "the self-check of a model refused what was installed; it was rolled back",
    10: "`outdated --exit-code`: there are updates",
    130: "interrupted; the same command goes on from there",
    141: "the reader of the output went away, as with `| head`",
}


def exit_code(error: errors.YarnstoreError) -> int:
    """The exit code for an error: 1 where its class has none of its own."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), OTHER)


def exit_code_of(code: str) -> int:
    """The exit code for an error of which only its `code` is left."""
    kinds: list[type[errors.YarnstoreError]] = [errors.YarnstoreError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        if kind.code == code:
            return next((number for base, number in EXIT_CODES if issubclass(kind, base)), OTHER)
    return OTHER
