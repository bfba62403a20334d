"""Hostile names and paths, for every place where one becomes a file name (T14)."""

from __future__ import annotations

import itertools

# Names that no sink may take: not a path, not a model id, not a variant, not a version.
_EVERYWHERE = (
    *(
        "",
        ".",
        "..",
        "/",
        "//",
        "./a",
        "../a",
        "a/../b",
        "a/./b",
        "a//b",
        "/a",
        "/etc/passwd",
        "a/",
        "\\",
        "a\\b",
    ),
    *(
        "..\\a",
        "C:",
        "C:\\a",
        "C:a",
        "\\\\host\\share",
        "//host/share",
        "\0",
        "a\0",
        "a\0/../b",
        "\n",
        "a\n",
        "\na",
    ),
    *(
        "a\r\n",
        "a\tb",
        "\x1b[2J",
        "\x7f",
        "a\x7fb",
        "a\x85b",
        "a\u2028b",
        "a\u2029b",
        "a\u202eb",
        "\ufeffa",
        "a\u200bb",
    ),
    *(
        "a\u00adb",
        " ",
        " a",
        "a ",
        "a.",
        "a..",
        "...",
        "a. ",
        "a .",
        "\u00a0a",
        "a\u3000",
        "a?",
        "a*",
        'a"',
        "a<b",
    ),
    *(
        "a>b",
        "a|b",
        "a:b",
        "a::$DATA",
        "a:b:c",
        "\ud800",
        "a\udfff",
        "e\u0301",
        "A\u030a",
        "\u212b",
        "\u1100\u1161",
    ),
    *("~/../a", "%2e%2e/\0", "....//a", "a/..", "a/.", "a/../../b", "../../../../../../etc/shadow"),
    *(
        "file:///etc/passwd",
        "http://a/b?c",
        "$(a)|b",
        "`a`:b",
        "a\x00.json",
        "a/b/../../..",
        ".\u200b./a",
        "*",
    ),
)
_DEVICES = ("con", "prn", "aux", "nul", *(f"com{n}" for n in range(10)), *(f"lpt{n}" for n in range(10)))
_MARKS = ("conin$", "conout$", "com¹", "com²", "com³", "lpt¹", "lpt²", "lpt³")


def _device_names() -> list[str]:
    found = []
    for device in (*_DEVICES, *_MARKS):
        found += [
            device,
            device.upper(),
            f"{device}.txt",
            f"{device.title()}.tar.gz",
            f"a/{device}",
            f"{device}/a",
        ]
        found += [f"{device} .txt", f"a/{device}.x/b", f"a/b/{device.upper()}.json", f"{device}."]
    return found


def _long_names() -> list[str]:
    return ["a" * 256, "a/" + "b" * 256, "/".join(["a" * 200] * 6), "é" * 128, "\U0001f600" * 64, "a" * 5000]


def _escapes() -> list[str]:
    heads = ("..", "a/..", "../..", "a/b/../..", "./..")
    seps = ("/", "\\", "//", "/./")
    tails = ("x", "etc/passwd", "..", "refs/installed/m", "packs")
    return ["".join(parts) for parts in itertools.product(heads, seps, tails)]


HOSTILE_PATHS = tuple(dict.fromkeys([*_EVERYWHERE, *_device_names(), *_long_names(), *_escapes()]))

# Good paths, so that a check which refuses everything is seen.
GOOD_PATHS = (
    *(
        "model.safetensors",
        "a/b/c.onnx",
        ".gitattributes",
        "a/.hidden",
        "onnx/model_q4.onnx_data",
        "a b.txt",
        "…",
    ),
    *(
        "é.txt",
        "日本語/モデル.gguf",
        "a" * 255,
        "a.b.c",
        "-rf",
        "a=b",
        "a,b;c",
        "#1",
        "a%2e",
        "$HOME",
        "~a",
        "console",
    ),
    *(
        "common.txt",
        "comma",
        "com10",
        "nullify",
        "con-fig",
        "auxiliary.bin",
        "a~",
        "@scope",
        "(1)",
        "[x]",
        "{y}",
    ),
)
