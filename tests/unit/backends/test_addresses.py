"""Addresses of registries as people paste them work, or the error says what to write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import static_server
from tests.support.stores import Site, make_site
from yarnstore import Store
from yarnstore.backends.urls import plain_address
from yarnstore.cli import run
from yarnstore.errors import UsageError
from yarnstore.settings import config_path, load_settings

SECRET = "s3cr3t"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("site"), versions=("1.0.0",))


@pytest.fixture(scope="module")
def url(site: Site) -> Iterator[str]:
    with static_server(site.root) as found:
        yield f"{found}registry/"


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "{}registry.json",
        "{}index.html",
        "{}/registry.json",
        "\u200b{}registry.json\u200b",
        "\ufeff<{}>\u00a0",
        "{}#models",
        "{}registry.json#L3",
        " {} ",
        '"{}"',
        "'{}registry.json'",
        "<{}>",
    ],
)
def test_what_is_pasted_from_a_browser_works(tmp_path: Path, url: str, form: str) -> None:
    with Store.open(tmp_path / "home") as store:
        assert store.add_registry("made", form.format(url)).url == url
        assert store.fetch("phi-3-mini").version == "1.0.0"
        assert store.lint_registry(form.format(url)).versions == 1
    home = tmp_path / "by-hand"
    home.mkdir()
    table = {"name": "a", "url": str(tmp_path / "none"), "mirrors": [form.format(url)]}
    config_path(home).write_text(
        "[[registries]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
    )
    assert load_settings(home, {}).registries[0].mirrors == (url,)
    with Store.open(home) as store:
        assert store.fetch("phi-3-mini").version == "1.0.0"


def test_a_mirror_that_a_registry_names_may_be_pasted(tmp_path: Path, site: Site) -> None:
    copied = site.copy(tmp_path / "copy", registry=True)
    with static_server(copied.registry) as main, static_server(site.registry) as mirror:
        path = copied.registry / "registry.json"
        doc = json.loads(path.read_text())
        path.write_text(json.dumps({**doc, "mirrors": [f" {mirror}registry.json#top"]}))
        for pack in (copied.registry / "packs").iterdir():
            pack.unlink()
        with Store.open(tmp_path / "home") as store:
            store.add_registry("made", main)
            assert store.fetch("phi-3-mini").version == "1.0.0"


@pytest.mark.parametrize("form", ["./registry", "registry", "registry/", "registry/registry.json"])
def test_folders_go_on_working(
    tmp_path: Path, site: Site, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site.root)
    with Store.open(tmp_path / "home") as store:
        assert store.add_registry("made", form).url == str(site.registry)
        assert store.add_registry("file", f"file://{site.registry}/registry.json").models == 1
        assert store.lint_registry(form).versions == 1


def test_a_folder_named_like_a_host_is_a_folder(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.example.org").symlink_to(site.registry)
    with Store.open(tmp_path / "home") as store:
        assert store.add_registry("made", "models.example.org").models == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models.example.org/yarn", "https://models.example.org/yarn"),
        ("models.example.org", "https://models.example.org"),
        ("user:pw@models.example.org/x", "https://models.example.org/x"),
        ("127.0.0.1:8000/registry.json", "write http://127.0.0.1:8000"),
        ("localhost:8000", "write http://localhost:8000"),
        ("http//models.example.org/x", "write http://models.example.org/x"),
        ("https//user:pw@models.example.org/x", "write https://models.example.org/x"),
        ("http:/models.example.org/x", "write http://models.example.org/x"),
        ("https:models.example.org", "write https://models.example.org"),
        ("https:///models.example.org", "write https://models.example.org"),
        ("htp://models.example.org/x", "write http://models.example.org/x"),
        ("hxxps://models.example.org/x", "write https://models.example.org/x"),
        ("https;//models.example.org/x", "write https://models.example.org/x"),
        ("view-source:http://models.example.org/x", "write http://models.example.org/x"),
        ("feed:https://models.example.org/x", "write https://models.example.org/x"),
        ("git+https://user:pw@models.example.org/x", "write https://models.example.org/x"),
        ("C:\\models", "Windows path"),
        ("C:/models", "Windows path"),
        ("\\\\server\\models", "Windows path"),
        ("https://models.example.org/?token=s", "has a query"),
    ],
)
def test_what_can_be_no_registry_is_refused_before_it_is_kept(tmp_path: Path, text: str, said: str) -> None:
    with Store.open(tmp_path / "home") as store:
        for call in (lambda: store.add_registry("made", text), lambda: store.lint_registry(text)):
            with pytest.raises(UsageError) as caught:
                call()
            assert said in f"{caught.value.message} {caught.value.hint}"
            assert "pw" not in str(caught.value.as_dict())
        assert store.list_registries() == []


@pytest.mark.parametrize(
    "form", ["https://h.test/r?sig={}", "https://h.test/registry.json?sig={}", "h.test/r?s={}"]
)
def test_the_secrets_of_an_address_are_never_printed(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("YSTORE_HOME", str(tmp_path))
    address = form.format(SECRET)
    assert run(["registry", "add", "x", address]) == 2
    assert run(["registry", "lint", address]) != 0
    out, err = capfd.readouterr()
    assert "https://h.test/r" in err
    assert SECRET not in out + err
    config_path(tmp_path).write_text(
        f'[[registries]]\nname = "x"\nurl = "{address}"\nmirrors = ["{address}"]\n'
    )
    for words in (
        ["registry", "list"],
        ["registry", "refresh"],
        ["fetch", "m"],
        ["search"],
        ["doctor"],
        ["outdated"],
        ["status"],
    ):
        for more in ([], ["--json"], ["-v"]):
            run([*words, *more])
            out, err = capfd.readouterr()
            assert SECRET not in out + err, (words, more)


def test_an_empty_address_is_no_folder(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, pytest.raises(UsageError, match="is empty"):
        store.add_registry("made", " ")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("HTTPS://Models.Example.ORG:443/a/", "https://models.example.org/a"),
        ("http://[::1]:8080/A", "http://[::1]:8080/A"),
        ("https://h:80", "https://h:80"),
        ("file:///srv/a%20b/", "/srv/a b"),
        ("file:/srv/a", "/srv/a"),
        ("/srv/a", "/srv/a"),
        ("http://h:99999/", "http://h:99999"),
    ],
)
def test_an_address_has_one_plain_spelling(text: str, plain: str) -> None:
    assert plain_address(text) == plain
