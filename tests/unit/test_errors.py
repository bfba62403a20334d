"""The error tree is what its docstring draws, and each error can be printed as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from yarnstore import errors
from yarnstore.errors import YarnstoreError


def own_subclasses(cls: type[YarnstoreError]) -> list[type[YarnstoreError]]:
    """Direct subclasses in the order of their definition; tests elsewhere may have added others."""
    return [sub for sub in cls.__subclasses__() if sub.__module__ == errors.__name__]


def every_class() -> list[type[YarnstoreError]]:
    found = [YarnstoreError]
    for cls in found:
        found += own_subclasses(cls)
    return found


def draw(cls: type[YarnstoreError], indent: str = "") -> list[str]:
    """The tree below `cls` in box characters, as the docstring draws it."""
    subclasses = own_subclasses(cls)
    lines: list[str] = []
    for sub in subclasses:
        is_last = sub is subclasses[-1]
        lines.append(f"{indent}{'└── ' if is_last else '├── '}{sub.__name__}")
        lines += draw(sub, indent + ("    " if is_last else "│   "))
    return lines


def drawn_lines(doc: str) -> list[str]:
    """The lines of the drawing without the words beside each class."""
    lines = doc.splitlines()
    start = next(i for i, line in enumerate(lines) if line.strip() == "YarnstoreError")
    margin = len(lines[start]) - len(lines[start].lstrip())
    names: list[str] = []
    for line in lines[start + 1 :]:
        match = re.match(r"[ │├└─]+\w+", line[margin:])
        if not match:
            break
        names.append(match.group())
    return names


SAMPLES: dict[type[YarnstoreError], Callable[[], YarnstoreError]] = {
    errors.YarnstoreError: lambda: errors.YarnstoreError("it broke", hint="mend it", count=3),
    errors.UsageError: lambda: errors.UsageError("no"),
    errors.InvalidNameError: lambda: errors.InvalidNameError("model id", "a" * 500, "is too long"),
    errors.SpecError: lambda: errors.SpecError("@@" * 200, "has no model"),
    errors.ConfigError: lambda: errors.ConfigError("config.toml, line 3: not a number", key="keep"),
    errors.NotFoundError: lambda: errors.NotFoundError(
        "model", "phi3-mini", where="yarn", near=("phi-3-mini", "phi-3")
    ),
    errors.NoRegistryError: errors.NoRegistryError,
    errors.ConflictError: lambda: errors.ConflictError("it is there"),
    errors.IntegrityError: lambda: errors.IntegrityError(
        "model.onnx", expected="sha256:00", got="sha256:11", source="a mirror"
    ),
    errors.FormatError: lambda: errors.FormatError("pack", "is cut short", source="a file"),
    errors.IncompatibleError: lambda: errors.IncompatibleError("too new"),
    errors.PolicyError: lambda: errors.PolicyError("m 1.0.0", "allow_pickle", "m.pkl is", paths=["m.pkl"]),
    errors.SelfCheckError: lambda: errors.SelfCheckError(
        "phi-3-mini", "1.1.0", "exit code 1", back_to="1.0.0", output="cannot load"
    ),
    errors.BackendError: lambda: errors.BackendError("https://models.example.org/", "refused", status=403),
    errors.TransientError: lambda: errors.TransientError(
        "https://models.example.org/", "is busy", status=503, retry_after_s=1.5
    ),
    errors.OfflineError: lambda: errors.OfflineError("https://models.example.org/", "phi-3-mini 1.1.0"),
    errors.RolledBackError: lambda: errors.RolledBackError(
        "https://models.example.org/", "yarn", "2024-02-01T00:00:00Z", "2024-01-01T00:00:00Z"
    ),
    errors.MissingKeyError: lambda: errors.MissingKeyError(
        "https://models.example.org/x", "not there", status=404
    ),
    errors.StorageError: lambda: errors.StorageError("the disk refused"),
    errors.DiskFullError: lambda: errors.DiskFullError("not enough space", needed_bytes=2, free_bytes=1),
    errors.ReadOnlyError: lambda: errors.ReadOnlyError("read-only"),
    errors.LockTimeoutError: lambda: errors.LockTimeoutError("/store/lock", 1.23456, [12, 13]),
    errors.CancelledError: lambda: errors.CancelledError("stopped"),
}


def test_the_drawn_tree_is_the_real_tree() -> None:
    assert drawn_lines(errors.__doc__ or "") == draw(YarnstoreError)


@pytest.mark.parametrize(
    ("real", "wrong"),
    [("│   └── FormatError", "├── FormatError"), ("    └── CancelledError", "    └── StoppedError")],
)
def test_the_comparison_sees_a_wrong_drawing(real: str, wrong: str) -> None:
    doc = errors.__doc__ or ""
    assert real in doc, "checker is broken"
    assert drawn_lines(doc.replace(real, wrong)) != draw(YarnstoreError)


def test_every_public_exception_is_in_the_tree() -> None:
    public = {
        value for value in vars(errors).values() if isinstance(value, type) and value.__name__[0] != "_"
    }
    exceptions = {value for value in public if issubclass(value, BaseException)}
    assert exceptions == set(every_class())


def test_codes_are_distinct_words() -> None:
    codes = [cls.code for cls in every_class()]
    assert len(set(codes)) == len(codes)
    assert all("code" in vars(cls) for cls in every_class())
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)


def test_every_class_has_a_sample() -> None:
    assert set(SAMPLES) == set(every_class())


@pytest.mark.parametrize("make", SAMPLES.values(), ids=[cls.__name__ for cls in SAMPLES])
def test_as_dict_survives_json(make: Callable[[], YarnstoreError]) -> None:
    error = make()
    told = error.as_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["code"] == type(error).code
    assert told["message"] == str(error) == error.message
    assert told["hint"] == error.hint
    assert told.keys() - {"code", "message", "hint"} == error.fields.keys()


@pytest.mark.parametrize("make", SAMPLES.values(), ids=[cls.__name__ for cls in SAMPLES])
def test_an_error_of_another_process_is_restored(make: Callable[[], YarnstoreError]) -> None:
    error = make()
    told = json.loads(json.dumps(error.as_dict()))
    again = YarnstoreError.restore(told["code"], told["message"], told["hint"], error.fields)
    assert (type(again), str(again), again.as_dict()) == (type(error), str(error), error.as_dict())
    names = ("url", "status", "is_cut")
    assert [getattr(again, name, None) for name in names] == [getattr(error, name, None) for name in names]


def test_an_unknown_code_stays_on_the_error() -> None:
    error = errors.UsageError.restore("of-a-later-release", "no", "", {"hint": 1, "message": 2})
    assert (type(error), error.code, error.fields) == (
        errors.UsageError,
        "of-a-later-release",
        {"hint": 1, "message": 2},
    )
    assert errors.UsageError.code == "usage"


def test_long_names_are_shortened_in_messages() -> None:
    assert len(str(errors.InvalidNameError("model id", "a" * 500, "is too long"))) < 130
    assert len(str(errors.SpecError("a" * 500, "is too long"))) < 170


def test_messages_carry_their_facts() -> None:
    missing = errors.NotFoundError("model", "phi3-mini", where="yarn", near=["phi-3-mini"])
    assert str(missing) == 'no model "phi3-mini" in yarn. Did you mean phi-3-mini?'
    wrong = errors.IntegrityError("model.onnx", expected="sha256:00", got="sha256:11", source="a mirror")
    assert str(wrong) == (
        "model.onnx does not match its digest\n  expected sha256:00   got sha256:11   from a mirror"
    )
    assert "process 12, 13" in str(errors.LockTimeoutError("lock", 1.0, [12, 13]))
    assert "another process" in str(errors.LockTimeoutError("lock", 1.0, []))
