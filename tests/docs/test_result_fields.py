"""Commands print with `--json` the fields that docs/results.md lists, of the types that it names."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest

from tests.docs.cli_reference import commands
from tests.docs.result_fields import OUTPUT, Shape, fields_of, is_result, result_types
from tests.support.stores import make_version
from yarnstore import results
from yarnstore.cli import cli, run

TOUR = """
publish one phi-3-mini@1.0.0 --registry registry --changelog First --tag small
publish two phi-3-mini@1.1.0 --registry registry --changelog Second
publish other whisper@1.0.0 --registry registry --changelog First
registry add made registry
registry list
registry refresh
registry mirrors made
registry lint registry
search
show phi-3-mini
compat phi-3-mini
fetch phi-3-mini@1.0.0
fetch phi-3-mini@1.0.0 whisper
checkout phi-3-mini@1.0.0
outdated
update phi-3-mini --dry-run
update --all
rollback phi-3-mini
log phi-3-mini
list
list --all
pin phi-3-mini
unpin phi-3-mini
path phi-3-mini
diff phi-3-mini@1.0.0 @1.1.0
inspect phi-3-mini
lock phi-3-mini
lock --digest
fetch --locked
checkout --locked
queue
fetch whisper --queue
queue list
queue run
fetch whisper --queue
queue remove whisper
import one mine@0.1.0
import --from-local-state state/local-state.json
export phi-3-mini@1.0.0 copy
export phi-3-mini@1.0.0 oci:layout
import oci:layout phi
identify copy/model.bin
adopt copy
adopt --undo
remove mine@0.1.0
remove --undo mine@0.1.0
remove mine@0.1.0
move elsewhere
registry alias phi-3-mini stable 1.0.0 --registry registry
registry deprecate phi-3-mini@1.0.0 --registry registry
registry yank phi-3-mini@1.0.0 --registry registry
registry set-current phi-3-mini 1.1.0 --registry registry
registry optimize registry
registry refresh
list
auto-update enable
auto-update status
auto-update run --now
auto-update disable
auto-update disable phi-3-mini
auto-update reset phi-3-mini
auto-update install-timer --kind cron --dir timers
status
du
stats
gc --keep 0 --dry-run
gc --keep 0
fsck
doctor
registry remove made
completion bash
help list
help --man pages
"""


def faults(value: Any, shape: Shape, where: str) -> Iterator[str]:
    """Where a JSON value is not of a shape: a field too many or too few, or another type."""
    origin, parts = get_origin(shape), [part for part in get_args(shape) if part is not Ellipsis]
    if isinstance(shape, dict) or is_result(shape):
        fields = fields_of(shape) if is_result(shape) else dict.fromkeys(shape, (object, ""))
        if not isinstance(value, dict) or set(value) != set(fields):
            yield f"{where}: {value} has not the fields {sorted(fields)}"
            return
        for name, (kind, _) in fields.items():
            yield from faults(value[name], kind, f"{where}.{name}")
    elif origin in (Union, types.UnionType):
        found = [[*faults(value, part, where)] for part in parts]
        if all(found):
            yield found[0][0]
    elif origin is Literal:
        if value not in parts:
            yield f"{where}: {value!r} is none of {parts}"
    elif origin in (list, tuple):
        if not isinstance(value, list):
            yield f"{where}: {value!r} is no list"
            return
        for number, item in enumerate(value):
            yield from faults(item, parts[0], f"{where}[{number}]")
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{where}: {value!r} is no object"
            return
        for name, item in value.items():
            yield from faults(item, parts[1], f"{where}.{name}")
    elif not isinstance(value, (int, float) if shape is float else shape):
        yield f"{where}: {value!r} is no {shape.__name__}"


def command_of(words: list[str]) -> str:
    return max(
        (path for path in OUTPUT if ["ystore", *words[:2]][: path.count(" ") + 1] == path.split()), key=len
    )


def ready_line() -> Any:
    """What `ystore serve --json` prints; None without the extra `web`."""
    if importlib.util.find_spec("litestar") is None:
        return None
    command = [sys.executable, "-m", "yarnstore", "serve", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            return json.loads(process.stdout.readline())
        finally:
            process.terminate()


def test_each_command_prints_what_the_page_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, version in (("one", "1.0.0"), ("two", "1.1.0"), ("other", "1.0.0")):
        make_version(tmp_path / name, version, model="whisper" if name == "other" else "phi-3-mini")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "local-state.json").write_text('{"installed_models": {}}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("YSTORE_HOME", str(tmp_path / "home"))
    seen: dict[str, set[int]] = {path: set() for path in OUTPUT}
    if ready := ready_line():
        assert not list(faults(ready, OUTPUT["ystore serve"][0][1], "serve"))
    del seen["ystore serve"]  # which does not return
    for line in filter(None, TOUR.splitlines()):
        words = line.split()
        code = run([*words, "--json"])
        out = capsys.readouterr().out
        assert code == 0 or words == ["doctor"], f"{line}: {out}"
        path, value = command_of(words), json.loads(out)
        found = {number: [*faults(value, shape, path)] for number, (_, shape) in enumerate(OUTPUT[path])}
        fitting = {number for number, wrong in found.items() if not wrong}
        assert fitting, f"{line}: {found}"
        seen[path] |= fitting
    assert {
        path: OUTPUT[path][number][0]
        for path in seen
        for number in range(len(OUTPUT[path]))
        if number not in seen[path]
    } == {}


def test_no_command_is_left_out() -> None:
    groups = {path.rpartition(" ")[0] for path, _ in commands(cli)} - {"ystore", "ystore queue"}
    assert {path for path, _ in commands(cli)} - groups == set(OUTPUT)


def test_the_page_has_all_types_of_results() -> None:
    names = {shape.__name__ for shape in result_types()}
    public = {name for name in results.__all__ if is_result(getattr(results, name))}
    assert names >= public
    assert "Finding" in names


@pytest.mark.parametrize(
    "value",
    [
        {"path": "a", "digest": "b", "changed": True},
        {"path": "a", "digest": "b", "changed": True, "builds": [], "more": 1},
        {"path": "a", "digest": "b", "changed": True, "builds": [{}]},
        {"path": "a", "digest": None, "changed": True, "builds": []},
    ],
    ids=["too few", "too many", "inside", "another type"],
)
def test_the_check_sees_other_fields(value: object) -> None:
    assert list(faults(value, results.LockResult, "lock"))
    assert not list(
        faults({"path": "a", "digest": "b", "changed": True, "builds": []}, results.LockResult, "")
    )
