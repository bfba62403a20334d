"""One repository of a registry of images, by the distribution API of OCI.

Owns the requests of uploads.  Reading is that of `http`: the keys are `manifests/TAG` and
`blobs/sha256:HEX`.  Retries are left to `sources`, and the hashes to the caller.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec

from yarnstore.backends.base import Timeouts
from yarnstore.backends.http import HttpBackend
from yarnstore.backends.pages import HEAD_BYTES
from yarnstore.backends.replies import parse_content_length
from yarnstore.backends.requests import Answer, Content, answer_target, drain
from yarnstore.backends.tokens import ChallengeAuthorizer
from yarnstore.backends.urls import shown
from yarnstore.core.digest import Sha256
from yarnstore.core.limits import MIB
from yarnstore.errors import BackendError, TransientError

# A larger content is uploaded in pieces, each of which can be sent again.
PIECE_BYTES: Final = 64 * MIB
_BEGIN_LIMIT: Final = 5
_BINARY: Final = "application/octet-stream"
_RECEIVED: Final = re.compile(r"(?:bytes=)?0-([0-9]{1,19})", re.ASCII)

# Yields the bytes [start, end) of a content.
Reader = Callable[[int, int], Iterable[bytes]]


class ImageRegistry(HttpBackend):
    """A repository: `url` is `https://HOST/v2/NAME/`.

    `token` is sent as a bearer token; `login` (user, password) answers the challenges of the registry.
    Raises: as `HttpBackend`.
    """

    def __init__(
        self,
        url: str,
        *,
        accept: str,
        token: str | None = None,
        login: tuple[str, str] | None = None,
        timeouts: Timeouts | None = None,
        ssl_context: ssl.SSLContext | None = None,
        require_https: bool = False,
        check: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(
            url,
            token=token,
            timeouts=timeouts,
            ssl_context=ssl_context,
            require_https=require_https,
            check=check,
            authorizer=None if token else ChallengeAuthorizer(login),
            headers={"Accept": accept},
        )

    def has(self, sha256: Sha256) -> bool:
        """Whether the repository has a content.  Raises: BackendError."""
        with self.ask("HEAD", self.locate(f"blobs/{sha256}")) as answer:
            if answer.status not in (200, 404):
                raise self._refusal(answer)
            return answer.status == 200

    def upload(self, sha256: Sha256, size_bytes: int, read: Reader, mount_from: str = "") -> Upload:
        """Return the upload of a content; nothing is sent yet."""
        return Upload(self, sha256, size_bytes, read, mount_from)

    def put_manifest(self, reference: str, data: bytes, media_type: str) -> None:
        """Upload a manifest under a tag or its digest.  Raises: BackendError."""
        url = self.locate(f"manifests/{reference}")
        headers = {"Content-Type": media_type, "Content-Length": str(len(data))}
        with self.ask("PUT", url, headers, content=lambda: [data]) as answer:
            self.accepted(answer, 201)
            stored = answer.header("docker-content-digest")
            if stored and stored != str(Sha256.of(data)):
                raise BackendError(answer.url, f"stored other bytes than were sent: {stored[:80]}")

    @contextmanager
    def ask(
        self,
        method: str,
        url: httpx.URL,
        headers: dict[str, str] | None = None,
        content: Content | None = None,
    ) -> Iterator[Answer]:
        sent = {**self._headers, **(headers or {})}
        with self._requests.answer(url, sent, method=method, content=content) as answer:
            yield answer

    def accepted(self, answer: Answer, *statuses: int) -> None:
        """Raise the error of an answer that has another status."""
        if answer.status not in statuses:
            raise self._refusal(answer)
        drain(answer)

    def _refusal(self, answer: Answer) -> BackendError:
        """Return the error for an answer, with what the registry says about it."""
        said = ""
        if answer.header("content-type").partition(";")[0].strip() == "application/json":
            said = _first_error(self._requests.head(answer, HEAD_BYTES))
        error = super()._refusal(answer)
        if answer.status in (401, 403):
            host = answer.target.netloc.decode("ascii", "replace")
            error.hint = (
                f"log in: a line for {host} in netrc or in Docker's config.json (`docker login {host}`); "
                "many registries answer this for a missing repository, too"
            )
        if said:
            error.fields["why"] = f"{error.fields['why']}: {said}"
            error.message = f"{error.url}: {error.fields['why']}"
            error.args = (error.message,)
        return error


class Upload:
    """The upload of one content of `size_bytes`, by requests that can be repeated after an error.

    `mount_from` is a repository of the same registry that may have the content already.
    """

    def __init__(
        self, registry: ImageRegistry, sha256: Sha256, size_bytes: int, read: Reader, mount_from: str = ""
    ) -> None:
        self.done = False
        self.sent_bytes = 0
        self._registry = registry
        self._sha256 = sha256
        self._size_bytes = size_bytes
        self._read = read
        self._mount_from = mount_from
        self._piece_bytes = PIECE_BYTES
        self._begun = 0
        self._place: httpx.URL | None = None
        self._unsure = False  # whether the last request may have arrived in part

    def step(self) -> None:
        """Send one piece.  Raises: BackendError; TransientError, after which it can be called again."""
        if self._unsure:
            self._look()
        place = self._place if self.done else self._place or self._begin()
        if place is None:
            return
        if self.sent_bytes < self._size_bytes > self._piece_bytes:
            self._send_piece(place)
        else:
            self._finish(place)

    def _begin(self) -> httpx.URL | None:
        """Return where to upload to; None if the registry took the content from another repository."""
        self._begun += 1
        if self._begun > _BEGIN_LIMIT:
            raise BackendError(self._registry.url, f"has lost an upload {_BEGIN_LIMIT} times")
        url = self._registry.locate("blobs/uploads")
        url = url.copy_with(raw_path=url.raw_path + b"/")
        query = f"mount={self._sha256}&from={quote(self._mount_from)}" if self._mount_from else ""
        with self._registry.ask("POST", _with_query(url, query)) as answer:
            self._registry.accepted(answer, 201, 202)
            if answer.status == 201:
                self.done = True
                return None
            self._moved(answer)
            least = parse_content_length(answer.header("oci-chunk-min-length")) or 0
            self._piece_bytes = max(PIECE_BYTES, least)
        self.sent_bytes = 0
        return self._place

    def _send_piece(self, place: httpx.URL) -> None:
        first, end = self.sent_bytes, min(self.sent_bytes + self._piece_bytes, self._size_bytes)
        headers = {
            "Content-Type": _BINARY,
            "Content-Length": str(end - first),
            "Content-Range": f"{first}-{end - 1}",
        }
        self._unsure = True
        with self._registry.ask("PATCH", place, headers, lambda: self._read(first, end)) as answer:
            if answer.status == 416:
                raise TransientError(answer.url, "has another part of the upload", status=answer.status)
            self._registry.accepted(answer, 202, 204)
            self._moved(answer)
            received = _received(answer)
        self.sent_bytes = end if received is None else received
        self._unsure = False
        if self.sent_bytes <= first:
            raise BackendError(shown(place), "accepts an upload, and keeps nothing of it")

    def _finish(self, place: httpx.URL) -> None:
        first = self.sent_bytes
        headers = {"Content-Type": _BINARY, "Content-Length": str(self._size_bytes - first)}
        self._unsure = True
        url = _with_query(place, f"digest={quote(str(self._sha256), safe='')}")
        with self._registry.ask("PUT", url, headers, lambda: self._read(first, self._size_bytes)) as answer:
            self._registry.accepted(answer, 201, 204)
        self.sent_bytes, self.done = self._size_bytes, True

    def _look(self) -> None:
        """Find out what arrived of the last request; begin again if the registry does not say it."""
        if self._registry.has(self._sha256):
            self.done = True
            return
        place, self._place = self._place, None
        self.sent_bytes = 0
        if place is not None and self._size_bytes > self._piece_bytes:
            with self._registry.ask("GET", place) as answer:
                if answer.status == 204:
                    self._moved(answer)
                    self.sent_bytes = min(_received(answer) or 0, self._size_bytes)
        self._unsure = False

    def _moved(self, answer: Answer) -> None:
        """Note where the next request of the upload goes."""
        if not answer.header("location"):
            raise BackendError(answer.url, "accepts an upload without saying where to", status=answer.status)
        self._place = answer_target(answer)


def _received(answer: Answer) -> int | None:
    """Return how many bytes the registry has of an upload; None if it does not say."""
    match = _RECEIVED.fullmatch(answer.header("range").strip())
    if match is None:
        return None
    # `0-0` also stands for nothing, since there is no other way to write it.
    last = int(match[1])
    return last + 1 if last else 0


def _with_query(url: httpx.URL, query: str) -> httpx.URL:
    """Add to the query of a URL, whose own part stays as it is."""
    if not query:
        return url
    mark = b"&" if url.query else b"?"
    return url.copy_with(raw_path=url.raw_path + mark + query.encode("ascii"))


def _first_error(data: bytes) -> str:
    """Return the message in the answer of a registry; empty without one."""
    try:
        value: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    match value:
        case {"errors": [{"message": str(text)}, *_]} if text.strip():
            return "".join(char if char.isprintable() else " " for char in text)[:200]
    return ""
