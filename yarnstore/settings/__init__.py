"""Settings of a store: `config.toml`, the environment, and their defaults."""

from __future__ import annotations

from yarnstore.settings.load import (
    Settings,
    add_registry,
    change_config,
    config_path,
    default_home,
    load_settings,
    normal_url,
    remove_registry,
    token_variable,
)

__all__ = [
    "Settings",
    "add_registry",
    "change_config",
    "config_path",
    "default_home",
    "load_settings",
    "normal_url",
    "remove_registry",
    "token_variable",
]
