"""The environment and config.toml."""

from __future__ import annotations

import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from yarnstore.errors import ConfigError, ConflictError, InvalidNameError, NotFoundError
from yarnstore.settings import (
    add_registry,
    change_config,
    config_path,
    default_home,
    load_settings,
    normal_url,
    remove_registry,
    token_variable,
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
        ("[[registries]]\nname='a'\nurl='b'\n[[registries]]\nname='a'\nurl='c'", "'a' occurs twice"),
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
    before = config_path(tmp_path).read_bytes()
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
    assert config_path(tmp_path).read_bytes() == before


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


def test_what_is_only_added_leaves_comments_as_they_are(tmp_path: Path) -> None:
    home = write_config(tmp_path, COMMENTED)
    add_registry(home, "b", "https://b.test/")
    change_config(home, lambda config: {**config, "auto_update": {"enabled": True}})
    text = config_path(home).read_text()
    assert text.startswith(COMMENTED)
    found = load_settings(home, {})
    assert [(source.name, source.url) for source in found.registries] == [
        ("a", "https://a.test/"),
        ("b", "https://b.test/"),
    ]
    assert (found.connections, found.auto_update.enabled) == (2, True)


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
    before = tomllib.loads(text)
    add_registry(home, "b", "https://b.test/")
    assert load_settings(home, {}).registries[-1].name == "b"
    remove_registry(home, "b")
    after = tomllib.loads(config_path(home).read_text())
    assert {"registries": [], **after} == {"registries": [], **before}


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
