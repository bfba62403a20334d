"""What `make screenshots` makes: a picture of each page of the dashboard, docs/dashboard/*.png."""

from __future__ import annotations

import struct
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.support.browsers import CHROMIUM, PAGES, browsing, open_page, visit
from tests.support.gallery import MODEL, OTHER, THIRD, make_gallery
from tests.support.servers import static_server
from tests.support.services import Running, serving

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "dashboard"
WIDTHS = {"wide": (1280, 800), "narrow": (390, 844)}
SCHEMES = {"light": False, "dark": True}
_AUTO_UPDATE = {"enabled": True, "policy": "security", "windows": ["Sat,Sun 02:00-05:00"], "jitter": "30m"}
_RULE = {"enabled": True, "policy": "minor", "models": [OTHER], "windows": ["Sun 03:00-04:00"]}
_MIRRORS = {"mirrors": ["https://mirror.example.org/models/"]}
# Jobs come late, since they change what is installed; the statistics count them.  Storage is last: what there
# is to free is what the removal of a model leaves.
_LATE = ("jobs", "statistics", "storage")
ORDER = [*(name for name in PAGES if name not in _LATE), *_LATE]


def main() -> None:
    """Make a store, serve it, and take the pictures."""
    if CHROMIUM is None:
        sys.exit("error: no chromium here (Debian: apt install chromium)")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.png"):
        old.unlink()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        gallery = make_gallery(Path(folder), scale=16)
        with static_server(gallery.registry) as url:
            gallery.serve(url)
            with serving(gallery.home) as service:
                service.request("PUT", "/auto-update", json=_AUTO_UPDATE)
                service.request("PUT", "/auto-update", json=_RULE)
                service.request("PUT", "/registries/yarn/mirrors", json=_MIRRORS)
                for model in (MODEL, OTHER):
                    service.get(f"/models/{model}/path")
                _take(service)


def _take(service: Running) -> None:
    with browsing() as browser:
        views = {
            f"{scheme}-{width}": open_page(browser, service, width=size[0], height=size[1], dark=dark)
            for scheme, dark in SCHEMES.items()
            for width, size in WIDTHS.items()
        }
        for name in ["login", *ORDER]:
            if name == "jobs":
                service.done(service.post("/fsck", json={"quick": True}))
                service.done(service.post(f"/models/{OTHER}/update", json={}))
                service.finished(service.post(f"/models/{MODEL}/checkout", json={"version": "9.0.0"}))
            elif name == "storage":
                service.request("DELETE", f"/models/{THIRD.replace('/', '~')}")
            for label, page in views.items():
                if name == "login":
                    shown = page.context.new_page()
                    shown.goto(f"{service.url}login")
                else:
                    shown = visit(page, name)
                    if name == "compare":
                        page.locator("[aria-label*='layers.6.self_attn.qkv']").click()
                    if name == "storage":
                        page.fill("#gc-keep", "1")
                        page.click("#gc-make")
                        page.wait_for_selector(".plan")
                    page.mouse.move(0, 0)
                    page.evaluate(
                        "document.activeElement.blur(); document.getElementById('said').replaceChildren()"
                    )
                (FOLDER / f"{name}-{label}.png").write_bytes(smaller(shown.screenshot(full_page=True)))


def smaller(png: bytes) -> bytes:
    """The picture in at most 256 colours: the commonest of each shade, and the nearest of them for others."""
    pixels = _pixels(png)
    height, width, _ = pixels.shape
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
    rgb = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.int32)
    order = np.argsort(-counts, kind="stable")
    shades = (rgb[order] >> 3) @ np.array([1 << 10, 1 << 5, 1])
    _, firsts, members = np.unique(shades, return_index=True, return_inverse=True)
    sizes = np.bincount(members, weights=counts[order])
    kept = np.sort(order[firsts[np.argsort(-sizes, kind="stable")[:256]]])
    nearest = np.array([np.abs(rgb[kept] - one).sum(axis=1).argmin() for one in rgb], np.uint8)
    indexed = nearest[inverse].reshape(height, width)
    rows = b"".join(b"\0" + row.tobytes() for row in indexed)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = [
        (b"IHDR", header), (b"PLTE", rgb[kept].astype(np.uint8).tobytes()),
        (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""),
    ]  # fmt: skip
    return png[:8] + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def _pixels(png: bytes) -> NDArray[np.uint8]:
    """The red, green and blue of a PNG of eight bits a channel: height x width x 3."""
    at, data, width, height, kind = 8, b"", 0, 0, 2
    while at < len(png):
        size, name = struct.unpack_from(">I4s", png, at)
        part = png[at + 8 : at + 8 + size]
        if name == b"IHDR":
            width, height, _, kind = struct.unpack_from(">IIBB", part)
        elif name == b"IDAT":
            data += part
        at += size + 12
    channels = 4 if kind == 6 else 3
    raw = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, width * channels + 1)
    found = np.zeros((height, width * channels), np.uint8)
    above = np.zeros(width * channels, np.uint8)
    for row in range(height):
        found[row] = above = _unfilter(int(raw[row, 0]), raw[row, 1:], above, channels)
    return found.reshape(height, width, channels)[:, :, :3]


def _unfilter(how: int, line: NDArray[np.uint8], above: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """One row of a PNG as it was before its filter; see the PNG specification, 9.2."""
    if how == 0:
        return line
    if how == 2:
        return line + above
    if how == 1:
        return np.cumsum(line.reshape(-1, step), axis=0, dtype=np.uint8).reshape(-1)
    values, before = line.tolist(), above.tolist()
    for index, value in enumerate(values):
        left = values[index - step] if index >= step else 0
        corner = before[index - step] if index >= step else 0
        up = before[index]
        if how == 3:
            guess = (left + up) // 2
        else:
            base = left + up - corner
            distances = (abs(base - left), abs(base - up), abs(base - corner))
            guess = (left, up, corner)[distances.index(min(distances))]
        values[index] = (value + guess) & 255
    return np.array(values, np.uint8)


if __name__ == "__main__":
    main()
