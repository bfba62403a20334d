"""Settings: the environment, `config.toml` and `managed.toml`.  Below this package
only `machine` reads the environment.

YSTORE_HOME            where the store is
YSTORE_LOCK_TIMEOUT    seconds to wait for the store's lock
YSTORE_CONNECTIONS     connections of one download
YSTORE_APP_VERSION     the application's version, to select compatible versions
YSTORE_RAM_GB          the memory to assume, instead of the machine's own
DOCKER_CONFIG          the folder of Docker's config.json with logins, else ~/.docker
REGISTRY_AUTH_FILE     the file of logins of podman and skopeo, instead of all others
XDG_RUNTIME_DIR, XDG_CONFIG_HOME
                       the folders of containers/auth.json with logins of podman and skopeo
YSTORE_OFFLINE, YSTORE_LIMIT_RATE, YSTORE_STALL_TIMEOUT, YSTORE_CA_BUNDLE, NETRC
                       see `settings/network`
YSTORE_TOKEN_<NAME>    the bearer token of registry NAME (upper case, other characters as _)
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from yarnstore.core.sizes import DEFAULT_RESERVE, Reserve
from yarnstore.errors import ConfigError
from yarnstore.ops.session.session import DEFAULT_CONNECTIONS
from yarnstore.ops.session.sources import Network, RegistrySource, with_login
from yarnstore.registry.host import Host
from yarnstore.registry.policies import (
    AutoRules,
    LoadPolicy,
    Retention,
    VerifyCommand,
    parse_auto_update,
    parse_load_policy,
    parse_reserve,
    parse_retention,
    parse_verify,
)
from yarnstore.settings.files import read_files
from yarnstore.settings.host import read_machine
from yarnstore.settings.network import parse_flag, parse_mirrors, parse_network
from yarnstore.store import paths
from yarnstore.store.filepath import Path
from yarnstore.store.layout import DEFAULT_LOCK_TIMEOUT_S
from yarnstore.store.moved import find_store

_MAX_CONNECTIONS = 64


class Settings(msgspec.Struct, frozen=True):
    """The settings of one use of a store."""

    home: Path
    registries: tuple[RegistrySource, ...] = ()
    connections: int = DEFAULT_CONNECTIONS
    lock_timeout_s: float = DEFAULT_LOCK_TIMEOUT_S
    network: Network = msgspec.field(default_factory=Network)
    # The only registry to use, if one is requested by name.
    registry: str | None = None
    machine: Host = msgspec.field(default_factory=Host)
    auto_update: AutoRules = msgspec.field(default_factory=AutoRules)
    verify: Mapping[str, VerifyCommand] = msgspec.field(default_factory=dict)
    retention: Retention = msgspec.field(default_factory=Retention)
    load_policy: LoadPolicy = msgspec.field(default_factory=LoadPolicy)
    reserve: Reserve = DEFAULT_RESERVE  # disk space that downloads leave free
    alternates: tuple[Path, ...] = ()  # stores whose chunks are used instead of downloads
    notifications: bool = True  # whether the service shows desktop notifications


def default_home(environ: Mapping[str, str] = os.environ) -> Path:
    """`YSTORE_HOME`, else the platform's folder for a user's data."""
    home = environ.get("YSTORE_HOME")
    if home:
        return expand_path(home)
    found = _usual_data_folder(environ)
    if found is None:
        import platformdirs  # late: it takes longer to import than most commands take

        with contextlib.suppress(RuntimeError):
            found = platformdirs.user_data_dir("yarnstore", appauthor=False)
    if found is None or not os.path.isabs(found):
        raise ConfigError(
            "no home folder for the store: HOME is not set, and this user is not in passwd",
            hint="set YSTORE_HOME, or use --home DIR",
        )
    return Path(found)


def _usual_data_folder(environ: Mapping[str, str]) -> str | None:
    """Return what `platformdirs` returns on Linux if the environment has the folders; else None."""
    if sys.platform != "linux" or "ANDROID_ROOT" in environ:
        return None
    data, home = environ.get("XDG_DATA_HOME", ""), environ.get("HOME", "")
    if os.path.isabs(data):
        return os.path.join(data, "yarnstore")
    return os.path.join(home, ".local/share/yarnstore") if os.path.isabs(home) else None


def runtime_folder() -> Path:
    """Return the platform's folder for runtime files of a user; it is created if it does not exist."""
    import platformdirs

    return Path(platformdirs.user_runtime_dir("yarnstore", appauthor=False, ensure_exists=True))


def expand_path(text: str) -> Path:
    """Return an absolute path, with `~` and `~user` replaced by home folders."""
    found = os.path.expanduser(text)
    if found.startswith("~"):
        raise ConfigError(f"{text}: the home folder of that user is unknown", hint="give the path without ~")
    return paths.absolute(found)


def load_settings(home: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings of the store at `home`, or where it was moved.

    Raises: ConfigError; ConflictError if it was moved to a disk that is missing.
    """
    place = find_store(paths.absolute(home) if home else default_home(environ))
    files = read_files(place)
    config = files.tables
    logins = environ.get("NETRC") or os.path.expanduser("~/.netrc")
    network = msgspec.structs.replace(
        parse_network(config, environ), netrc=logins, login_files=_login_files(environ)
    )
    registries: list[RegistrySource] = []
    for path, item in files.registries:
        from yarnstore.backends.urls import tidy_address

        name = item["name"]
        token = environ.get(token_variable(name))
        where = f"{path}: {name}"
        for other in registries:
            if token and token_variable(other.name) == token_variable(name):
                raise ConfigError(
                    f"{token_variable(name)} would be sent to both {other.name} and {name}",
                    hint="give one of them another name",
                )
        source = RegistrySource(name, tidy_address(item["url"]), token, mirrors=parse_mirrors(item, where))
        registries.append(with_login(source, network.netrc))
    return Settings(
        place,
        tuple(registries),
        read_connections(config, environ),
        _number(config, "lock_timeout", environ, "YSTORE_LOCK_TIMEOUT", DEFAULT_LOCK_TIMEOUT_S, 1e6),
        network=network,
        machine=read_machine(config, environ),
        auto_update=parse_auto_update(config),
        verify=parse_verify(config),
        retention=parse_retention(config),
        load_policy=parse_load_policy(config),
        reserve=parse_reserve(config),
        alternates=_alternates(config),
        notifications=parse_flag(config, "notifications", default=True),
    )


def _alternates(config: Mapping[str, Any]) -> tuple[Path, ...]:
    value = config.get("alternates", [])
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ConfigError('alternates is not a list of paths, as in ["/srv/models"]')
    for item in value:
        if not (item.startswith("~") or os.path.isabs(item)):
            raise ConfigError(f"alternates: {item} is not an absolute path", hint="begin it with /")
    return tuple(map(expand_path, value))


def token_variable(name: str) -> str:
    """Return the name of the environment variable with a registry's bearer token."""
    return "YSTORE_TOKEN_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


def read_connections(config: Mapping[str, Any], environ: Mapping[str, str]) -> int:
    """Return the number of connections of one download.  Raises: ConfigError."""
    return int(
        _number(config, "connections", environ, "YSTORE_CONNECTIONS", DEFAULT_CONNECTIONS, _MAX_CONNECTIONS)
    )


def _number(
    config: Mapping[str, Any],
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


def _login_files(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the files in which Docker, podman and skopeo keep logins, the first that counts first."""
    if own := environ.get("REGISTRY_AUTH_FILE"):
        return (own,)
    docker = environ.get("DOCKER_CONFIG")
    runtime = environ.get("XDG_RUNTIME_DIR")
    config = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    folders = [os.path.join(folder, "containers") for folder in (runtime, config) if folder]
    found = [os.path.join(folder, "auth.json") for folder in folders]
    usual = os.path.join(docker or os.path.expanduser("~/.docker"), "config.json")
    return (usual, *found) if docker else (*found, usual)
