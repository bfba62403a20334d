"""`pin`, `unpin`: versions that `update` does not replace and `gc` keeps.

A pinned version has a ref, from which `gc` starts; a pinned range or variant is a line in `refs/holds`, which
limits the choice of `update`, and does not affect `gc`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from yarnstore.errors import NotFoundError, SpecError
from yarnstore.ops.session.lookup import require_published
from yarnstore.ops.session.session import Session
from yarnstore.ops.session.stored import find_stored, not_in_store, not_installed
from yarnstore.registry.pins import FREE, PinRule
from yarnstore.registry.ranges import Range
from yarnstore.registry.spec import Alias, Exact, Spec
from yarnstore.store.refs import VersionName

_ANY = Range.parse("*")


@dataclass(frozen=True)
class PinResult:
    """A pin that was set or removed."""

    model: str
    version: str | None  #: The pinned version; None for a range or a variant.
    variant: str | None  #: The pinned variant.
    pinned: bool  #: Whether it is pinned now.
    changed: bool  #: False if nothing had to change.
    range: str | None = None  #: The pinned range.
    others: list[str] = field(default_factory=list)  #: Other pinned versions of the model, as specs.

    @property
    def what(self) -> str:
        """The pin as text: `phi-3-mini 1.0.0`, or as a spec, such as `phi-3-mini@^1.1`."""
        if self.version is not None:
            return f"{self.model} {self.version}"
        variant = f":{self.variant}" if self.variant else ""
        return f"{self.model}{variant}" + (f"@{self.range}" if self.range else "")


def pin(session: Session, spec: Spec) -> PinResult:
    """Pin a version (of a bare model the installed one), a range, or a variant.

    `gc` keeps a pinned version, and `update` does not replace it while it is installed; several versions of a
    model may be pinned.  A range or a variant limits what `update` chooses from. A range with a variant
    (`m:v@^1.1`) pins both; so do two calls, one for each.

    Raises: NotFoundError if a version is not in the store, or if nothing in the store and the registries
    matches a range or a variant; SpecError for an alias.
    """
    refs = session.refs
    if not session.layout.exists():
        raise not_in_store(session, spec)
    with session.layout.shared(), refs.moving():  # so that the version cannot be removed before it is pinned
        if isinstance(spec.selector, Alias):
            why = "an alias cannot be pinned, because it may change"
            raise SpecError(str(spec), why, message=f"{why}; pin a version, a range or a variant")
        if isinstance(spec.selector, Range) or (spec.selector is None and spec.variant is not None):
            _require_known(session, spec)
            if not _matches_stored(session, spec):
                require_published(session, spec)
            before = refs.pin_rule(spec.model)
            wanted = spec.selector if isinstance(spec.selector, Range) else before.range
            hold = PinRule(None, wanted, spec.variant or before.variant)
            if hold != before:
                refs.set_hold(spec.model, hold)
            return _told(spec.model, hold, pinned=True, changed=hold != before)
        name = _named(session, spec)
        manifest = refs.version(name)
        if manifest is None:
            raise not_in_store(session, spec)
        changed = refs.pin(name) != manifest
        if changed:
            refs.set_pin(name, manifest)
        others = [str(other) for other in refs.pins(name.model) if other != name]
    return PinResult(name.model, name.version, name.variant, pinned=True, changed=changed, others=others)


def unpin(session: Session, spec: Spec) -> PinResult:
    """Remove a pin; of a bare model the only one, or all that keep it from updates.

    Raises: NotFoundError if there is no such pin.
    """
    if not session.layout.exists():
        raise _not_pinned(session, spec)
    with session.layout.shared(), session.refs.moving():
        if isinstance(spec.selector, Range):
            return _let_go(session, spec)
        if isinstance(spec.selector, Exact):
            return _unpin_version(session, _named(session, spec))
        return _unpin_model(session, spec)


def _unpin_model(session: Session, spec: Spec) -> PinResult:
    refs = session.refs
    pins = [name for name in refs.pins(spec.model) if spec.variant in (None, name.variant)]
    holding = spec.model in refs.held_models()
    if holding and spec.variant is not None:
        return _let_go(session, spec)
    done = None
    if holding:
        done = PinResult(spec.model, None, None, pinned=False, changed=refs.remove_hold(spec.model))
    current = refs.current(spec.model)
    here = current and VersionName(spec.model, current.variant, current.version)
    if len(pins) == 1 and not holding:
        return _unpin_version(session, pins[0])
    if here in pins and here is not None:
        return _unpin_version(session, here)
    if done is None:
        raise _not_pinned(session, spec)
    return done


def _unpin_version(session: Session, name: VersionName) -> PinResult:
    if not session.refs.remove_pin(name):
        raise _not_pinned(session, Spec(name.model, name.variant, Exact(name.version)))
    return PinResult(name.model, name.version, name.variant, pinned=False, changed=True)


def _let_go(session: Session, spec: Spec) -> PinResult:
    """Remove a range or a variant, or both, from the pin of a model; `*` means any range."""
    refs = session.refs
    hold = refs.pin_rule(spec.model)
    wanted = spec.selector if isinstance(spec.selector, Range) else None
    other = wanted and (hold.range is None or wanted.sets not in (hold.range.sets, _ANY.sets))
    if other or spec.variant not in (None, hold.variant):
        raise _not_pinned(session, spec)
    left = PinRule(None, None if wanted else hold.range, None if spec.variant else hold.variant)
    if left == FREE:
        refs.remove_hold(spec.model)
    else:
        refs.set_hold(spec.model, left)
    return _told(
        spec.model, PinRule(None, hold.range if wanted else None, spec.variant), pinned=False, changed=True
    )


def _told(model: str, hold: PinRule, *, pinned: bool, changed: bool) -> PinResult:
    text = str(hold.range) if hold.range is not None else None
    return PinResult(model, None, hold.variant, pinned=pinned, changed=changed, range=text)


def _matches_stored(session: Session, spec: Spec) -> bool:
    wanted = spec.selector if isinstance(spec.selector, Range) else _ANY
    return any(
        spec.variant in (None, name.variant) and wanted.matches(name.version, include_prereleases=True)
        for name in session.refs.versions(spec.model)
    )


def _require_known(session: Session, spec: Spec) -> None:
    refs = session.refs
    if refs.installed(spec.model) is None and not refs.versions(spec.model):
        raise not_installed(session, spec.model)


def _not_pinned(session: Session, spec: Spec) -> NotFoundError:
    pins = [str(name) for name in session.refs.pins(spec.model)]
    hold = session.refs.pin_rule(spec.model)
    if hold != FREE:
        pins.append(f"{spec.model}{hold}")
    hint = f"pins of {spec.model}: {', '.join(pins)}" if pins else f"{spec.model} has no pins"
    return NotFoundError("pin", str(spec), hint=hint)


def _named(session: Session, spec: Spec) -> VersionName:
    if isinstance(spec.selector, Exact):
        found = find_stored(session, spec)
        if found is None:
            raise not_in_store(session, spec)
        return found.name
    current = session.refs.current(spec.model)
    if current is None:
        raise not_installed(session, spec.model)
    return VersionName(spec.model, current.variant, current.version)
