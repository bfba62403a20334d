"""The two files of settings: `config.toml`, written by users, and `managed.toml`, written by commands.

Reads and merges them (`config.toml` has priority), and replaces `managed.toml`.  No command writes
`config.toml`.  docs/format/settings.md governs both.  `load`, `host`, `network` and `registry/policies`
interpret their tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from yarnstore.core.limits import MIB
from yarnstore.core.names import parse_registry_name
from yarnstore.errors import ConfigError, FormatError, InvalidNameError, NotFoundError
from yarnstore.registry.policies import parse_auto_update
from yarnstore.store import folders, fsio, fsread, lock
from yarnstore.store.filepath import Path
from yarnstore.store.layout import DEFAULT_LOCK_TIMEOUT_S
from yarnstore.store.paths import follow

_HEADER: Final = "# Written by ystore commands, which replace this file.  config.toml overrides it.\n"
_HINTS: Final = {
    "config.toml": "correct the file with an editor",
    "managed.toml": "correct or delete it; without it, registries that commands added are not known",
}

# The settings that programs write, besides registries and `auto_update`.
MANAGED_SETTINGS: Final = (
    *("app_version", "keep", "keep_within", "path_grace", "reserve", "limit_rate", "connections", "offline"),
    *("notifications", "rollback", "keep_copy"),
)


def config_path(home: Path) -> Path:
    """Return the path of the file that users write."""
    return home / "config.toml"


def managed_path(home: Path) -> Path:
    """Return the path of the file that commands write."""
    return home / "managed.toml"


class SettingFiles(msgspec.Struct, frozen=True):
    """The contents of both files of a store."""

    home: Path
    config: dict[str, Any]
    managed: dict[str, Any]

    @property
    def tables(self) -> dict[str, Any]:
        """The merged settings; of `managed.toml` only the keys that commands write are used."""
        known = ("auto_update", *MANAGED_SETTINGS)
        managed = {key: self.managed[key] for key in known if key in self.managed}
        return _merged(managed, self.config)

    @property
    def registries(self) -> list[tuple[Path, dict[str, Any]]]:
        """Return the tables of the registries, each with its file: those of `config.toml` first.

        Of two with the same name, only that of `config.toml`.  Raises: ConfigError.
        """
        own = registry_tables(self.config, config_path(self.home))
        names = {item["name"].casefold() for item in own}
        added = registry_tables(self.managed, managed_path(self.home))
        return [
            *((config_path(self.home), item) for item in own),
            *((managed_path(self.home), item) for item in added if item["name"].casefold() not in names),
        ]


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two tables key by key; `over` has priority."""
    return {
        **base,
        **{
            key: _merged(base[key], value)
            if isinstance(value, dict) and isinstance(base.get(key), dict)
            else value
            for key, value in over.items()
        },
    }


def read_files(home: Path) -> SettingFiles:
    """Read both files; one that does not exist is empty.  Raises: ConfigError, StorageError."""
    # Users may keep config.toml elsewhere and link to it.
    files = SettingFiles(home, _read(follow(config_path(home))), _read(managed_path(home)))
    try:
        parse_auto_update(files.managed)
    except ConfigError as error:
        path = managed_path(home)
        raise ConfigError(f"{path}: {error.message}", hint=_HINTS[path.name], path=str(path)) from None
    return files


def _read(path: Path) -> dict[str, Any]:
    text = read_text(path)
    if not text:  # the file is usually missing, and then the parser need not be imported
        return {}
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}", hint=_HINTS[path.name], path=str(path)) from None


def read_text(path: Path) -> str:
    """Return the text of one of the files, empty if it does not exist.  Raises: ConfigError, StorageError."""
    try:
        return fsread.read_bytes(path, MIB).decode()
    except NotFoundError:
        return ""
    except (UnicodeDecodeError, FormatError) as error:
        raise ConfigError(f"{path}: {error}", hint=_HINTS[path.name], path=str(path)) from None


def registry_tables(config: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    """The tables `[[registries]]` of one file, each with a name and a url.  Raises: ConfigError."""
    tables = config.get("registries", [])
    if not isinstance(tables, list):
        raise ConfigError(f"{path}: registries is not a list of tables ([[registries]])")
    found: list[dict[str, Any]] = []
    for n, item in enumerate(tables):
        where = f"{path}: registries[{n}]"
        if not isinstance(item, dict) or not all(isinstance(item.get(key), str) for key in ("name", "url")):
            raise ConfigError(f"{where} needs a name and a url, both strings")
        try:
            parse_registry_name(item["name"])
        except InvalidNameError as error:
            raise ConfigError(f"{where}: {error.message}", hint=_HINTS[path.name]) from None
        if any(other["name"] == item["name"] for other in found):
            raise ConfigError(f"{where}: {item['name']!r} is configured twice")
        found.append(item)
    return found


def change_managed(home: Path, change: Callable[[SettingFiles], dict[str, Any]]) -> None:
    """Replace the contents of `managed.toml` by what `change` returns, under the lock of the settings.

    Raises: as `change`; ConfigError, StorageError, LockTimeoutError.
    """
    folders.add_root(home)
    fsio.ensure_dir(home)
    with lock.acquire(home / "config.lock", exclusive=True, timeout_s=DEFAULT_LOCK_TIMEOUT_S):
        files = read_files(home)
        after = change(files)
        if after != files.managed:
            import tomli_w

            text = f"{_HEADER}\n{tomli_w.dumps(after)}"
            fsio.write_atomic(managed_path(home), text.encode(), tmp_dir=home / "tmp")


def line_of(home: Path, word: str, says: Callable[[dict[str, Any]], bool]) -> str:
    """Return the place of a setting in `config.toml`: the path, and the line if it can be found.

    The line is the first with `word` such that the file up to it is TOML for which `says` is true.
    """
    path = config_path(home)
    lines = read_text(path).replace("\r\n", "\n").split("\n")
    for n, line in enumerate(lines, 1):
        if word in line and any(_says("\n".join(lines[:n]) + end, says) for end in ("", "]")):
            return f"{path}, line {n}"
    return str(path)


def _says(text: str, says: Callable[[dict[str, Any]], bool]) -> bool:
    import tomllib

    try:
        return says(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        return False
