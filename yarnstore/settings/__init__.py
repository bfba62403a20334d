"""Settings of a store: `config.toml`, `managed.toml`, the environment, and their defaults."""

from __future__ import annotations

from yarnstore.settings.change import add_registry, normal_url, remove_registry, set_auto_update
from yarnstore.settings.files import config_path, managed_path
from yarnstore.settings.load import Settings, default_home, load_settings, token_variable

__all__ = [
    "Settings",
    "add_registry",
    "config_path",
    "default_home",
    "load_settings",
    "managed_path",
    "normal_url",
    "remove_registry",
    "set_auto_update",
    "token_variable",
]
