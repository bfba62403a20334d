"""The tables of config.toml that are about single models."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from yarnstore.errors import ConfigError, UsageError
from yarnstore.registry.policies import (
    AutoRule,
    VerifyCommand,
    allows,
    change_auto_update,
    parse_auto_update,
    parse_verify,
)
from yarnstore.registry.windows import Window

NIGHT = Window.parse("Sat,Sun 02:00-05:00")


def config(text: str) -> dict[str, Any]:
    return tomllib.loads(text)


def test_off_where_nothing_is_said() -> None:
    rules = parse_auto_update({})
    assert not rules.enabled
    assert rules.of("phi-3-mini") == AutoRule(False, "notify", ())


def test_a_model_has_what_it_says_and_the_rest_from_all() -> None:
    rules = parse_auto_update(
        config(
            "[auto_update]\nenabled = true\npolicy = 'minor'\nwindows = ['Sat,Sun 02:00-05:00']\n"
            "jitter = '30m'\ntimezone = 'Europe/Berlin'\n"
            "[auto_update.models.'org/whisper']\npolicy = 'patch'\n"
            "[auto_update.models.phi-3-mini]\nenabled = false\nwindows = []\n"
        )
    )
    assert rules.of("other") == AutoRule(True, "minor", (NIGHT,))
    assert rules.of("org/whisper") == AutoRule(True, "patch", (NIGHT,))
    assert rules.of("phi-3-mini") == AutoRule(False, "minor", ())
    assert (rules.jitter_s, rules.timezone, rules.enabled) == (1800.0, "Europe/Berlin", True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("auto_update = 3", "auto_update is not a table"),
        ("[auto_update]\nenabled = 1", "auto_update.enabled is 1"),
        ("[auto_update]\npolicy = 'major'", "not one of notify, patch, minor, security"),
        ("[auto_update]\npolicy = ['minor']", "auto_update.policy"),
        ("[auto_update]\nwindows = 'Sat 02:00-05:00'", "auto_update.windows is not a list"),
        ("[auto_update]\nwindows = ['nights']", "'nights'"),
        ("[auto_update]\njitter = 30", "auto_update.jitter is 30"),
        ("[auto_update]\njitter = 'soon'", "'soon'"),
        ("[auto_update]\njitter = '2d'", "more than a day"),
        ("[auto_update]\njitter = '999999d'", "more than a day"),
        ("[auto_update]\ntimezone = 3", "auto_update.timezone"),
        ("[auto_update]\nmodels = []", "auto_update.models is not a table"),
        ("[auto_update.models.a]\npolicy = 'no'", 'auto_update.models."a".policy'),
        ("[auto_update.models.'../a']", "../a"),
    ],
)
def test_what_cannot_be_read_says_where(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_auto_update(config(text))
    assert says in caught.value.message


def test_switching() -> None:
    before = config("connections = 3\n[auto_update]\njitter = '5m'\n[auto_update.models.a]\nx = 1")
    on = change_auto_update(before, (), enabled=True, policy="minor", windows=["sat,sun 2:00-05:00"])
    assert on["auto_update"] == {
        "enabled": True,
        "policy": "minor",
        "windows": ["Sat,Sun 02:00-05:00"],
        "jitter": "5m",
        "models": {"a": {"x": 1}},
    }
    assert on["connections"] == 3
    assert "enabled" not in before["auto_update"], "the tables given were changed"
    one = change_auto_update(on, ("org/b",), enabled=True, policy="security", jitter="1h")
    assert one["auto_update"]["models"]["org/b"] == {"enabled": True, "policy": "security"}
    assert one["auto_update"]["jitter"] == "1h"
    without = change_auto_update(one, ("a",), enabled=False)
    assert parse_auto_update(without).of("a").enabled is False
    assert parse_auto_update(without).of("c").enabled is True
    off = change_auto_update(one, (), enabled=False)
    assert not parse_auto_update(off).enabled
    assert off["auto_update"]["policy"] == "minor", "what was set is kept for the next time"


@pytest.mark.parametrize(
    "asked",
    [{"windows": ["never"]}, {"policy": "major"}, {"jitter": "x"}],
)
def test_what_cannot_be_set_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        change_auto_update({}, (), enabled=True, **asked)
    with pytest.raises(UsageError):
        change_auto_update({}, ("../x",), enabled=True)


@pytest.mark.parametrize(
    ("policy", "step", "security", "allowed"),
    [
        ("notify", "patch", True, False),
        ("patch", "patch", False, True),
        ("patch", "minor", False, False),
        ("patch", "minor", True, False),
        ("minor", "patch", False, True),
        ("minor", "minor", False, True),
        ("minor", "major", False, False),
        ("minor", "major", True, False),
        ("minor", "prerelease", False, False),
        ("minor", "none", False, False),
        ("minor", "downgrade", False, False),
        ("security", "patch", False, False),
        ("security", "patch", True, True),
        ("security", "minor", True, True),
        ("security", "major", True, False),
    ],
)
def test_what_a_policy_allows(policy: Any, step: str, security: bool, allowed: bool) -> None:
    assert allows(policy, step, security=security) is allowed


def test_verify_commands() -> None:
    found = parse_verify(
        config(
            "[models.'phi-3-mini']\nverify_command = ['app', '--smoke-test', '{path}']\nverify_timeout = 9\n"
            "[models.b]\nvariant = 'gpu'\n"
        )
    )
    assert found == {"phi-3-mini": VerifyCommand(("app", "--smoke-test", "{path}"), 9.0)}
    assert parse_verify({}) == {}


@pytest.mark.parametrize(
    "text",
    ["verify_command = 'app {path}'", "verify_command = []", "verify_command = ['a', 3]",
     "verify_command = ['a']\nverify_timeout = 0", "verify_command = ['a']\nverify_timeout = true",
     "verify_command = ['a']\nverify_timeout = 'x'", "verify_command = ['a']\nverify_timeout = inf"],
)  # fmt: skip
def test_verify_commands_that_cannot_be_used(text: str) -> None:
    with pytest.raises(ConfigError, match=r'models\."a"'):
        parse_verify(config(f"[models.a]\n{text}"))
