"""The page of a diff: one file that loads nothing, escapes everything and stays small."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from yarnstore import Store
from yarnstore.ops.inspecting.diff import DiffResult, DiffSide, DiffTotals, StatusCounts
from yarnstore.ops.inspecting.page import render_page
from yarnstore.ops.inspecting.picture import CLASSES, Scale, find_blocks
from yarnstore.ops.inspecting.tensors import TensorDiff


class _Checker(HTMLParser):
    """Finds what a page loads or runs, and whether its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [
            name for name, _ in attributes if name in ("src", "href", "xlink:href") or name[:2] == "on"
        ]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_page(page: str) -> _Checker:
    checker = _Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert checker.loads == []
    assert not {"script", "link", "img", "iframe", "object"} & set(checker.tags)
    assert "url(" not in page
    assert "@import" not in page
    assert len(page.encode()) < 3_000_000
    return checker


def made_diff(tensors: list[TensorDiff]) -> DiffResult:
    side = DiffSide(
        label='<b>"model"</b> & co', model=None, version=None, manifest=None, path="a/path", size_bytes=1
    )
    counts = StatusCounts.of(tensor.status for tensor in tensors)
    totals = DiffTotals(
        files=StatusCounts(),
        tensors=counts,
        shifted=0,
        parameters=1,
        parameters_changed=1,
        bytes=1,
        bytes_changed=1,
    )
    return DiffResult(
        old=side, new=side, files=[], tensors=tensors, totals=totals, compared_bytes=0, seconds=0.0
    )


def made_tensor(name: str, distance: float | None) -> TensorDiff:
    return TensorDiff(
        *("changed", name, "file", "bf16", (8, 8), 0, 128, 64, name, "file", "bf16", (8, 8), 0),
        *("elements", 64, 32, 40, 32, distance, distance, distance),
    )


def test_the_page_is_one_file_that_loads_nothing(tmp_home: Path, made_models: Path, tmp_path: Path) -> None:
    folder = made_models / "phi-3-mini"
    page = tmp_path / "pages" / "changes.html"
    found = Store.open().diff(str(folder / "1.0.0"), str(folder / "1.1.0"), html=page)
    checker = check_page(page.read_text())
    assert checker.tags.count("svg") >= 2
    assert checker.tags.count("rect") >= len(found.tensors)
    assert checker.tags.count("title") == 1 + checker.tags.count("rect")
    assert [path.name for path in page.parent.iterdir()] == ["changes.html"]


def test_text_from_outside_is_escaped() -> None:
    page = render_page(made_diff([made_tensor('<script>alert("1")</script>\x1b[31m\u202e', 0.5)]))
    check_page(page)
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page
    assert "\u202e" not in page


@pytest.mark.parametrize(
    "names",
    [
        [f"model.layers.{n // 100}.experts.{n % 100}.weight" for n in range(12_000)],
        [f"{'&<>' * 300}.{n}.weight" for n in range(10_000)],
        [f"t{'x' * (n % 700)}/{n}" for n in range(10_000)],
        [f"stack{n % 40}.{n // 40}.{'<' * 200}{n % 7}" for n in range(10_000)],
    ],
    ids=["experts", "escapes", "flat", "stacks"],
)
def test_a_model_of_ten_thousand_tensors_still_fits_a_page(names: list[str]) -> None:
    tensors = [made_tensor(name, (n % 97 + 1) / 1000 if n % 3 else None) for n, name in enumerate(names)]
    checker = check_page(render_page(made_diff(tensors)))
    assert checker.tags.count("rect") > 40


def test_a_diff_without_tensors_or_change_has_a_page() -> None:
    check_page(render_page(made_diff([])))
    check_page(render_page(made_diff([made_tensor("a", None)])))


def test_layers_stand_side_by_side_and_the_rest_beside_them() -> None:
    names = [f"model.layers.{n}.{role}.weight" for n in range(3) for role in ("up", "down")]
    blocks = find_blocks([made_tensor(name, 0.1) for name in ("embed.weight", *names, "head.0.weight")])
    stack, rest = blocks
    assert (stack.heading, stack.columns) == ("model.layers", ["0", "1", "2"])
    assert [label for label, _ in stack.rows] == ["up.weight", "down.weight"]
    assert [label for label, _ in rest.rows] == ["embed.weight", "head.0.weight"]


def test_the_scale_spreads_what_is_there_over_its_colours() -> None:
    tensors = [made_tensor(f"t{n}", 1e-4 * 1.1**n) for n in range(60)]
    scale = Scale.of(tensors)
    assert list(scale.edges) == sorted(set(scale.edges))
    assert {scale.css_class([tensor]) for tensor in tensors} == {f"c{n}" for n in range(CLASSES)}
    unmeasured = [made_tensor("a", None), made_tensor("b", None)]
    assert not Scale.of(unmeasured).by_distance
    assert scale.css_class(unmeasured) == "odd"
