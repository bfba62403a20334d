"""The machine and application that versions must fit, from the settings and the system.

`app_version`   the application's version, YSTORE_APP_VERSION before `config.toml`
`variants`      preferred builds in order; only in `config.toml`
YSTORE_RAM_GB   the memory to assume, in a container or to try another machine
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from yarnstore.core.names import parse_variant, read_version
from yarnstore.errors import ConfigError, InvalidNameError
from yarnstore.registry.host import Host
from yarnstore.store import native

APP_VERSION: Final = "YSTORE_APP_VERSION"
RAM_GB: Final = "YSTORE_RAM_GB"


def read_machine(config: Mapping[str, Any], environ: Mapping[str, str]) -> Host:
    """Return the machine and application that versions must fit.  Raises: ConfigError."""
    return Host(_app_version(config, environ), _ram_gb(environ), _variants(config))


def app_version(text: str) -> str:
    """Normalise the version of an application: `v1.5.0` is 1.5.0.  Raises: InvalidNameError."""
    try:
        return read_version(text)
    except InvalidNameError as error:
        raise InvalidNameError("application version", text, str(error.fields["why"])) from None


def _app_version(config: Mapping[str, Any], environ: Mapping[str, str]) -> str | None:
    value = environ.get(APP_VERSION) or config.get("app_version")
    if value is None:
        return None
    where = APP_VERSION if environ.get(APP_VERSION) else "app_version in config.toml"
    try:
        return app_version(str(value))
    except InvalidNameError as error:
        raise ConfigError(f"{where} is {value!r}, which {error.fields['why']}") from None


def _ram_gb(environ: Mapping[str, str]) -> float | None:
    text = environ.get(RAM_GB)
    if not text:
        return measured_ram_gb()
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not (math.isfinite(size) and size >= 0):
        raise ConfigError(f"{RAM_GB} is {text!r}, not a number of gigabytes")
    return size


def measured_ram_gb() -> float | None:
    """Return the machine's memory in GB (10^9 bytes), so that a machine with 8 GiB has at least 8.

    None if unknown.
    """
    size_bytes = native.memory_bytes()
    return None if size_bytes is None else size_bytes / 1e9


def _variants(config: Mapping[str, Any]) -> tuple[str, ...]:
    value = config.get("variants", [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError('variants in config.toml is not a list of strings, as in ["cpu-int4"]')
    try:
        return tuple(map(parse_variant, value))
    except InvalidNameError as error:
        raise ConfigError(f"variants in config.toml: {error.message}") from None
