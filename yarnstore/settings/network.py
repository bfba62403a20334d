"""The network settings of `config.toml` and the environment, which callers read.

YSTORE_OFFLINE         1: do not use the network
YSTORE_LIMIT_RATE      the limit of all downloads in bytes per second, such as 5M
YSTORE_STALL_TIMEOUT   seconds without a byte until a server counts as stalled
YSTORE_CA_BUNDLE       a PEM file of certificates to trust in addition to the usual ones
NETRC                  the file with user names and passwords, else ~/.netrc
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from yarnstore.backends.base import Timeouts
from yarnstore.errors import ConfigError, UsageError
from yarnstore.ops.session.sources import Network
from yarnstore.store import paths

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})
_STALL_LIMIT_S = 3600.0


def parse_network(config: Mapping[str, Any], environ: Mapping[str, str]) -> Network:
    """Return the settings for all requests.  Raises: ConfigError."""
    bundle = environ.get("YSTORE_CA_BUNDLE") or config.get("ca_bundle")
    if bundle is not None and not isinstance(bundle, str):
        raise ConfigError(f"ca_bundle is {bundle!r}, not the path of a file")
    return Network(
        offline=_parse_offline(config, environ),
        limit_rate=_parse_limit_rate(config, environ),
        ca_bundle=str(paths.absolute(bundle)) if bundle else None,
        require_https=parse_flag(config, "require_https"),
        timeouts=_parse_timeouts(config, environ),
    )


def _parse_offline(config: Mapping[str, Any], environ: Mapping[str, str]) -> bool:
    value = environ.get("YSTORE_OFFLINE")
    if value is None:
        return parse_flag(config, "offline")
    word = value.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ConfigError(f"YSTORE_OFFLINE is {value!r}, neither 1 nor 0")
    return word in _TRUE


def parse_flag(config: Mapping[str, Any], key: str, *, default: bool = False) -> bool:
    """Return a setting that is true or false.  Raises: ConfigError."""
    found = config.get(key, default)
    if not isinstance(found, bool):
        raise ConfigError(f"{key} is {found!r}, not true or false")
    return found


def _parse_limit_rate(config: Mapping[str, Any], environ: Mapping[str, str]) -> float:
    value: object = environ.get("YSTORE_LIMIT_RATE") or config.get("limit_rate")
    if value is None:
        return 0.0
    where = "YSTORE_LIMIT_RATE" if environ.get("YSTORE_LIMIT_RATE") else "limit_rate"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"{where} is {value!r}, not a rate such as '5M'")
    from yarnstore.backends.wrappers import parse_rate

    try:
        return parse_rate(str(value))
    except UsageError as error:
        raise ConfigError(f"{where}: {error.message}", hint=error.hint) from None


def _parse_timeouts(config: Mapping[str, Any], environ: Mapping[str, str]) -> Timeouts:
    usual = Timeouts()
    value: object = environ.get("YSTORE_STALL_TIMEOUT") or config.get("stall_timeout", usual.stall_s)
    where = "YSTORE_STALL_TIMEOUT" if environ.get("YSTORE_STALL_TIMEOUT") else "stall_timeout"
    try:
        stall_s = float(str(value))
    except ValueError:
        stall_s = -1.0
    if not 0 < stall_s <= _STALL_LIMIT_S:
        raise ConfigError(f"{where} is {value!r}, not a number of seconds up to {_STALL_LIMIT_S:g}")
    if stall_s == usual.stall_s:
        return usual
    # A very slow server is given up after twice the time of a silent one.
    return msgspec.structs.replace(
        usual, connect_s=min(usual.connect_s, stall_s), stall_s=stall_s, window_s=2 * stall_s
    )


def parse_mirrors(item: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return the `mirrors` of one `[[registries]]` table.  Raises: ConfigError."""
    found = item.get("mirrors", [])
    if not isinstance(found, list) or not all(isinstance(url, str) and url for url in found):
        raise ConfigError(f"{where}: mirrors is not a list of addresses")
    if not found:
        return ()
    from yarnstore.backends.urls import tidy_address

    return tuple(map(tidy_address, found))
