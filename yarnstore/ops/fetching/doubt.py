"""Who is right, when mirrors give different bytes of one pack."""

from __future__ import annotations

from yarnstore.backends import SourceSet
from yarnstore.backends.mirrors import TRIES_PER_MIRROR
from yarnstore.errors import IntegrityError, YarnstoreError
from yarnstore.ops.fetching.plan import RemotePack


class SourceFaults:
    """Which mirrors gave wrong bytes of one pack, for as long as it is not known who is right.

    A mirror that gave a chunk wrong twice is passed over; it is put last for the session once another
    has given what it did not, and never where all of them gave the same.
    """

    def __init__(self, backend: SourceSet, pack: RemotePack) -> None:
        self.source = ""
        self.avoid: set[str] = set()
        self._backend = backend
        self._pack = pack
        self._wrong: dict[tuple[bytes, str], int] = {}
        self._faults: list[YarnstoreError] = []

    def add(self, chunk_id: bytes, fault: YarnstoreError) -> None:
        """The mirror asked last gave this chunk wrong."""
        times = self._wrong[chunk_id, self.source] = self._wrong.get((chunk_id, self.source), 0) + 1
        self._faults.append(fault)
        if times >= TRIES_PER_MIRROR:
            self.avoid.add(self.source)

    @property
    def of_all(self) -> bool:
        """Whether nobody is left to ask."""
        return self.avoid.issuperset(self._backend.sources)

    def settle(self) -> None:
        """All is well now: who was passed over was wrong."""
        for source in self.avoid:
            self._backend.report_bad_bytes(source, f"{self._pack.key} does not match its hashes")

    def given_up(self) -> IntegrityError:
        """The error for a pack that no mirror has right."""
        fault = self._faults[0]
        return IntegrityError(
            self._pack.key,
            expected=str(fault.fields.get("expected", "")),
            got=str(fault.fields.get("got", "")),
            why=f"is corrupt: {fault.fields.get('what', 'chunk')} {fault.fields.get('why', '')}".rstrip(),
            source=", ".join(f"{source} (twice)" for source in sorted(self.avoid)),
            hint="nothing was changed; the publisher must fix the registry",
        )
