"""A repository of a registry of images, with its credentials.

These are those of a registry that is configured at the same origin, else those of its host in netrc, else
those of Docker, podman and skopeo (`logins`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from yarnstore.core.oci import ACCEPTED
from yarnstore.errors import CancelledError
from yarnstore.ops.exchange.address import Address
from yarnstore.ops.exchange.images.logins import find_login
from yarnstore.ops.session.connections import source_at
from yarnstore.ops.session.session import Session

if TYPE_CHECKING:
    from yarnstore.backends import SourceSet
    from yarnstore.backends.images import ImageRegistry


def connect_repository(session: Session, address: Address) -> tuple[ImageRegistry, SourceSet]:
    """Return the repository of an address, and the same with retries.

    Raises: OfflineError, UsageError, ConfigError.
    """
    registries = session.registries
    source = source_at(address.url, registries.sources, registries.network)
    host = address.url.partition("://")[2].partition("/")[0]
    return registries.links.images(
        source,
        ACCEPTED,
        lambda: find_login(registries.network.login_files, host, address.repository[1], session.note),
    )


def run_each(session: Session, tasks: Sequence[Callable[[], None]]) -> None:
    """Run transfers, several at a time: as many as a download may have connections.

    After an error, or an interrupt, the others stop at their next block.

    Raises: the first error.
    """
    failed: list[BaseException] = []

    def check() -> None:
        if failed:
            raise CancelledError("another part of the image failed")

    def run(task: Callable[[], None]) -> None:
        try:
            check()
            task()
        except BaseException as error:  # noqa: BLE001 - is raised below
            failed.append(error)

    with session.activity.until(check), ThreadPoolExecutor(min(session.connections, len(tasks) or 1)) as pool:
        try:
            wait([pool.submit(run, task) for task in tasks])
        except BaseException as error:
            failed.append(error)
            raise
    if failed:
        raise failed[0]
