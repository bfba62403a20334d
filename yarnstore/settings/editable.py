"""The settings that programs may list and change, each with its value, the value's source, and a description.

Changes are written into `managed.toml`; values of the environment or of `config.toml` override them, and are
not changed. Settings that run commands or grant trust are not included: `verify_command`, `[policy]`,
`ca_bundle`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from yarnstore.errors import ConfigError, ConflictError, NotFoundError
from yarnstore.ops.session.session import DEFAULT_CONNECTIONS
from yarnstore.registry.policies import KeepCopy, Rollback, parse_reserve, parse_retention
from yarnstore.settings.files import (
    SettingFiles,
    change_managed,
    line_of,
    read_files,
)
from yarnstore.settings.host import APP_VERSION, read_machine
from yarnstore.settings.load import read_connections
from yarnstore.settings.network import parse_flag, parse_network
from yarnstore.store.filepath import Path

SettingValue: TypeAlias = str | int | float | bool | None
SettingSource: TypeAlias = Literal["environment", "config.toml", "managed.toml", "default"]


@dataclass(frozen=True)
class SettingInfo:
    """One setting."""

    name: str  #: The name of the setting, as in `config.toml`.
    value: SettingValue  #: The value, None if it is not set.
    source: SettingSource  #: The source of the value.
    editable: bool  #: Whether it can be changed here.
    where: str | None  #: Where it is set, if it cannot be changed here: a variable, or a file and its line.
    meaning: str  #: A description.
    choices: tuple[str, ...] = ()  #: The possible values; empty if it is not one of a few words.


@dataclass(frozen=True)
class _Known:
    meaning: str
    default: SettingValue = None
    variable: str | None = None
    choices: tuple[str, ...] = ()  # the first is the default


_KNOWN: Final[Mapping[str, _Known]] = {
    "app_version": _Known(
        "Version of the application; versions of models that do not fit it are not installed.",
        None,
        APP_VERSION,
    ),
    "keep": _Known("Number of newest versions of each model to keep after an update."),
    "keep_within": _Known("Keep versions that were stored or used within this time after an update."),
    "path_grace": _Known("How long gc keeps a version's files after their path was last printed.", "1d"),
    "rollback": _Known(
        "Whether the version before the installed one keeps its files (`instant`), or only what differs "
        '(`thin`); `[models."NAME"]` in `config.toml` sets it for one model.',
        choices=get_args(Rollback),
    ),
    "keep_copy": _Known(
        "Which versions keep a second copy, to repair a damaged file without a download: `imports` that no "
        "registry has, `always` or `never`.",
        choices=get_args(KeepCopy),
    ),
    "reserve": _Known(
        "Disk space that downloads leave free, such as 5% or 10G (default: 512 MiB, at most 5%)."
    ),
    "limit_rate": _Known("The download limit in bytes per second, such as 5M.", None, "YSTORE_LIMIT_RATE"),
    "connections": _Known(
        "Number of parallel connections per download.", DEFAULT_CONNECTIONS, "YSTORE_CONNECTIONS"
    ),
    "offline": _Known("Do not use the network.", False, "YSTORE_OFFLINE"),
    "notifications": _Known(
        "Show a notification on the desktop when `ystore serve` finds, installs or repairs by itself.", True
    ),
}


def list_settings(home: Path, environ: Mapping[str, str] = os.environ) -> list[SettingInfo]:
    """Return all settings that may be changed.  Raises: ConfigError."""
    files = read_files(home)
    return [_describe(name, files, environ) for name in _KNOWN]


def change_settings(
    home: Path, changes: Mapping[str, SettingValue], environ: Mapping[str, str] = os.environ
) -> list[SettingInfo]:
    """Change settings in `managed.toml`; None removes one.  All are changed, or none is.

    Raises: NotFoundError for an unknown name; ConfigError for a bad value; ConflictError if the
    environment or `config.toml` sets it.
    """

    def changed(files: SettingFiles) -> dict[str, Any]:
        for name in changes:
            found = _describe(name, files, environ)
            if not found.editable:
                raise ConflictError(
                    f"{name} is set by {found.where}", hint="change it there", setting=name, where=found.where
                )
        after = {key: value for key, value in files.managed.items() if key not in changes}
        after |= {name: value for name, value in changes.items() if value is not None}
        _check(SettingFiles(home, files.config, after).tables)
        return after

    change_managed(home, changed)
    return list_settings(home, environ)


def _describe(name: str, files: SettingFiles, environ: Mapping[str, str]) -> SettingInfo:
    known = _KNOWN.get(name)
    if known is None:
        raise NotFoundError("setting", name, hint=f"known are {', '.join(_KNOWN)}")
    value: SettingValue = known.choices[0] if known.choices else known.default
    source: SettingSource = "default"
    where = None
    if known.variable and environ.get(known.variable):
        value, source, where = environ[known.variable], "environment", known.variable
    elif name in files.config:
        value, source = _plain(files.config[name]), "config.toml"
        where = line_of(files.home, name, lambda config: name in config)
    elif name in files.managed:
        value, source = _plain(files.managed[name]), "managed.toml"
    return SettingInfo(
        name=name,
        value=value,
        source=source,
        editable=where is None,
        where=where,
        meaning=known.meaning,
        choices=known.choices,
    )


def _plain(value: object) -> SettingValue:
    return value if isinstance(value, str | int | float | bool) else str(value)


def _check(tables: dict[str, Any]) -> None:
    """Raise ConfigError for an invalid value."""
    parse_retention(tables)
    parse_reserve(tables)
    parse_network(tables, {})
    read_connections(tables, {})
    read_machine(tables, {})
    parse_flag(tables, "notifications", default=True)
    value = tables.get("limit_rate")
    if isinstance(value, bool):
        raise ConfigError(f"limit_rate is {value!r}, not a rate such as '5M'")
