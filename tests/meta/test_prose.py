"""Words and phrases that the prose does not use: help, messages, docstrings, comments and documents.

Plain technical English has a word for each of them, which the table gives.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.meta.source import MODULES, REPO, Module, module_id

# A pattern, and what to write instead.
AVOIDED = {
    r"(un)?mend(s|ed|ing)?": "repair, fix",
    r"rooms?": "space, disk space",
    r"(tell|tells|told|telling) of": "report, list, describe",
    r"(take|takes|took|taking) in|(is|are|was|were) taken in": "import, add",
    r"(ask|asks|asked|asking) after (it|them|one|a|an|the)": "check, request",
    r"(go|goes|went|going|gone) by": "use, follow",
    r"to be had": "available, supported",
    r"nothing keeps": "unneeded, that nothing needs",
    r"whom": "who, which, that",
    r"(?-i:(is|are) none)": "is not one, does not exist",
    r"(comes|come|came|coming) to": "mean, become",
    r"liars?|(server|mirror|registry)( that)? (lies|lied)": "serves corrupt data",
    r"of one[’']s own": "of your own, your",
    r"(if|where|once|that|which|what|it|file|pack|view|version|folder) is there": "exists",
    r"anew": "again",
    r"(said|say|says) otherwise (of|than)": "differs from",
    r"look(s|ed|ing)? after": "manage, check",
    r"hang(s|ing)? on a (chunk|base)": "depends on",
    r"the (network|registry) is not to be used": "--offline is set",
    r"(go|goes|went|gone|going) on with": "continue",
    r"(give|gives|gave|given) out": "print, return",
    r"(what|as) there is( of| instead)": "name it: the existing versions, the bytes that arrived",
    r"for the sake of": "because, since",
    r"(takes?|took|taken) (it|them|one|this) for": "treat as, accept as",
    r"(hear|hears|heard) of": "is notified of, is called",
    r"without a word": "silently, without a message",
    r"weigh(s|ed)?": "has a size of",
    r"in no time": "fast",
    r"look(s|ed|ing)? into": "read, check, search",
    r"tidied|tidies": "removed",
}
PATTERN = re.compile(rf"\b({'|'.join(AVOIDED)})\b", re.IGNORECASE)

# Names that programs read, and words of other people: not prose.
EXEMPT = {
    "tests/meta/test_prose.py",
    "check.mend",  # the name of a public field
    "| `mend` |",
}
CODE = re.compile(r"`[^`]*`")


def plain(text: str) -> str:
    """A line of prose without what is code in it, and without exempt names."""
    for name in EXEMPT:
        text = text.replace(name, "")
    return CODE.sub("`", text)


def prose_of(module: Module) -> Iterator[tuple[int, str]]:
    """Each line of a module's strings, docstrings and comments."""
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type in kinds:
            for offset, line in enumerate(token.string.split("\n")):
                yield token.start[0] + offset, line


def prose_faults(lines: Iterator[tuple[int, str]], where: str) -> list[str]:
    """What each line has that it should not have, and what to write instead."""
    faults = []
    for number, line in lines:
        for found in PATTERN.finditer(plain(line)):
            words = next(words for words in AVOIDED if re.fullmatch(words, found[0], re.IGNORECASE))
            faults.append(f"{where}:{number} {found[0]!r}: write {AVOIDED[words]!r}: {line.strip()[:100]}")
    return faults


def page_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The numbered lines of a page; of the change log, those of what is not released yet."""
    text = path.read_text(encoding="utf-8")
    if path.name == "CHANGELOG.md":
        text = text.partition("## Unreleased")[2].partition("\n## ")[0]
    return iter(enumerate(text.splitlines(), 1))


PAGES = sorted(
    [*REPO.joinpath("docs").rglob("*.md"), REPO / "README.md", REPO / "SECURITY.md", REPO / "CHANGELOG.md"]
)


@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_the_prose_of_a_module_is_plain(module: Module) -> None:
    assert prose_faults(prose_of(module), module.name) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_plain(page: Path) -> None:
    assert prose_faults(page_lines(page), page.name) == []


@pytest.mark.parametrize(
    "line",
    [
        "each with its mend",
        "frees the room",
        "tell of updates",
        "13 MB taken in as 0 B is taken in",
        "Go by ystore.lock",
        "where links are not to be had",
        "Free what nothing keeps.",
        "who is asked, and by whom",
        "None where it is none",
        "what a spec comes to",
        "a mirror that lies",
        "a model of one's own",
        "if it is there",
        "asked anew",
        "models that are looked after",
        "goes on with the download",
        "a path that was given out",
        "for the sake of a file",
        "what there is of an entry",
        "looks into other stores",
    ],
)
def test_the_check_sees_a_phrase(line: str) -> None:
    assert prose_faults(iter([(1, line)]), "x"), "checker is broken"


@pytest.mark.parametrize(
    "line",
    ["recommended", "a mushroom", "`mend` is a field", "print(check.mend)", "there is no room service"[:11]],
)
def test_the_check_lets_other_words_be(line: str) -> None:
    assert prose_faults(iter([(1, line)]), "x") == []
