"""Settings: the environment and `config.toml`.  Nothing below this module reads either.

YSTORE_HOME            where the store is
YSTORE_LOCK_TIMEOUT    seconds to wait for the store's lock
YSTORE_CONNECTIONS     connections of one download
YSTORE_TOKEN_<NAME>    the bearer token of registry NAME (upper case, other characters as _)
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarnstore.core.limits import MIB
from yarnstore.core.names import parse_registry_name
from yarnstore.errors import ConfigError, ConflictError, FormatError, NotFoundError
from yarnstore.ops.session import DEFAULT_CONNECTIONS, RegistrySource
from yarnstore.store import fsio, fsread
from yarnstore.store.layout import DEFAULT_LOCK_TIMEOUT_S

_MAX_CONNECTIONS = 64


@dataclass(frozen=True)
class Settings:
    """What one use of a store goes by."""

    home: Path
    registries: tuple[RegistrySource, ...] = ()
    connections: int = DEFAULT_CONNECTIONS
    lock_timeout_s: float = DEFAULT_LOCK_TIMEOUT_S


def default_home(environ: Mapping[str, str] = os.environ) -> Path:
    """`YSTORE_HOME`, else the platform's folder for a user's data."""
    home = environ.get("YSTORE_HOME")
    if home:
        return Path(home).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("yarnstore", appauthor=False))


def load_settings(home: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings of the store at `home`.  Raises: ConfigError."""
    place = Path(os.path.abspath(home)) if home else default_home(environ)
    config = _read_config(place)
    registries = []
    for item in _registry_tables(config, place):
        name = item["name"]
        token = environ.get(token_variable(name))
        registries.append(RegistrySource(name, item["url"], token))
    return Settings(
        place,
        tuple(registries),
        int(
            _number(
                config, "connections", environ, "YSTORE_CONNECTIONS", DEFAULT_CONNECTIONS, _MAX_CONNECTIONS
            )
        ),
        _number(config, "lock_timeout", environ, "YSTORE_LOCK_TIMEOUT", DEFAULT_LOCK_TIMEOUT_S, 1e6),
    )


def token_variable(name: str) -> str:
    """The environment variable that holds a registry's bearer token."""
    return "YSTORE_TOKEN_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


def config_path(home: Path) -> Path:
    """Where a store's settings are."""
    return home / "config.toml"


def _read_config(home: Path) -> dict[str, Any]:
    path = config_path(home)
    try:
        text = fsread.read_bytes(path, MIB).decode()
        return tomllib.loads(text)
    except NotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, FormatError) as error:
        raise ConfigError(f"{path}: {error}", hint="mend it by hand", path=str(path)) from None


def _registry_tables(config: dict[str, Any], home: Path) -> list[dict[str, str]]:
    tables = config.get("registries", [])
    if not isinstance(tables, list):
        raise ConfigError(f"{config_path(home)}: registries is not a list of tables ([[registries]])")
    found: list[dict[str, str]] = []
    for n, item in enumerate(tables):
        where = f"{config_path(home)}: registries[{n}]"
        if not isinstance(item, dict) or not all(isinstance(item.get(key), str) for key in ("name", "url")):
            raise ConfigError(f"{where} needs a name and a url, both text")
        parse_registry_name(item["name"])
        if any(other["name"] == item["name"] for other in found):
            raise ConfigError(f"{where}: {item['name']!r} is there twice")
        found.append(item)
    return found


def _number(
    config: dict[str, Any],
    key: str,
    environ: Mapping[str, str],
    variable: str,
    default: float,
    most: float,
) -> float:
    value: object = environ.get(variable) or config.get(key, default)
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if not 0 <= number <= most or (key == "connections" and number < 1):
        raise ConfigError(
            f"{variable if environ.get(variable) else key} is {value!r}, not a number up to {most:g}"
        )
    return number


def add_registry(home: Path, name: str, url: str) -> None:
    """Write a registry into `config.toml`.  Raises: InvalidNameError, ConflictError, ConfigError."""
    parse_registry_name(name)
    config = _read_config(home)
    tables = _registry_tables(config, home)
    for item in tables:
        if item["name"].casefold() == name.casefold():
            if item["url"] == url:
                return
            raise ConflictError(
                f"a registry {item['name']!r} is there already: {item['url']}",
                hint=f"`ystore registry remove {item['name']}` first, or take another name",
            )
    _write_config(home, {**config, "registries": [*tables, {"name": name, "url": url}]})


def remove_registry(home: Path, name: str) -> None:
    """Take a registry out of `config.toml`.  Raises: NotFoundError, ConfigError."""
    config = _read_config(home)
    tables = _registry_tables(config, home)
    left = [item for item in tables if item["name"] != name]
    if len(left) == len(tables):
        raise NotFoundError("registry", name, hint="`ystore registry list` shows those there are")
    _write_config(home, {**config, "registries": left})


def _write_config(home: Path, config: dict[str, Any]) -> None:
    import tomli_w

    fsio.ensure_dir(home)
    fsio.write_atomic(config_path(home), tomli_w.dumps(config).encode(), tmp_dir=home / "tmp")


def normal_url(text: str) -> str:
    """A registry's address as it is kept: URLs as they are, paths made absolute."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return text
    return str(Path(text).expanduser().absolute())
