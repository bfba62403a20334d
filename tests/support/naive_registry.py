"""The life cycle's rules a second time, the slow and obvious way, as an oracle for `decisions.txt`.

Versions are the `semver` package's.  Ranges are node-semver's, desugared as its README does it, on text;
a decision is a filter over all versions.  Nothing of `yarnstore.registry` is used but its entries.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from semver import Version

# --- ranges ------------------------------------------------------------------------------------


def in_range(text: str, version: str, *, all_prereleases: bool = False) -> bool:
    """node-semver's satisfies(), with ',' for AND."""
    return any(
        _in_set(part.replace(",", " "), version, all_prereleases=all_prereleases) for part in text.split("||")
    )


def _in_set(text: str, version: str, *, all_prereleases: bool) -> bool:
    hyphen = re.fullmatch(r"\s*(\S+)\s+-\s+(\S+)\s*", text)
    if hyphen:
        low, high = hyphen.groups()
        floor = "-0" if all_prereleases and re.fullmatch(r"v?\d+\.\d+\.\d+", low) else ""
        text = f">={low}{floor} <={high}"
    text = re.sub(r"(~>?|\^|[<>]=?|=)\s+", r"\1", text)
    bounds = [bound for word in text.split() for bound in _desugar(word, "0" if all_prereleases else None)]
    here = Version.parse(version)
    if not all(_holds(op, bound, here) for op, bound in bounds):
        return False
    if here.prerelease is None or all_prereleases:
        return True
    core = (here.major, here.minor, here.patch)
    return any(b.prerelease and (b.major, b.minor, b.patch) == core for _, b in bounds)


def _holds(op: str, bound: Version, here: Version) -> bool:
    order = here.compare(bound)
    return {"<": order < 0, "<=": order <= 0, "=": order == 0, ">": order > 0, ">=": order >= 0}[op]


def _desugar(word: str, floor: str | None) -> list[tuple[str, Version]]:
    """The bounds that a word stands for; a low one filled up with zeros begins at the prerelease `floor`."""
    op, rest = re.fullmatch(r"(~>?|\^|[<>]=?|=)?v?(.*)", word).groups()  # type: ignore[union-attr]
    core, _, tail = rest.partition("-")
    numbers = [int(part) for part in core.split(".") if part not in ("x", "X", "*", "")]
    full = len(numbers) == 3
    if not numbers:
        return [("<", Version.parse("0.0.0-0"))] if op in ("<", ">") else []
    filled = None if full else "0" if op == "<" else floor
    low = Version(*[*numbers, 0, 0][:3], prerelease=tail or filled)
    if op == "^":
        at = next((n for n, number in enumerate(numbers) if number), len(numbers) - 1)
        return [(">=", low), ("<", _bump(numbers, at))]
    if op in ("~", "~>"):
        return [(">=", low), ("<", _bump(numbers, min(1, len(numbers) - 1)))]
    if op in (None, "="):
        return [("=", low)] if full else [(">=", low), ("<", _bump(numbers, len(numbers) - 1))]
    if full or op in (">=", "<"):
        return [(op, low)]
    high = _bump(numbers, len(numbers) - 1)
    return [("<", high)] if op == "<=" else [(">=", high.replace(prerelease=floor))]


def _bump(numbers: list[int], at: int) -> Version:
    bumped = [*numbers[:at], numbers[at] + 1, 0, 0]
    return Version(*bumped[:3], prerelease="0")


# --- decisions ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One line of the table, its cells as they stand there; `-` is empty."""

    registry: str
    installed: str
    app: str
    ram: str
    pin: str
    ask: str
    wanted: str = ""
    kind: str = ""
    obstacle: str = ""


def read_registry(text: str) -> tuple[dict[str, dict[str, str]], str | None]:
    """`1.0.0 1.1.0*[security;app:>=2]`: each version's marks, and the one that is current."""
    versions, current = {}, None
    for token in text.split():
        version, star, marks = re.fullmatch(r"([^*\[]+)(\*?)(?:\[(.*)\])?", token).groups()  # type: ignore[union-attr]
        pairs = (mark.partition(":")[::2] for mark in (marks or "").split(";") if mark)
        versions[version] = dict(pairs)
        current = version if star else current
    return versions, current


def naive_decision(registry: str, row: Row) -> tuple[str, str, str]:
    """(wanted, kind, obstacle), by the sentences of docs/registry.md."""
    versions, current = read_registry(registry)
    here = Version.parse(row.installed)
    ask = row.ask.split("+")
    to = next((word[3:] for word in ask if word.startswith("to:")), None)
    pin_variant, _, pin_range = row.pin.partition("@") if row.pin[0] in ":@" else ("", "", "")
    variant = pin_variant.removeprefix(":") or "cpu"

    def order(version: str) -> tuple[Version, str]:
        return Version.parse(version), version

    def line(version: str) -> tuple[int, ...]:
        v = Version.parse(version)
        kept = 1 if here.major else 2 if here.minor else 3
        return (v.major, v.minor, v.patch)[:kept]

    def has_build(marks: dict[str, str]) -> bool:
        builds = marks.get("only", "cpu gpu" if "gpu" in marks else "cpu").split()
        return variant in builds and f"yanked-{variant}" not in marks

    usable = {v: marks for v, marks in versions.items() if "yanked" not in marks}
    released = [v for v in usable if Version.parse(v).prerelease is None]
    latest = current if current in usable else None
    if latest is None:
        below = [v for v in released if current is None or Version.parse(v) < Version.parse(current)]
        latest = max(below, key=order, default=None)

    def in_reach(version: str, marks: dict[str, str]) -> bool:
        v = Version.parse(version)
        if not (v > here or (variant != "cpu" and version == row.installed)) or not has_build(marks):
            return False
        if to is not None and not in_range(to, version, all_prereleases=True):
            return False
        if v.prerelease is not None:
            ranges = [to or f">={row.installed.partition('+')[0]}", *([pin_range] if pin_range else [])]
            return any(in_range(text, version) for text in ranges)
        return to is not None or latest is None or Version.parse(latest) < here or v <= Version.parse(latest)

    def fits_app(marks: dict[str, str]) -> bool:
        return row.app == "-" or in_range(marks.get("app", "*"), row.app, all_prereleases=True)

    def fits_memory(marks: dict[str, str]) -> bool:
        least = marks.get(f"ram-{variant}", marks.get("ram"))
        return row.ram == "-" or "force" in ask or least is None or float(least) <= float(row.ram)

    def let_through(version: str) -> bool:
        if row.pin == "=":
            return False
        return not pin_range or in_range(pin_range, version, all_prereleases=True)

    everything_of_this_line = [row.installed, *(v for v in versions if line(v) == line(row.installed))]
    crossing = "major" in ask or (to and not any(in_range(to, v) for v in everything_of_this_line))
    reach = {v: marks for v, marks in usable.items() if in_reach(v, marks)}
    good = [
        v
        for v, marks in reach.items()
        if fits_app(marks)
        and fits_memory(marks)
        and let_through(v)
        and (crossing or line(v) == line(row.installed))
    ]
    wanted = max(good, key=order, default=None)
    newest = max(reach, key=order, default=None)
    obstacle = "-"
    if newest is not None and newest != wanted:
        marks = reach[newest]
        obstacle = (
            "application"
            if not fits_app(marks)
            else "memory"
            if not fits_memory(marks)
            else "pinned"
            if not let_through(newest)
            else "major"
        )
    goal = wanted or newest
    return wanted or "-", _naive_kind(versions, row.installed, goal), obstacle


def _naive_kind(versions: dict[str, dict[str, str]], installed: str, goal: str | None) -> str:
    if goal is None:
        return "-"
    old, new = Version.parse(installed), Version.parse(goal)
    if new == old:
        return "none"
    if any("security" in marks and old < Version.parse(v) <= new for v, marks in versions.items()):
        return "security"
    if new.prerelease is not None:
        return "prerelease"
    if old.prerelease is not None and (old.major, old.minor, old.patch) == (new.major, new.minor, new.patch):
        return "patch" if new.patch else "minor" if new.minor else "major"
    if new.major != old.major or (old.prerelease is not None and old.minor == old.patch == 0):
        return "major"
    return "minor" if new.minor != old.minor else "patch"
