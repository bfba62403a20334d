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
    1: "another error; for `doctor`, a problem was found",
    2: "invalid command line, name or settings",
    3: "no such model, version, registry or file",
    4: "data is corrupt; for `fsck`, problems remain; for `registry lint`, errors were found",
    5: "a registry cannot be reached",
    6: "a version or format is not compatible with the application or this machine, or is not allowed",
    7: "the disk cannot be written: full, read-only or no permission",
    8: "another process is using the store",
    9: "the self-check of a model failed; the installation was rolled back",
    10: "`outdated --exit-code`: updates exist",
    130: "interrupted; run the same command again to continue",
    141: "the reader of the output closed it, as with `| head`",
}


def exit_code(error: errors.YarnstoreError) -> int:
    """The exit code for an error: 1 if its class has no other."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), OTHER)


def exit_code_of(code: str) -> int:
    """The exit code for an error that is known only by its `code`."""
    kinds: list[type[errors.YarnstoreError]] = [errors.YarnstoreError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        if kind.code == code:
            return next((number for base, number in EXIT_CODES if issubclass(kind, base)), OTHER)
    return OTHER
