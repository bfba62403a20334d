"""`ystore registry`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.commands.registry_edit import PUBLISHERS
from yarnstore.cli.display import clean, format_age, format_iso_age
from yarnstore.cli.group import Group
from yarnstore.errors import NotFoundError
from yarnstore.progress import plural

if TYPE_CHECKING:
    from yarnstore.results import MirrorInfo, RegistryInfo

_FAILED = 5


@click.group(
    "registry", cls=Group, epilog="\b\nExample:\n  ystore registry add yarn https://models.example.org/"
)
def cli() -> None:
    """Manage registries, as a user and as a publisher."""


@command(
    "add", example="ystore registry add yarn https://models.example.org/\nystore registry add here ./registry"
)
@click.argument("name")
@click.argument("url")
def _add(run: Invocation, name: str, url: str) -> None:
    """Add a registry: an http(s):// or file:// URL, or a path.

    A bearer token is read from YSTORE_TOKEN_NAME, with NAME in upper case.
    """
    with run.store() as store:
        info = store.add_registry(name, url)
    run.output.done(info, lambda: _text(info), (info.name, info.models, info.versions, info.url))


@command("list", example="ystore registry list")
def _list(run: Invocation) -> None:
    """List configured registries in their order.

    If several registries have a model, the first one is used.
    """
    with run.store() as store:
        found = store.list_registries()
    people = run.output.for_people
    unknown = "–" if people else ""
    rows = [
        (
            item.name,
            unknown if item.split else str(item.models),
            unknown if item.split else str(item.versions),
            format_age(item.fetched_ms) if people else str(item.fetched_ms),
            item.url,
            _remarks(item),
        )
        for item in found
    ]
    header = ("NAME", "MODELS", "VERSIONS", "FETCHED", "URL", "")
    run.output.rows(
        found, header, rows, "no registry is configured   (add one: ystore registry add NAME URL)"
    )


@command(
    "mirrors",
    example="ystore registry mirrors yarn\n"
    "ystore registry mirrors yarn https://mirror.example.org/ /mnt/models\n"
    "ystore registry mirrors yarn --none",
)
@click.argument("name")
@click.argument("urls", nargs=-1, metavar="[URL]...")
@click.option("--none", "clear", is_flag=True, help="Remove the configured mirrors.")
def _mirrors(run: Invocation, name: str, urls: tuple[str, ...], clear: bool) -> None:
    """Show or replace the mirrors of a registry.

    The given URLs replace those that were configured.  Mirrors are tried in the given order if the
    registry's main address fails.  They may also serve its index, so add only mirrors that you trust.
    """
    if clear and urls:
        raise click.UsageError("--none cannot be combined with a URL")
    with run.store() as store:
        if clear or urls:
            store.set_mirrors(name, urls)
        info = next((item for item in store.list_registries() if item.name == name), None)
    if info is None:
        raise NotFoundError("registry", name, hint="`ystore registry list` lists the registries")
    others = [mirror for mirror in info.mirrors if mirror.url != info.url]
    rows = [(mirror.url, "config" if mirror.configured else "registry", _health(mirror)) for mirror in others]
    run.output.rows(info, ("URL", "SET BY", ""), rows, f"{info.name} has no mirrors")


@command("refresh", example="ystore registry refresh\nystore registry refresh yarn --accept-rollback")
@click.argument("name", required=False)
@click.option(
    "--accept-rollback", is_flag=True, help="Accept an index of NAME that is older than the last one."
)
def _refresh(run: Invocation, name: str | None, accept_rollback: bool) -> None:
    """Fetch the newest index of all registries, or of NAME.

    An index that is older than the last one is refused, since an attacker may be hiding updates.
    One failing registry does not stop the others; the exit code is then 5.
    """
    if accept_rollback and name is None:
        raise click.UsageError("--accept-rollback needs the NAME of the registry")
    with run.store() as store:
        found = store.refresh_registries(name, accept_rollback=accept_rollback)
    failed = [info for info in found if info.error]
    if run.output.json:
        run.output.document(found)
    else:
        for info in found:
            if not info.error:
                row = (info.name, info.models, info.versions, info.url)
                run.output.done(info, partial(_text, info), row)
        for info in failed:
            run.output.complain(f"{info.name}: {info.error}")
    if failed:
        raise click.exceptions.Exit(_FAILED)


@command("remove", example="ystore registry remove yarn")
@click.argument("name")
def _remove(run: Invocation, name: str) -> None:
    """Remove a registry; its downloaded models stay.

    To remove a registry that is set in config.toml, edit that file.
    """
    with run.store() as store:
        store.remove_registry(name)
    run.output.done(
        {"name": name, "removed": True},
        lambda: f"{name}: removed; its downloaded models stay",
        (name, "removed"),
    )


_FAULTS = {"lied": "served corrupt data", "stalled": "stalled", "unreachable": "could not be reached"}


def _remarks(info: RegistryInfo) -> str:
    """The problems of a registry's cached answer and its mirrors, and their number."""
    said = [clean(info.error)] if info.error else []
    if len(info.mirrors) > 1:
        said.append(plural(len(info.mirrors) - 1, "mirror"))
    said += [f"{clean(mirror.url)} {_health(mirror)}" for mirror in info.mirrors if mirror.fault]
    return "; ".join(said)


def _health(mirror: MirrorInfo) -> str:
    """What failed at an address, and when; empty if nothing did."""
    if not mirror.fault:
        return ""
    return f"{_FAULTS.get(mirror.fault, clean(mirror.fault))} {format_age(mirror.at_ms)}"


def _text(info: RegistryInfo) -> str:
    updated = f", updated {format_iso_age(info.last_updated)}" if info.last_updated else ""
    if info.split:
        return f"{info.name}: one file per model{updated}"
    return f"{info.name}: {plural(info.models, 'model')}, {plural(info.versions, 'version')}{updated}"


for _command in (_add, _list, _mirrors, _refresh, _remove, *PUBLISHERS):
    cli.add_command(_command)
