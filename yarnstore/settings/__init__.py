"""Settings of a store: `config.toml`, `managed.toml`, the environment, and their defaults.

    load, network, host    reading all settings; those of the network; those of the machine
    files                  the two files, and their precedence
    change                 changes of `managed.toml` by commands
    tools                  where other tools keep their models
    editable               the settings that the dashboard lists and changes

Rules for retention, auto-update and `[policy]` are in `registry/policies`.  docs/operations.md and
docs/format/settings.md govern the settings.
"""

from __future__ import annotations

from yarnstore.settings.files import config_path, managed_path
from yarnstore.settings.load import Settings, default_home, load_settings, token_variable

__all__ = ["Settings", "config_path", "default_home", "load_settings", "managed_path", "token_variable"]
