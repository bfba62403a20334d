"""Settings: the environment and `config.toml`.  Nothing below this module reads either.

YSTORE_HOME            where the store is
YSTORE_LOCK_TIMEOUT    seconds to wait for the store's lock
YSTORE_CONNECTIONS     connections of one download
YSTORE_APP_VERSION     the application's version, for what is compatible with it
YSTORE_RAM_GB          the memory to count with, instead of the machine's own
YSTORE_OFFLINE, YSTORE_LIMIT_RATE, YSTORE_STALL_TIMEOUT, YSTORE_CA_BUNDLE, NETRC
                       see `settings/network`
YSTORE_TOKEN_<NAME>    the bearer token of registry NAME (upper case, other characters as _)
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from yarnstore.backends.addresses import check_address, is_url, tidy_address
from yarnstore.core.limits import MIB
from yarnstore.core.names import parse_registry_name
from yarnstore.errors import ConfigError, ConflictError, FormatError, InvalidNameError, NotFoundError
from yarnstore.ops.session.connections import Network, RegistrySource, bare_url, with_login
from yarnstore.ops.session.session import DEFAULT_CONNECTIONS
from yarnstore.registry.host import Host
from yarnstore.registry.policies import (
    AutoRules,
    LoadPolicy,
    Retention,
    VerifyCommand,
    parse_auto_update,
    parse_load_policy,
    parse_retention,
    parse_verify,
)
from yarnstore.settings.host import read_machine
from yarnstore.settings.network import parse_mirrors, parse_network
from yarnstore.store import fsio, fsread, lock
from yarnstore.store.layout import DEFAULT_LOCK_TIMEOUT_S

_MAX_CONNECTIONS = 64


class Settings(msgspec.Struct, frozen=True):
    """What one use of a store goes by."""

    home: Path
    registries: tuple[RegistrySource, ...] = ()
    connections: int = DEFAULT_CONNECTIONS
    lock_timeout_s: float = DEFAULT_LOCK_TIMEOUT_S
    network: Network = msgspec.field(default_factory=Network)
    # The one registry to look in, where one is asked for by name.
    registry: str | None = None
    machine: Host = msgspec.field(default_factory=Host)
    auto_update: AutoRules = msgspec.field(default_factory=AutoRules)
    verify: Mapping[str, VerifyCommand] = msgspec.field(default_factory=dict)
    retention: Retention = msgspec.field(default_factory=Retention)
    load_policy: LoadPolicy = msgspec.field(default_factory=LoadPolicy)


def default_home(environ: Mapping[str, str] = os.environ) -> Path:
    """`YSTORE_HOME`, else the platform's folder for a user's data."""
    home = environ.get("YSTORE_HOME")
    if home:
        return _from_home(home)
    import platformdirs

    try:
        found = Path(platformdirs.user_data_dir("yarnstore", appauthor=False))
    except RuntimeError:
        found = Path("~")
    if not found.is_absolute():
        raise ConfigError(
            "no home folder for the store: HOME is not set, and passwd has no entry for this user",
            hint="set YSTORE_HOME, or give --home DIR",
        )
    return found


def _from_home(text: str) -> Path:
    """An absolute path, with `~` and `~user` replaced by the home folders that they mean."""
    try:
        return fsread.absolute(Path(text).expanduser())
    except RuntimeError:
        raise ConfigError(
            f"{text}: the home folder of that user is not known", hint="give the path without ~"
        ) from None


def load_settings(home: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings of the store at `home`.  Raises: ConfigError."""
    place = fsread.absolute(home) if home else default_home(environ)
    config = _read_config(place)
    logins = environ.get("NETRC") or os.path.expanduser("~/.netrc")
    network = msgspec.structs.replace(parse_network(config, environ), netrc=logins)
    registries: list[RegistrySource] = []
    for item in _registry_tables(config, place):
        name = item["name"]
        token = environ.get(token_variable(name))
        where = f"{config_path(place)}: {name}"
        for other in registries:
            if token and token_variable(other.name) == token_variable(name):
                raise ConfigError(
                    f"{token_variable(name)} would be sent to both {other.name} and {name}",
                    hint="give one of them another name in config.toml",
                )
        source = RegistrySource(name, tidy_address(item["url"]), token, mirrors=parse_mirrors(item, where))
        registries.append(with_login(source, network.netrc))
    return Settings(
        place,
        tuple(registries),
        int(
            _number(
                config, "connections", environ, "YSTORE_CONNECTIONS", DEFAULT_CONNECTIONS, _MAX_CONNECTIONS
            )
        ),
        _number(config, "lock_timeout", environ, "YSTORE_LOCK_TIMEOUT", DEFAULT_LOCK_TIMEOUT_S, 1e6),
        network=network,
        machine=read_machine(config, environ),
        auto_update=parse_auto_update(config),
        verify=parse_verify(config),
        retention=parse_retention(config),
        load_policy=parse_load_policy(config),
    )


def token_variable(name: str) -> str:
    """The environment variable that holds a registry's bearer token."""
    return "YSTORE_TOKEN_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


def config_path(home: Path) -> Path:
    """Where a store's settings are."""
    return home / "config.toml"


def _read_config(home: Path) -> dict[str, Any]:
    return _parse_config(home, _read_text(home))


def _read_text(home: Path) -> str:
    path = config_path(home)
    try:
        return fsread.read_bytes(path, MIB).decode()
    except NotFoundError:
        return ""
    except (UnicodeDecodeError, FormatError) as error:
        raise ConfigError(f"{path}: {error}", hint="correct it by hand", path=str(path)) from None


def _parse_config(home: Path, text: str) -> dict[str, Any]:
    path = config_path(home)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}", hint="correct it by hand", path=str(path)) from None


def _registry_tables(config: dict[str, Any], home: Path) -> list[dict[str, str]]:
    tables = config.get("registries", [])
    if not isinstance(tables, list):
        raise ConfigError(f"{config_path(home)}: registries is not a list of tables ([[registries]])")
    found: list[dict[str, str]] = []
    for n, item in enumerate(tables):
        where = f"{config_path(home)}: registries[{n}]"
        if not isinstance(item, dict) or not all(isinstance(item.get(key), str) for key in ("name", "url")):
            raise ConfigError(f"{where} needs a name and a url, both text")
        try:
            parse_registry_name(item["name"])
        except InvalidNameError as error:
            raise ConfigError(f"{where}: {error.message}", hint="correct it by hand") from None
        if any(other["name"] == item["name"] for other in found):
            raise ConfigError(f"{where}: {item['name']!r} occurs twice")
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

    def add(config: dict[str, Any]) -> dict[str, Any]:
        tables = _registry_tables(config, home)
        for item in tables:
            if item["name"].casefold() == name.casefold():
                if item["url"] == url:
                    return config
                raise ConflictError(
                    f"a registry {item['name']!r} already exists: {bare_url(item['url'])}",
                    hint=f"`ystore registry remove {item['name']}` first, or take another name",
                )
        return {**config, "registries": [*tables, {"name": name, "url": url}]}

    change_config(home, add)


def remove_registry(home: Path, name: str) -> None:
    """Take a registry out of `config.toml`.  Raises: NotFoundError, ConfigError."""

    def remove(config: dict[str, Any]) -> dict[str, Any]:
        tables = _registry_tables(config, home)
        left = [item for item in tables if item["name"] != name]
        if len(left) == len(tables):
            raise NotFoundError("registry", name, hint="`ystore registry list` lists them")
        return {**config, "registries": left}

    change_config(home, remove)


def change_config(home: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace what `config.toml` says by what `change` makes of it, while no other command does.

    Raises: as `change`; ConfigError, StorageError, LockTimeoutError.
    """
    fsread.add_root(home)
    fsio.ensure_dir(home)
    with lock.acquire(home / "config.lock", exclusive=True, timeout_s=DEFAULT_LOCK_TIMEOUT_S):
        text = _read_text(home)
        before = _parse_config(home, text)
        after = change(before)
        if after != before:
            data = _changed_text(text, before, after).encode()
            fsio.write_atomic(config_path(home), data, tmp_dir=home / "tmp")


def _changed_text(text: str, before: dict[str, Any], after: dict[str, Any]) -> str:
    """The new file: what is only added goes behind what is there, whose comments stay as they are."""
    tables = before.get("registries", [])
    added = {key: value for key, value in after.items() if key not in before}
    if "registries" in before and after.get("registries", [])[: len(tables)] == tables:
        added["registries"] = after["registries"][len(tables) :]
    longer = f"{text.rstrip()}\n\n{_format_config(added)}".lstrip()
    try:
        if tomllib.loads(longer) == after:
            return longer
    except tomllib.TOMLDecodeError:
        pass  # such as a [[table]] behind `registries = []`
    return _format_config(after)


def _format_config(config: dict[str, Any]) -> str:
    """As TOML, registries as tables of their own, to which others can be added."""
    import tomli_w

    rest = {key: value for key, value in config.items() if key != "registries"}
    tables = config.get("registries", [])
    if any(isinstance(value, dict) for table in tables for value in table.values()):
        return tomli_w.dumps(config)  # a table in a table has a heading of another form
    headed = [f"[[registries]]\n{tomli_w.dumps(table)}" for table in tables]
    return "\n".join([*([tomli_w.dumps(rest)] if rest else []), *headed])


def normal_url(text: str) -> str:
    """A registry's address as it is kept, of one that was typed or pasted: paths become absolute.

    Raises: UsageError for what can be no registry.
    """
    address = tidy_address(text)
    check_address(address)
    return address if is_url(address) else tidy_address(str(_from_home(address)))
