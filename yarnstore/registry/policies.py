"""The settings of models in `config.toml`: automatic updates, self-checks, retention and policies.

    [auto_update]
    enabled = true
    policy = "minor"
    windows = ["Sat,Sun 02:00-05:00"]
    jitter = "30m"
    timezone = "Europe/Berlin"
    network = "unmetered"
    power = "mains"

    [auto_update.models."phi-3-mini"]
    policy = "patch"

    [models."phi-3-mini"]
    verify_command = ["app", "--smoke-test", "{path}"]
    verify_timeout = 60

Retention after an update, and how long views that `path` printed are kept:

    keep = 3
    keep_within = "30d"
    path_grace = "1d"

The disk space that downloads leave free:

    reserve = "5%"

Which versions keep a second copy of their chunks, and whether the previous version's files are kept or a
rollback makes them again:

    keep_copy = "imports"
    rollback = "instant"

    [models."phi-3-mini"]
    rollback = "thin"

What is refused for all models:

    [policy]
    allow_pickle = false
    allow_code = false

Converts the decoded tables to checked rules, and back.  `settings` reads the file; `windows` defines
maintenance windows.  Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

import msgspec

from yarnstore.core.names import parse_model_id
from yarnstore.core.sizes import DEFAULT_RESERVE, Reserve
from yarnstore.errors import ConfigError, InvalidNameError

# Imported only if such a setting exists: few commands need it.
if TYPE_CHECKING:
    from yarnstore.registry.windows import Window

AutoPolicy: TypeAlias = Literal["notify", "patch", "minor", "security"]
POLICIES: tuple[str, ...] = get_args(AutoPolicy)
KeepCopy: TypeAlias = Literal["imports", "always", "never"]
Rollback: TypeAlias = Literal["instant", "thin"]
_KEEP_COPY: tuple[str, ...] = get_args(KeepCopy)
_ROLLBACK: tuple[str, ...] = get_args(Rollback)
NetworkRule: TypeAlias = Literal["any", "unmetered"]
PowerRule: TypeAlias = Literal["any", "mains"]
_NETWORK: tuple[str, ...] = get_args(NetworkRule)
_POWER: tuple[str, ...] = get_args(PowerRule)

DEFAULT_VERIFY_TIMEOUT_S = 120.0
DEFAULT_PATH_GRACE_S = 86_400.0
_MAX_TIMEOUT_S = 86_400.0
# With a longer delay, a run would overlap those that timers start after it.
_MAX_JITTER_S = 86_400.0


class VerifyCommand(msgspec.Struct, frozen=True):
    """The self-check command of a model; `{path}` in its arguments is replaced by the path to open."""

    words: tuple[str, ...]
    timeout_s: float = DEFAULT_VERIFY_TIMEOUT_S


class Retention(msgspec.Struct, frozen=True):
    """The versions that `gc` keeps without options, and that an update keeps; None if not set.

    `keep` is the number of newest versions of each model; versions that were downloaded or used within the
    last `keep_within_s` seconds are kept as well.  A view that `path` printed is kept for `path_grace_s`
    seconds after that, or after it was last installed.  `rollback` decides whether the files of the version
    before the installed one are kept, `rollback_of` the same for single models, and `keep_copy` which
    versions keep a second copy.
    """

    keep: int | None = None
    keep_within_s: float | None = None
    path_grace_s: float = DEFAULT_PATH_GRACE_S
    keep_copy: KeepCopy = "imports"
    rollback: Rollback = "instant"
    rollback_of: Mapping[str, Rollback] = msgspec.field(default_factory=dict)

    @property
    def is_set(self) -> bool:
        """Whether anything is deleted after an update."""
        return self.keep is not None or self.keep_within_s is not None


class LoadPolicy(msgspec.Struct, frozen=True):
    """Whether files that run code when they are loaded are accepted: pickles, and other code."""

    allow_pickle: bool = True
    allow_code: bool = True

    @property
    def restricts(self) -> bool:
        """Whether anything is refused."""
        return not (self.allow_pickle and self.allow_code)


class AutoRule(msgspec.Struct, frozen=True):
    """The auto-update rule of one model; without windows it applies at any time."""

    enabled: bool = False
    policy: AutoPolicy = "notify"
    windows: tuple[Window, ...] = ()


class AutoRules(msgspec.Struct, frozen=True):
    """The auto-update rule of all models, and the rules of single ones.

    `jitter_s` is the longest random delay before a run, in seconds; `timezone` is the time zone of the
    windows, empty for the machine's.  `network` and `power` limit runs to networks that are not metered, and
    to mains power.
    """

    default: AutoRule = msgspec.field(default_factory=AutoRule)
    models: Mapping[str, AutoRule] = msgspec.field(default_factory=dict)
    jitter_s: float = 0.0
    timezone: str = ""
    network: NetworkRule = "any"
    power: PowerRule = "any"

    @property
    def enabled(self) -> bool:
        """Whether auto-update is enabled for any model."""
        return self.default.enabled or any(rule.enabled for rule in self.models.values())

    def of(self, model: str) -> AutoRule:
        """Return the rule of a model."""
        return self.models.get(model, self.default)


def allows(policy: AutoPolicy, step: str, *, security: bool) -> bool:
    """Whether a policy lets auto-update install an update; `step` is its type, ignoring security.

    Never a major update or a prerelease.
    """
    if step not in ("patch", "minor"):
        return False
    if policy == "security":
        return security
    return policy == "minor" or (policy == "patch" and step == "patch")


# --- from the tables and back --------------------------------------------------------------------


def parse_auto_update(config: Mapping[str, Any]) -> AutoRules:
    """Read `[auto_update]`.  Raises: ConfigError."""
    table = _table(config, "auto_update", "auto_update")
    if not table:
        return AutoRules()
    default = _rule(table, AutoRule(), "auto_update")
    models = {}
    tables = _table(table, "models", "auto_update.models")
    for model in tables:
        where = f'auto_update.models."{model}"'
        models[_model(model, where)] = _rule(_table(tables, model, where), default, where)
    from yarnstore.registry.windows import parse_duration_s

    jitter = _text(table, "jitter", "0s", "auto_update")
    try:
        jitter_s = parse_duration_s(jitter)
    except InvalidNameError as error:
        raise ConfigError(f"auto_update.jitter: {error.message}") from None
    if jitter_s > _MAX_JITTER_S:
        raise ConfigError(f"auto_update.jitter is {jitter!r}, more than a day", hint="use a time such as 30m")
    return AutoRules(
        default,
        models,
        jitter_s,
        timezone=_text(table, "timezone", "", "auto_update"),
        network=cast(NetworkRule, _choice(table, "network", _NETWORK, "auto_update")),
        power=cast(PowerRule, _choice(table, "power", _POWER, "auto_update")),
    )


def _rule(table: Mapping[str, Any], default: AutoRule, where: str) -> AutoRule:
    enabled = table.get("enabled", default.enabled)
    if not isinstance(enabled, bool):
        raise ConfigError(f"{where}.enabled is {enabled!r}, not true or false")
    policy = table.get("policy", default.policy)
    if policy not in POLICIES:
        raise ConfigError(f"{where}.policy is {policy!r}, not one of {', '.join(POLICIES)}")
    windows = default.windows
    if "windows" in table:
        from yarnstore.registry.windows import Window

        texts = table["windows"]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ConfigError(f"{where}.windows is not a list of strings")
        try:
            windows = tuple(map(Window.parse, texts))
        except InvalidNameError as error:
            raise ConfigError(f"{where}.windows: {error.message}") from None
    return AutoRule(enabled, cast(AutoPolicy, policy), windows)


def parse_verify(config: Mapping[str, Any]) -> dict[str, VerifyCommand]:
    """Return the `verify_command` of each model that has one.  Raises: ConfigError."""
    found = {}
    tables = _table(config, "models", "models")
    for model in tables:
        where = f'models."{model}"'
        table = _table(tables, model, where)
        if "verify_command" not in table:
            continue
        words = table["verify_command"]
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            raise ConfigError(f"{where}.verify_command is not a list of words")
        timeout = table.get("verify_timeout", DEFAULT_VERIFY_TIMEOUT_S)
        if isinstance(timeout, bool) or not isinstance(timeout, int | float):
            raise ConfigError(f"{where}.verify_timeout is {timeout!r}, not a number of seconds")
        if not 0 < timeout <= _MAX_TIMEOUT_S:
            raise ConfigError(f"{where}.verify_timeout is {timeout!r}, not between 0 and {_MAX_TIMEOUT_S:g}")
        found[_model(model, where)] = VerifyCommand(tuple(words), float(timeout))
    return found


def parse_retention(config: Mapping[str, Any]) -> Retention:
    """Read `keep`, `keep_within`, `path_grace`, `keep_copy` and `rollback`.  Raises: ConfigError."""
    keep = config.get("keep")
    if keep is not None and (isinstance(keep, bool) or not isinstance(keep, int) or keep < 0):
        raise ConfigError(f"keep is {keep!r}, not a number of versions", hint="for example keep = 3")
    grace = _age_s(config, "path_grace", "1d")
    tables = _table(config, "models", "models")
    rollback_of = {}
    for model in tables:
        where = f'models."{model}"'
        table = _table(tables, model, where)
        if "rollback" in table:
            rollback_of[_model(model, where)] = cast(Rollback, _choice(table, "rollback", _ROLLBACK, where))
    return Retention(
        keep=keep,
        keep_within_s=_age_s(config, "keep_within", "30d"),
        path_grace_s=DEFAULT_PATH_GRACE_S if grace is None else grace,
        keep_copy=cast(KeepCopy, _choice(config, "keep_copy", _KEEP_COPY)),
        rollback=cast(Rollback, _choice(config, "rollback", _ROLLBACK)),
        rollback_of=rollback_of,
    )


def parse_reserve(config: Mapping[str, Any]) -> Reserve:
    """Read `reserve`, the disk space that downloads leave free.  Raises: ConfigError."""
    value = config.get("reserve")
    if value is None:
        return DEFAULT_RESERVE
    try:
        return Reserve.parse("" if isinstance(value, bool) else str(value))
    except InvalidNameError:
        raise ConfigError(
            f"reserve is {value!r}, neither a share of the disk nor a size",
            hint='for example reserve = "5%" or reserve = "10G"',
        ) from None


def _choice(table: Mapping[str, Any], key: str, words: Sequence[str], where: str = "") -> str:
    """Return one of several words, the first if nothing is set.  Raises: ConfigError."""
    value = table.get(key, words[0])
    if value not in words:
        name = f"{where}.{key}" if where else key
        raise ConfigError(f"{name} is {value!r}, not one of {', '.join(words)}")
    return str(value)


def _age_s(config: Mapping[str, Any], key: str, example: str) -> float | None:
    value = config.get(key)
    if value is None:
        return None
    from yarnstore.registry.windows import parse_age_s

    try:
        return parse_age_s(value if isinstance(value, str) else str(value))
    except InvalidNameError:
        raise ConfigError(
            f"{key} is {value!r}, not a time with m, h, d or w", hint=f'for example {key} = "{example}"'
        ) from None


def change_auto_update(
    config: Mapping[str, Any],
    models: Sequence[str],
    *,
    enabled: bool,
    policy: str | None = None,
    windows: Sequence[str] | None = None,
    jitter: str | None = None,
) -> dict[str, Any]:
    """Return the tables with auto-update changed, for some models or for all; values that are not given are
    kept.

    Disabling it for all models also disables it in the tables of single models.

    Raises: ConfigError, InvalidNameError.
    """
    import copy

    from yarnstore.registry.windows import Window, parse_duration_s

    changed = copy.deepcopy(dict(config))
    table = changed.setdefault("auto_update", {})
    parse_auto_update(changed)  # checks the types that the code below relies on
    asked = {
        "enabled": enabled,
        **({} if policy is None else {"policy": policy}),
        **({} if windows is None else {"windows": [str(Window.parse(text)) for text in windows]}),
    }
    if jitter is not None:
        parse_duration_s(jitter)
        table["jitter"] = jitter
    if models:
        tables = table.setdefault("models", {})
        for model in models:
            tables.setdefault(parse_model_id(model), {}).update(asked)
    else:
        table.update(asked)
        if not enabled:
            for other in table.get("models", {}).values():
                other["enabled"] = False
    parse_auto_update(changed)
    return changed


def reset_auto_update(config: Mapping[str, Any], models: Sequence[str]) -> dict[str, Any]:
    """The tables without the rules of some models, which then follow the rule of all.

    Raises: ConfigError, InvalidNameError.
    """
    import copy

    parse_auto_update(config)
    changed = copy.deepcopy(dict(config))
    tables = changed.get("auto_update", {}).get("models", {})
    for model in models:
        tables.pop(parse_model_id(model), None)
    if not tables:
        changed.get("auto_update", {}).pop("models", None)
    return changed


def parse_load_policy(config: Mapping[str, Any]) -> LoadPolicy:
    """Read `[policy]`.

    Raises: ConfigError, also for unknown keys, since a misspelt one would refuse nothing.
    """
    table = _table(config, "policy", "policy")
    known = ("allow_pickle", "allow_code")
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"policy.{key} is not a setting", hint=f"use {' or '.join(known)}")
        if not isinstance(value, bool):
            raise ConfigError(f"policy.{key} is {value!r}, not true or false")
    return LoadPolicy(**table)


def _table(config: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    table = config.get(key, {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} is not a table")
    return table


def _text(table: Mapping[str, Any], key: str, default: str, where: str) -> str:
    value = table.get(key, default)
    if not isinstance(value, str):
        raise ConfigError(f"{where}.{key} is {value!r}, not a string")
    return value


def _model(text: str, where: str) -> str:
    try:
        return parse_model_id(text)
    except InvalidNameError as error:
        raise ConfigError(f"{where}: {error.message}") from None
