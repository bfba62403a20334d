"""The kinds of jobs: each calls one method of `Store`, and has a request that undoes it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from yarnstore import Store
from yarnstore.core.jsonable import jsonable
from yarnstore.core.names import model_dirname
from yarnstore.errors import YarnstoreError
from yarnstore.progress import OnProgress, Progress
from yarnstore.registry.spec import Spec
from yarnstore.results import (
    AutoUpdateOutcome,
    CheckoutResult,
    RemovedVersion,
    RemoveResult,
    UpdateResult,
)
from yarnstore.web.records import JobKind, Undo

API = "/api/v1"

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Done:
    """The result of a job as JSON, the request that undoes it, and the work after the result."""

    result: dict[str, object]
    undo: Undo | None = None
    after: Callable[[], object] | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of job: `run` does it, `subject` describes it, `models` returns the models that it changes.

    Jobs that change the same model run in order; None in `models` excludes every other job.  A `repeatable`
    one is continued after the service was killed, since doing it twice changes nothing more.
    """

    run: Callable[[Store, Arguments, OnProgress], Done]
    subject: Callable[[Arguments], str]
    lanes: Callable[[Arguments], frozenset[str] | None]
    repeatable: bool = False


def path_of(model: str, *rest: str) -> str:
    """Return the path of a model's resource."""
    return "/".join([API, "models", model_dirname(model), *rest])


def spec_of(arguments: Arguments) -> str:
    """Return the spec of a model, a variant and a version."""
    variant = f":{arguments['variant']}" if arguments.get("variant") else ""
    version = f"@{arguments['version']}" if arguments.get("version") else ""
    return f"{arguments['model']}{variant}{version}"


def _fetch(store: Store, given: Arguments, progress: OnProgress) -> Done:
    found = store.fetch(spec_of(given), force=given.get("force", False), progress=progress)
    return Done(jsonable(found))


def _checkout(store: Store, given: Arguments, progress: OnProgress) -> Done:
    found = store.checkout(spec_of(given), force=given.get("force", False), wait=False, progress=progress)
    return Done(jsonable(found), _undo(found), _slim(store, [found]))


def _rollback(store: Store, given: Arguments, progress: OnProgress) -> Done:
    found = store.rollback_model(given["model"], given.get("version"), wait=False, progress=progress)
    return Done(jsonable(found), _undo(found), _slim(store, [found]))


def _slim(
    store: Store, results: Sequence[CheckoutResult | UpdateResult | AutoUpdateOutcome]
) -> Callable[[], object] | None:
    """Return what frees the disk space that installs made unneeded, as `ystore update` does at its end."""
    return partial(store.slim_after, *results) if any(each.changed for each in results) else None


def _undo(found: CheckoutResult | UpdateResult) -> Undo | None:
    if found.previous is None:
        return None
    body: dict[str, object] = {"version": found.previous}
    return Undo("POST", path_of(found.model, "rollback"), body)


def follow_up(done: Done) -> None:
    """Do the work after a result.  An error is only printed on stderr: the next `gc` does the rest."""
    try:
        if done.after is not None:
            done.after()
    except YarnstoreError as fault:
        print(f"disk space was not freed: {fault.message}", file=sys.stderr)
    except BaseException:  # noqa: BLE001 - a defect: the service goes on
        traceback.print_exc()


def _update(store: Store, given: Arguments, progress: OnProgress) -> Done:
    found = store.update_model(
        given["model"],
        to=given.get("to"),
        major=given.get("major", False),
        force=given.get("force", False),
        wait=False,
        progress=progress,
    )
    return Done(jsonable(found), _undo(found) if found.changed else None, _slim(store, [found]))


def _update_all(store: Store, given: Arguments, progress: OnProgress) -> Done:
    found = store.update_models(*given.get("models", ()), wait=False, progress=progress)
    return Done(jsonable(found), after=_slim(store, found.results))


def _diff(store: Store, given: Arguments, progress: OnProgress) -> Done:
    return Done(jsonable(store.diff(given["old"], given["new"], progress=progress)))


def _gc(store: Store, given: Arguments, progress: OnProgress) -> Done:
    expected = given.get("expected")
    if given.get("scheduled"):  # deletes what a plan lists, so no incomplete downloads
        expected = store.plan_gc(progress=progress).fingerprint
    found = store.gc(
        keep=given.get("keep"),
        keep_within_s=given.get("keep_within_s"),
        grace_s=given.get("grace_s"),
        max_size_bytes=given.get("max_size_bytes"),
        unused_s=given.get("unused_s"),
        repack=given.get("repack", False),
        expected=expected,
        progress=progress,
    )
    return Done(jsonable(found))


def _fsck(store: Store, given: Arguments, progress: OnProgress) -> Done:
    found = store.fsck(
        quick=given.get("quick", False),
        repair=given.get("repair", False),
        sample=given.get("sample"),
        progress=progress,
    )
    return Done(jsonable(found))


def _restore(store: Store, given: Arguments, progress: OnProgress) -> Done:
    removed = msgspec.convert(given["removed"], tuple[RemovedVersion, ...])
    names = [item.version for item in removed]
    found = RemoveResult(
        given["model"], names, any(item.installed for item in removed), removed, given.get("pin")
    )
    return Done(jsonable(store.restore(found, progress=progress)))


def _checked(given: Arguments) -> str:
    sample = given.get("sample")
    if sample is not None:
        return f"{sample:.3g} of the store" if sample < 0.01 else f"{sample:.0%} of the store"
    return "the store, with repair" if given.get("repair") else "the store"


def _auto_update(store: Store, _: Arguments, progress: OnProgress) -> Done:
    found = store.run_auto_update(delay=False, wait=False, progress=progress)
    if found.running_in is not None:
        progress(
            Progress("note", "", text=f"{found.running_in} is already checking for updates; nothing was done")
        )
    return Done(jsonable(found), after=_slim(store, found.models))


def _one_model(given: Arguments) -> frozenset[str] | None:
    return frozenset({Spec.parse(given["model"]).model})


def _version_of(given: Arguments) -> str:
    return " ".join(str(given[key]) for key in ("model", "version") if given.get(key))


KINDS: Mapping[JobKind, Kind] = {
    "fetch": Kind(_fetch, _version_of, _one_model, repeatable=True),
    "checkout": Kind(_checkout, _version_of, _one_model, repeatable=True),
    "update": Kind(_update, _version_of, _one_model, repeatable=True),
    "update-all": Kind(
        _update_all,
        lambda given: ", ".join(given.get("models", ())) or "all models",
        lambda given: frozenset(Spec.parse(spec).model for spec in given.get("models", ())) or None,
        repeatable=True,
    ),
    "auto-update": Kind(
        _auto_update,
        lambda given: ", ".join(given.get("models", ())) or "all models",
        lambda given: frozenset(given.get("models", ())) or None,
        repeatable=True,
    ),
    "rollback": Kind(_rollback, _version_of, _one_model),
    "restore": Kind(
        _restore,
        lambda given: " ".join([given["model"], *(item["version"] for item in given["removed"])]),
        _one_model,
        repeatable=True,
    ),
    "diff": Kind(_diff, lambda given: f"{given['old']} → {given['new']}", lambda _: frozenset({"diff"})),
    "gc": Kind(_gc, lambda _: "the store", lambda _: None),
    "fsck": Kind(
        _fsck,
        _checked,
        lambda given: None if given.get("repair") else frozenset({"fsck"}),
    ),
}
