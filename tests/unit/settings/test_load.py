"""The environment, config.toml and managed.toml."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from yarnstore.errors import (
    ConfigError,
    ConflictError,
    InvalidNameError,
    NotFoundError,
    StorageError,
    UsageError,
)
from yarnstore.registry.policies import change_auto_update, reset_auto_update
from yarnstore.settings import config_path, default_home, load_settings, managed_path, token_variable
from yarnstore.settings.change import (
    add_registry,
    normal_url,
    remove_registry,
    set_auto_update,
    set_mirrors,
)


def write_config(home: Path, text: str) -> Path:
    home.mkdir(exist_ok=True)
    config_path(home).write_text(text)
    return home


def test_home_is_the_variable_else_the_users_own(tmp_path: Path) -> None:
    assert default_home({"YSTORE_HOME": str(tmp_path)}) == tmp_path
    assert default_home({"YSTORE_HOME": "here"}) == Path.cwd() / "here"
    assert default_home({"YSTORE_HOME": ""}).name == "yarnstore"
    assert default_home({"YSTORE_HOME": "~/models"}) == Path.home() / "models"


@pytest.mark.parametrize("data", [None, "", "/srv/data", "relative/data"])
@pytest.mark.parametrize("home", [None, "", "/home/u", "u"])
def test_the_users_own_home_is_that_of_platformdirs(
    monkeypatch: pytest.MonkeyPatch, data: str | None, home: str | None
) -> None:
    for name, value in (("XDG_DATA_HOME", data), ("HOME", home)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    expected = platformdirs.user_data_path("yarnstore", appauthor=False)
    assert default_home(dict(os.environ) | {"YSTORE_HOME": ""}) == expected


def test_defaults_where_there_is_nothing(tmp_path: Path) -> None:
    found = load_settings(tmp_path / "none", {})
    assert (found.registries, found.connections, found.lock_timeout_s) == ((), 4, 60.0)
    assert not (tmp_path / "none").exists()


def test_the_file_counts_and_the_environment_more(tmp_path: Path) -> None:
    home = write_config(tmp_path, "connections = 2\nlock_timeout = 1.5\n")
    assert (load_settings(home, {}).connections, load_settings(home, {}).lock_timeout_s) == (2, 1.5)
    more = load_settings(home, {"YSTORE_CONNECTIONS": "7", "YSTORE_LOCK_TIMEOUT": "0"})
    assert (more.connections, more.lock_timeout_s) == (7, 0.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("connections = 0", "connections is 0"),
        ("connections = 65", "up to 64"),
        ("connections = 'many'", "'many'"),
        ("connections = nan", "nan"),
        ("connections = true", "True"),
        ("lock_timeout = -1", "-1"),
        ("lock_timeout = inf", "inf"),
        ("registries = 3", "registries is not a list"),
        ("[[registries]]\nname = 'a'", "registries[0] needs a name and a url"),
        ("[[registries]]\nname = 'a'\nurl = 3", "registries[0]"),
        ("[[registries]]\nname='a'\nurl='b'\n[[registries]]\nname='a'\nurl='c'", "'a' is configured twice"),
        ("registries = [3]", "registries[0]"),
        ("[[registries]]\nname='../a'\nurl='b'", "registries[0]: registry name '../a'"),
        ("= 3", "config.toml"),
        ("\x00", "config.toml"),
    ],
)
def test_a_config_that_cannot_be_used_says_where(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(write_config(tmp_path, text), {})
    assert says in caught.value.message


def test_a_config_that_is_no_text_or_too_large(tmp_path: Path) -> None:
    config_path(tmp_path).write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError):
        load_settings(tmp_path, {})
    config_path(tmp_path).write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(ConfigError):
        load_settings(tmp_path, {})


def test_a_bad_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path, {"YSTORE_CONNECTIONS": "lots"})
    assert caught.value.message.startswith("YSTORE_CONNECTIONS is 'lots'")


def test_registries_are_added_in_order_and_removed(tmp_path: Path) -> None:
    write_config(tmp_path, "# mine\nconnections = 2\nunknown = 'kept'\n")
    add_registry(tmp_path, "yarn", "https://a.example.org/")
    add_registry(tmp_path, "team", "/srv/models")
    add_registry(tmp_path, "yarn", "https://a.example.org/")
    found = load_settings(tmp_path, {"YSTORE_TOKEN_TEAM": "secret"})
    assert [(item.name, item.url) for item in found.registries] == [
        ("yarn", "https://a.example.org/"),
        ("team", "/srv/models"),
    ]
    assert [item.token for item in found.registries] == [None, "secret"]
    assert "secret" not in repr(found)
    assert found.connections == 2
    remove_registry(tmp_path, "yarn")
    assert [item.name for item in load_settings(tmp_path, {}).registries] == ["team"]
    assert "unknown = " in config_path(tmp_path).read_text()


def test_registries_that_cannot_be_added_or_removed(tmp_path: Path) -> None:
    add_registry(tmp_path, "yarn", "a")
    before = managed_path(tmp_path).read_bytes()
    for name, url, kind in (
        ("yarn", "b", ConflictError),
        ("YARN", "b", ConflictError),
        ("../x", "b", InvalidNameError),
        ("", "b", InvalidNameError),
    ):
        with pytest.raises(kind):
            add_registry(tmp_path, name, url)
    with pytest.raises(NotFoundError):
        remove_registry(tmp_path, "other")
    assert managed_path(tmp_path).read_bytes() == before
    assert not config_path(tmp_path).exists()


def test_the_variable_of_a_token() -> None:
    assert token_variable("my-team.eu") == "YSTORE_TOKEN_MY_TEAM_EU"


def test_urls_stay_and_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert normal_url("https://example.org/x/") == "https://example.org/x/"
    assert normal_url("file:///x") == "file:///x"
    assert normal_url("./registry") == str(tmp_path / "registry")


COMMENTED = """\
# ours
connections = 2  # the line is thin

[[registries]]
name = "a"  # the first
url = "https://a.test/"
"""


def auto_update(enabled: bool, *models: str, **more: Any) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    return lambda config: change_auto_update(config, models, enabled=enabled, **more)


def test_no_command_writes_the_file_of_people(tmp_path: Path) -> None:
    home = write_config(tmp_path, COMMENTED)
    add_registry(home, "b", "https://b.test/")
    set_auto_update(home, auto_update(True, policy="minor"))
    set_auto_update(home, auto_update(True, "m", policy="patch"))
    found = load_settings(home, {})
    assert [(source.name, source.url) for source in found.registries] == [
        ("a", "https://a.test/"),
        ("b", "https://b.test/"),
    ]
    assert (found.connections, found.auto_update.enabled) == (2, True)
    assert (found.auto_update.of("m").policy, found.auto_update.of("n").policy) == ("patch", "minor")
    assert managed_path(home).read_text().startswith("# Written by ystore commands")
    remove_registry(home, "b")
    with pytest.raises(ConflictError, match=r"config\.toml, line 5, which no command changes"):
        remove_registry(home, "a")
    add_registry(home, "a", "https://a.test/")
    with pytest.raises(ConflictError, match="already exists") as caught:
        add_registry(home, "A", "https://other.test/")
    assert "config.toml, line 5" in caught.value.hint
    assert [source.name for source in load_settings(home, {}).registries] == ["a"]
    assert config_path(home).read_text() == COMMENTED


def test_lines_that_end_as_on_windows_are_counted(tmp_path: Path) -> None:
    home = write_config(tmp_path, "")
    config_path(home).write_bytes(COMMENTED.replace("\n", "\r\n").encode())
    with pytest.raises(ConflictError, match=r"config\.toml, line 5, which no command changes"):
        remove_registry(home, "a")


def test_the_file_of_people_may_be_a_link(tmp_path: Path) -> None:
    """As those make it who keep their configuration in version control."""
    home, kept = tmp_path / "home", tmp_path / "kept.toml"
    home.mkdir()
    kept.write_text("connections = 2\n")
    (home / "config.toml").symlink_to(kept)
    assert load_settings(home, {}).connections == 2
    (home / "managed.toml").symlink_to(kept)
    with pytest.raises(StorageError):
        load_settings(home, {})


def test_the_file_of_people_wins(tmp_path: Path) -> None:
    add_registry(tmp_path, "yarn", "https://a.test/")
    add_registry(tmp_path, "team", "https://b.test/")
    set_auto_update(tmp_path, auto_update(True, policy="minor", windows=["02:00-03:00"], jitter="5m"))
    write_config(
        tmp_path,
        """
[[registries]]
name = "team"
url = "https://c.test/"
mirrors = ["https://d.test/"]

[auto_update]
policy = "patch"
jitter = "1m"

[auto_update.models.m]
windows = [
  "04:00-05:00",
]
""",
    )
    before = config_path(tmp_path).read_bytes()
    found = load_settings(tmp_path, {})
    assert [(source.name, source.url, source.mirrors) for source in found.registries] == [
        ("team", "https://c.test/", ("https://d.test/",)),
        ("yarn", "https://a.test/", ()),
    ]
    rules = found.auto_update
    assert (rules.enabled, rules.default.policy, rules.jitter_s) == (True, "patch", 60.0)
    assert [str(window) for window in rules.default.windows] == ["02:00-03:00"]
    assert [str(window) for window in rules.of("m").windows] == ["04:00-05:00"]
    kept = managed_path(tmp_path).read_bytes()
    for change, where in (
        (auto_update(True, policy="minor"), "auto_update.policy is set in .*, line 8,"),
        (auto_update(True, jitter="2m"), "auto_update.jitter is set in .*, line 9,"),
        (auto_update(True, "m", windows=[]), "auto_update.models.m.windows is set in .*, line 12,"),
    ):
        with pytest.raises(ConflictError, match=where):
            set_auto_update(tmp_path, change)
    assert managed_path(tmp_path).read_bytes() == kept
    set_auto_update(tmp_path, auto_update(True, policy="patch"))
    set_auto_update(tmp_path, auto_update(False))
    assert not load_settings(tmp_path, {}).auto_update.enabled
    assert config_path(tmp_path).read_bytes() == before


def test_what_is_on_in_the_file_of_people_is_not_switched_off(tmp_path: Path) -> None:
    home = write_config(tmp_path, "[auto_update]\nenabled = false\n[auto_update.models.m]\nenabled = true\n")
    with pytest.raises(ConflictError, match="line 4"):
        set_auto_update(home, auto_update(False))
    with pytest.raises(ConflictError, match="line 4"):
        set_auto_update(home, auto_update(False, "m"))
    with pytest.raises(ConflictError, match="line 2"):
        set_auto_update(home, auto_update(True))
    set_auto_update(home, auto_update(True, "n"))
    assert load_settings(home, {}).auto_update.of("n").enabled


def test_only_what_commands_write_counts_in_their_file(tmp_path: Path) -> None:
    managed_path(tmp_path).write_text("require_https = true\n[auto_update]\nlater = 1\n[future]\na = 1\n")
    assert not load_settings(tmp_path, {}).network.require_https
    add_registry(tmp_path, "yarn", "a")
    set_auto_update(tmp_path, auto_update(True))
    remove_registry(tmp_path, "yarn")
    assert tomllib.loads(managed_path(tmp_path).read_text()) == {
        "require_https": True,
        "auto_update": {"later": 1, "enabled": True},
        "future": {"a": 1},
    }


@pytest.mark.parametrize("text", ["= 3", "registries = 3", "auto_update = 3", "[[registries]]\nname = 'a'\n"])
def test_a_managed_file_that_cannot_be_used_is_named(tmp_path: Path, text: str) -> None:
    managed_path(tmp_path).write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path, {})
    assert caught.value.hint
    assert "managed.toml" in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "registries = []",
        'registries = [{name = "a", url = "x"}]',
        "[models]",
        "[models.a]\n",
        "a.b = 3",
        "[[registries]]\nname = 'a'\nurl = 'x'\nmore = {b = 1, c = [{d = 2}]}\n",
    ],
)
def test_a_registry_can_be_added_to_any_file(text: str, tmp_path: Path) -> None:
    home = write_config(tmp_path, text)
    names = [source.name for source in load_settings(home, {}).registries]
    add_registry(home, "b", "https://b.test/")
    assert load_settings(home, {}).registries[-1].name == "b"
    remove_registry(home, "b")
    assert config_path(home).read_text() == text
    assert [source.name for source in load_settings(home, {}).registries] == names


def test_commands_at_once_lose_nothing_of_each_other(tmp_path: Path) -> None:
    names = [f"r{n}" for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: add_registry(tmp_path, name, f"https://{name}.test/"), names))
    assert sorted(source.name for source in load_settings(tmp_path, {}).registries) == sorted(names)


def test_a_token_is_for_one_registry(tmp_path: Path) -> None:
    for name in ("a-b", "a.b", "c"):
        add_registry(tmp_path, name, f"https://{name}.test/")
    assert [source.token for source in load_settings(tmp_path, {"YSTORE_TOKEN_C": "t"}).registries] == [
        None,
        None,
        "t",
    ]
    with pytest.raises(ConfigError, match=r"YSTORE_TOKEN_A_B would be sent to both a-b and a\.b"):
        load_settings(tmp_path, {"YSTORE_TOKEN_A_B": "t"})


def test_mirrors_are_changed_by_a_command(tmp_path: Path) -> None:
    home = write_config(tmp_path, COMMENTED)
    add_registry(home, "b", "https://b.test/")
    add_registry(home, "c", "https://c.test/")
    set_mirrors(
        home, "b", ["https://one.test/x", "https://two.test/", "https://one.test/x", "https://b.test/"]
    )

    def mirrors() -> dict[str, tuple[str, ...]]:
        return {source.name: source.mirrors for source in load_settings(home, {}).registries}

    assert mirrors() == {"a": (), "b": ("https://one.test/x", "https://two.test/"), "c": ()}
    kept = managed_path(home).read_bytes()
    with pytest.raises(ConflictError, match=r"config\.toml, line 5, which no command changes"):
        set_mirrors(home, "a", ["https://one.test/"])
    with pytest.raises(NotFoundError):
        set_mirrors(home, "d", [])
    with pytest.raises(UsageError, match="17 mirrors are too many"):
        set_mirrors(home, "b", [f"https://{n}.test/" for n in range(17)])
    with pytest.raises(UsageError):
        set_mirrors(home, "b", ["https://x/?a=1"])
    assert managed_path(home).read_bytes() == kept
    set_mirrors(home, "b", [])
    assert mirrors()["b"] == ()
    assert "mirrors" not in managed_path(home).read_text()


def test_the_rule_of_one_model_is_removed(tmp_path: Path) -> None:
    home = write_config(tmp_path, '[auto_update.models.fixed]\npolicy = "patch"\n')
    set_auto_update(home, auto_update(True, policy="minor"))
    set_auto_update(home, auto_update(False, "m", "n"))
    set_auto_update(home, partial(reset_auto_update, models=["m"]))
    rules = load_settings(home, {}).auto_update
    assert (rules.of("m").enabled, rules.of("n").enabled, set(rules.models)) == (True, False, {"n", "fixed"})
    with pytest.raises(ConflictError, match="line 1"):
        set_auto_update(home, partial(reset_auto_update, models=["fixed"]))
    set_auto_update(home, partial(reset_auto_update, models=["n"]))
    assert "models" not in managed_path(home).read_text()
