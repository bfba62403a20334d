"""Changes of settings by commands, all of them in `managed.toml`.

A change that `config.toml` would override is refused, with the line there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from yarnstore.core.names import parse_registry_name
from yarnstore.errors import ConflictError, NotFoundError, UsageError
from yarnstore.ops.session.sources import MIRRORS_LIMIT
from yarnstore.registry.policies import parse_auto_update
from yarnstore.settings.files import (
    SettingFiles,
    change_managed,
    config_path,
    line_of,
    managed_path,
    registry_tables,
)
from yarnstore.settings.load import expand_path
from yarnstore.store.filepath import Path


def add_registry(home: Path, name: str, url: str) -> None:
    """Add a registry to `managed.toml`.  Raises: InvalidNameError, ConflictError, ConfigError."""
    parse_registry_name(name)

    def add(files: SettingFiles) -> dict[str, Any]:
        for path, item in files.registries:
            if item["name"].casefold() == name.casefold():
                if item["url"] == url:
                    return files.managed
                from yarnstore.backends.urls import shown

                raise ConflictError(
                    f"a registry {item['name']!r} already exists: {shown(item['url'])}",
                    hint=f"change it in {_entry_line(home, item['name'])}, or use another name"
                    if path == config_path(home)
                    else f"`ystore registry remove {item['name']}` first, or use another name",
                )
        tables = registry_tables(files.managed, managed_path(home))
        return {**files.managed, "registries": [*tables, {"name": name, "url": url}]}

    change_managed(home, add)


def remove_registry(home: Path, name: str) -> None:
    """Remove a registry from `managed.toml`.

    Raises: NotFoundError; ConflictError for one in `config.toml`, which no command writes; ConfigError.
    """

    def remove(files: SettingFiles) -> dict[str, Any]:
        place = _managed_place(files, name, "delete its [[registries]] entry there with an editor")
        left = [item for item in registry_tables(files.managed, place) if item["name"] != name]
        rest = {key: value for key, value in files.managed.items() if key != "registries"}
        return {**rest, "registries": left} if left else rest

    change_managed(home, remove)


def set_mirrors(home: Path, name: str, mirrors: Sequence[str]) -> None:
    """Replace the mirrors of a registry in `managed.toml`.

    Raises: NotFoundError, UsageError, ConfigError; ConflictError for a registry in `config.toml`.
    """

    def change(files: SettingFiles) -> dict[str, Any]:
        place = _managed_place(files, name, "change its mirrors there with an editor")
        tables = registry_tables(files.managed, place)
        return {**files.managed, "registries": [_with_mirrors(t, name, mirrors) for t in tables]}

    change_managed(home, change)


def _with_mirrors(table: dict[str, Any], name: str, mirrors: Sequence[str]) -> dict[str, Any]:
    if table["name"] != name:
        return table
    rest = {key: value for key, value in table.items() if key != "mirrors"}
    wanted = [
        url for url in dict.fromkeys(map(normal_url, mirrors)) if url.rstrip("/") != table["url"].rstrip("/")
    ]
    if len(wanted) > MIRRORS_LIMIT:
        raise UsageError(f"{len(wanted)} mirrors are too many; at most {MIRRORS_LIMIT} are allowed")
    return {**rest, "mirrors": wanted} if wanted else rest


def _managed_place(files: SettingFiles, name: str, hint: str) -> Path:
    """Return the file of a registry that commands may change.  Raises: NotFoundError, ConflictError."""
    place = next((path for path, item in files.registries if item["name"] == name), None)
    if place is None:
        raise NotFoundError("registry", name, hint="`ystore registry list` lists the registries")
    if place == config_path(files.home):
        raise ConflictError(
            f"registry {name!r} is set in {_entry_line(files.home, name)}, which no command changes",
            hint=hint,
            path=str(place),
        )
    return place


def _entry_line(home: Path, name: str) -> str:
    """Return the place in `config.toml` of a registry, for messages."""

    def named(config: dict[str, Any]) -> bool:  # the last table may be incomplete
        tables = config.get("registries")
        return isinstance(tables, list) and any(
            isinstance(item, dict) and item.get("name") == name for item in tables
        )

    return line_of(home, name, named)


def set_auto_update(home: Path, change: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
    """Change `[auto_update]` in `managed.toml` by `change`, which gets the tables of the file.

    Raises: as `change`; ConflictError if `config.toml` has another value, which would override it;
    ConfigError.
    """

    def changed(files: SettingFiles) -> dict[str, Any]:
        wanted = change(files.tables)
        after = change(files.managed)
        found = SettingFiles(home, files.config, after).tables
        if parse_auto_update(found) != parse_auto_update(wanted):
            for keys in _different(wanted, found):
                _refuse_overridden(files, keys)
        return after

    change_managed(home, changed)


def _refuse_overridden(files: SettingFiles, keys: tuple[str, ...]) -> None:
    """Raise ConflictError if `config.toml` has the value at `keys`."""

    def set_there(config: dict[str, Any]) -> bool:
        return _value_at(config, keys) is not None

    if set_there(files.config):
        where = line_of(files.home, keys[-1], set_there)
        raise ConflictError(
            f"{'.'.join(keys)} is set in {where}, which overrides this command",
            hint="change that line, or delete it so that the command applies",
            path=str(config_path(files.home)),
        )


def _different(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the path of keys to each value in which two tables differ."""
    for key in {**one, **other}:
        left, right = one.get(key), other.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            for keys in _different(left, right):
                yield (key, *keys)
        elif left != right:
            yield (key,)


def _value_at(config: object, keys: tuple[str, ...]) -> object:
    for key in keys:
        config = config.get(key) if isinstance(config, dict) else None
    return config


def normal_url(text: str) -> str:
    """Return the address to store for one that the user gave: paths become absolute.

    Raises: UsageError if it is not a valid address of a registry.
    """
    from yarnstore.backends.urls import check_address, is_url, tidy_address

    address = tidy_address(text)
    check_address(address)
    return address if is_url(address) else tidy_address(str(expand_path(address)))
