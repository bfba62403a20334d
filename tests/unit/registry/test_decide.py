"""`decisions.txt` against `registry/decide` and against a naive reading of the same rules."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.support.naive_registry import Row, in_range, naive_decision, read_registry
from yarnstore.errors import FormatError, InvalidNameError
from yarnstore.registry.decide import (
    Decision,
    Policy,
    changes_between,
    decide,
    fitting_variant,
    format_gb,
    incompatibility,
    memory_warning,
    newest_fitting,
)
from yarnstore.registry.entries import ModelEntry
from yarnstore.registry.host import Host
from yarnstore.registry.pins import FREE, PinRule, format_hold, parse_hold
from yarnstore.registry.ranges import Range
from yarnstore.registry.schema import check_raw_model
from yarnstore.registry.select import builds_of
from yarnstore.registry.standing import standing

TABLE = Path(__file__).with_name("decisions.txt")


def read_table() -> tuple[dict[str, str], list[Row]]:
    """The registries by name, and the rows."""
    registries, rows = {}, []
    for text in TABLE.read_text(encoding="utf-8").splitlines():
        line = text.partition("#")[0].strip()
        if line.startswith("registry "):
            name, _, versions = line.removeprefix("registry ").partition(":")
            registries[name.strip()] = versions.strip()
        elif line:
            rows.append(Row(*(cell.strip() for cell in line.split("|"))))
    return registries, rows


REGISTRIES, ROWS = read_table()


def make_model(text: str) -> ModelEntry:
    """The registry entry that a line of the table stands for."""
    versions, current = read_registry(text)
    raw: dict[str, Any] = {"model_id": "m", "versions": {}, "current_version": current}
    for version, marks in versions.items():
        entry: dict[str, Any] = {
            "variant": marks.get("only", "cpu"),
            "yanked": "yanked" in marks,
            "security": "security" in marks,
            "compatibility": [marks["app"]] if "app" in marks else [],
            "changelog": f"changes of {version}",
        }
        least = marks.get(f"ram-{entry['variant']}", marks.get("ram"))
        if least is not None:
            entry["minimum_ram_gb"] = float(least)
        if "gpu" in marks:
            gpu = marks.get("ram-gpu", marks.get("ram"))
            further = {"minimum_ram_gb": float(gpu)} if gpu else {}
            entry["variants"] = {"gpu": {**further, "yanked": "yanked-gpu" in marks}}
        raw["versions"][version] = entry
    return check_raw_model(raw, "m")


def decide_row(row: Row) -> Decision:
    ask = row.ask.split("+")
    to = next((word[3:] for word in ask if word.startswith("to:")), None)
    if row.pin == "=":
        hold = PinRule(version=row.installed)
    elif row.pin[0] in ":@":
        variant, _, wanted = row.pin.removeprefix(":").partition("@")
        hold = PinRule(None, Range.parse(wanted) if wanted else None, variant or None)
    else:
        hold = FREE
    return decide(
        make_model(REGISTRIES[row.registry]),
        row.installed,
        "cpu",
        machine=Host(None if row.app == "-" else row.app, None if row.ram == "-" else float(row.ram)),
        hold=hold,
        policy=Policy("major" in ask, Range.parse(to) if to else None, "force" in ask),
    )


def row_id(row: Row) -> str:
    return " ".join((row.registry, row.installed, row.app, row.ram, row.pin, row.ask))


def test_the_table_is_a_few_hundred_rows_and_none_twice() -> None:
    assert len(ROWS) >= 300
    assert len({row_id(row) for row in ROWS}) == len(ROWS)
    assert {row.registry for row in ROWS} == set(REGISTRIES)
    assert {row.obstacle for row in ROWS} == {"-", "application", "memory", "major", "pinned"}
    assert {row.kind for row in ROWS} >= {"-", "major", "minor", "patch", "security", "prerelease", "none"}


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_decision(row: Row) -> None:
    expected = (row.wanted, row.kind, row.obstacle)
    assert naive_decision(REGISTRIES[row.registry], row) == expected
    found = decide_row(row)
    wanted = found.wanted.version if found.wanted else "-"
    assert (wanted, found.kind or "-", found.blocker or "-") == expected
    assert (found.incompatibility is not None) == (found.blocker in ("application", "memory"))
    if found.wanted is not None:
        assert found.changes == () or found.changes[0].version == found.wanted.version


LADDER = (
    "0.1.0", "0.1.1", "0.2.0", "1.0.0-rc.1", "1.0.0-rc.2", "1.0.0", "1.0.1", "1.1.0", "1.1.0+b",
    "1.2.0-beta.1", "1.2.0", "2.0.0-rc.1", "2.0.0", "2.0.0+a", "2.1.0", "3.0.0",
)  # fmt: skip


def made_up(random: Random) -> tuple[str, Row]:
    """A registry and a row that nobody thought of."""
    numbers = sorted(random.sample(LADDER, random.randint(1, 8)), key=LADDER.index)
    current = random.choice([*numbers, None, None])
    tokens = []
    for number in numbers:
        marks = [mark for mark, odds in (("security", 0.12), ("yanked", 0.2)) if random.random() < odds]
        if random.random() < 0.25:
            marks.append("app:" + random.choice([">=2.0.0", ">=1.5", "<2", "^1.0.0"]))
        if random.random() < 0.2:
            marks.append("ram:" + random.choice(["4", "16"]))
        marks += random.choice([["gpu"], ["gpu", "yanked-gpu"], ["only:gpu"], [], [], [], [], [], [], []])
        star = "*" if number == current else ""
        tokens.append(number + star + (f"[{';'.join(marks)}]" if marks else ""))
    pins = ("-", "-", "-", "=", "@^1.0.0", "@>=1.1", "@>=2.0.0-0", "@<2", ":gpu", ":gpu@1.x")
    asks = ("-", "-", "major", "force", "to:^1.0.0", "to:>=1.1.0", "to:2.x", "to:>=2.0.0-0", "major+force")
    return " ".join(tokens), Row(
        "made up",
        random.choice(LADDER),
        random.choice(["-", "1.0.0", "1.5.0", "2.0.0", "2.0.0-beta"]),
        random.choice(["-", "8", "2"]),
        random.choice(pins),
        random.choice(asks),
    )


def test_decisions_about_what_nobody_thought_of(monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random("decisions")
    for _ in range(3000):
        registry, row = made_up(random)
        monkeypatch.setitem(REGISTRIES, row.registry, registry)
        found = decide_row(row)
        decided = (found.wanted.version if found.wanted else "-", found.kind or "-", found.blocker or "-")
        assert decided == naive_decision(registry, row), (registry, row)


# https://github.com/npm/node-semver, README, "Ranges" and "Advanced Range Syntax": what each
# example there says that it means, and versions beside its edges.
NPM_EXAMPLES = {
    ">=1.2.7": (["1.2.7", "1.2.8", "2.5.3", "1.3.9"], ["1.2.6", "1.1.0"]),
    ">=1.2.7 <1.3.0": (["1.2.7", "1.2.8", "1.2.99"], ["1.2.6", "1.3.0", "1.1.0"]),
    "1.2.7 || >=1.2.9 <2.0.0": (["1.2.7", "1.2.9", "1.4.6"], ["1.2.8", "2.0.0"]),
    ">1.2.3-alpha.3": (["1.2.3-alpha.7", "3.4.5"], ["3.4.5-alpha.9", "1.2.3-alpha.3"]),
    "1.2.3 - 2.3.4": (["1.2.3", "2.3.4"], ["1.2.2", "2.3.5"]),
    "1.2 - 2.3.4": (["1.2.0", "2.3.4"], ["1.1.9", "2.3.5"]),
    "1.2.3 - 2.3": (["1.2.3", "2.3.99"], ["2.4.0", "1.2.2"]),
    "1.2.3 - 2": (["1.2.3", "2.99.0"], ["3.0.0"]),
    "*": (["0.0.0", "9.9.9"], ["1.0.0-rc.1"]),
    "1.x": (["1.0.0", "1.99.0"], ["0.9.0", "2.0.0"]),
    "1.2.x": (["1.2.0", "1.2.9"], ["1.1.9", "1.3.0"]),
    "": (["0.0.0", "7.0.0"], ["7.0.0-a"]),
    "1": (["1.0.0", "1.9.9"], ["2.0.0", "0.9.9"]),
    "1.2": (["1.2.0"], ["1.3.0"]),
    "~1.2.3": (["1.2.3", "1.2.9"], ["1.3.0", "1.2.2"]),
    "~1.2": (["1.2.0"], ["1.3.0"]),
    "~1": (["1.0.0", "1.9.0"], ["2.0.0"]),
    "~0.2.3": (["0.2.3", "0.2.9"], ["0.3.0"]),
    "~0.2": (["0.2.0"], ["0.3.0"]),
    "~0": (["0.0.0", "0.9.9"], ["1.0.0"]),
    "~1.2.3-beta.2": (["1.2.3-beta.4", "1.2.3"], ["1.2.4-beta.2", "1.2.3-beta.1"]),
    "^1.2.3": (["1.2.3", "1.9.0"], ["2.0.0", "1.2.2"]),
    "^0.2.3": (["0.2.3", "0.2.9"], ["0.3.0"]),
    "^0.0.3": (["0.0.3"], ["0.0.4"]),
    "^1.2.3-beta.2": (["1.2.3-beta.4", "1.3.0"], ["1.2.4-beta.2", "2.0.0-alpha"]),
    "^0.0.3-beta": (["0.0.3-pr.2", "0.0.3"], ["0.0.4"]),
    "^1.2.x": (["1.2.0", "1.9.0"], ["2.0.0"]),
    "^0.0.x": (["0.0.0", "0.0.9"], ["0.1.0"]),
    "^0.0": (["0.0.9"], ["0.1.0"]),
    "^1.x": (["1.0.0", "1.5.0"], ["2.0.0"]),
    "^0.x": (["0.0.0", "0.9.0"], ["1.0.0"]),
}


@pytest.mark.parametrize("text", NPM_EXAMPLES)
def test_the_ranges_of_npms_documentation(text: str) -> None:
    inside, outside = NPM_EXAMPLES[text]
    read = Range.parse(text)
    assert [version for version in inside if not (read.matches(version) and in_range(text, version))] == []
    assert [version for version in outside if read.matches(version) or in_range(text, version)] == []


def test_changes_are_those_of_every_version_crossed() -> None:
    model = make_model("1.0.0 1.1.0[security] 1.2.0[yanked] 2.0.0-rc.1 2.0.0 2.1.0*")
    crossed = changes_between(model, "1.0.0", "2.1.0")
    assert [(change.version, change.kind, change.breaking) for change in crossed] == [
        ("2.1.0", "minor", False),
        ("2.0.0", "major", True),
        ("1.1.0", "security", False),
    ]
    assert crossed[-1].changelog == "changes of 1.1.0"
    assert changes_between(model, "2.1.0", "2.1.0") == ()


def test_what_does_not_fit_says_what_is_needed_and_what_there_is() -> None:
    model = make_model("1.0.0 1.1.0[ram-gpu:16;ram-cpu:4;gpu] 2.0.0*[app:>=2.0.0]")
    machine = Host("1.5.0", 8.0, ("gpu",))
    (gated,) = builds_of(model, "2.0.0")
    assert str(incompatibility(gated, machine)) == "2.0.0 needs application version >=2.0.0; yours is 1.5.0"
    cpu, gpu = builds_of(model, "1.1.0")
    assert incompatibility(cpu, machine) is None
    assert str(incompatibility(gpu, machine)) == "1.1.0 needs 16 GB of memory; this machine has 8 GB"
    assert fitting_variant(model, "1.1.0", machine) == cpu
    assert fitting_variant(model, "1.1.0", Host(None, 32.0, ("gpu",))) == gpu
    assert newest_fitting(model, machine) == cpu
    assert newest_fitting(model, Host("2.0.0", 8.0)) == gated
    assert newest_fitting(model, Host(None, 1.0), "gpu") is None
    assert incompatibility(gated, Host("2.1.0-rc.1")) is None
    with pytest.raises(InvalidNameError):
        decide(model, "1.0.0", "cpu", machine=Host("one"))


def test_a_range_that_nobody_can_read_holds_for_no_application() -> None:
    (build,) = builds_of(make_model("1.0.0[app:!?]"), "1.0.0")
    assert incompatibility(build, Host()) is None
    assert str(incompatibility(build, Host("1.0.0"))) == "1.0.0 needs application version !?; yours is 1.0.0"


def test_less_memory_than_recommended_is_a_warning() -> None:
    raw = {"versions": {"1.0.0": {"recommended_ram_gb": 8, "minimum_ram_gb": 4}}}
    (build,) = builds_of(check_raw_model(raw, "m"), "1.0.0")
    assert incompatibility(build, Host(None, 6.0)) is None
    warning = memory_warning(build, Host(None, 6.5))
    assert warning == "m 1.0.0 (default) runs best with 8 GB of memory; this machine has 6.5 GB"
    assert memory_warning(build, Host(None, 8.0)) == memory_warning(build, Host()) == ""


def test_sizes_of_memory_are_told_apart_and_stay_short() -> None:
    raw = {"versions": {"1.0.0": {"minimum_ram_gb": 8, "recommended_ram_gb": 1e300}}}
    (build,) = builds_of(check_raw_model(raw, "m"), "1.0.0")
    assert (
        str(incompatibility(build, Host(None, 7.97)))
        == "1.0.0 needs 8 GB of memory; this machine has 7.97 GB"
    )
    assert str(incompatibility(build, Host(None, 7.9999))).endswith("this machine has 7.9999 GB")
    assert memory_warning(build, Host(None, 16.0)).endswith(
        "with 1e+300 GB of memory; this machine has 16 GB"
    )
    assert [format_gb(size) for size in (0, 0.5, 10, 100)] == ["0 GB", "0.5 GB", "10 GB", "100 GB"]


def test_the_installed_variant_sticks_and_what_lacks_it_is_named() -> None:
    model = make_model("1.0.0 1.1.0 1.2.0*[only:gpu]")
    found = decide(model, "1.0.0", "cpu", machine=Host())
    assert found.wanted is not None
    assert (found.wanted.version, found.without_variant) == ("1.1.0", "1.2.0")


def test_what_keeps_the_next_version_away_is_told_below_a_new_major() -> None:
    model = make_model("1.0.0 1.1.0[app:>=2.0.0] 2.0.0*")
    found = decide(model, "1.0.0", "cpu", machine=Host("1.0.0"))
    assert (found.wanted, found.blocker) == (None, "major")
    assert found.blocked is not None
    assert found.blocked.version == "1.1.0"


def test_standing() -> None:
    entry = {"deprecated": True, "deprecated_reason": "it repeats itself", "replaced_by": "1.1.0"}
    model = check_raw_model({"versions": {"1.0.0": entry, "1.1.0": {"yanked": True}, "1.2.0": {}}}, "m")
    told = [str(standing(model, version, "default")) for version in ("1.0.0", "1.1.0", "1.2.0", "9.9.9")]
    assert told == ["deprecated: it repeats itself; use 1.1.0", "withdrawn by its publisher", "", ""]
    assert not standing(model, "9.9.9", "default").published


@pytest.mark.parametrize(
    "hold",
    [
        PinRule(range=Range.parse("^1.1 || >=3, <4")),
        PinRule(variant="cpu-int4"),
        PinRule(None, Range.parse("1.x"), "a"),
    ],
)
def test_holds_are_read_as_they_were_written(hold: PinRule) -> None:
    assert parse_hold(format_hold(hold)) == hold


def test_a_damaged_hold_is_refused() -> None:
    good = format_hold(PinRule(range=Range.parse("^1.1")))
    assert good.startswith(b"-\t^1.1\t")
    for n in range(len(good)):
        with pytest.raises(FormatError):
            parse_hold(good[:n] + bytes([good[n] ^ 1]) + good[n + 1 :])
        with pytest.raises(FormatError):
            parse_hold(good[:n])
