"""`auto-update`: scheduled runs, started by a timer.

While its window is open, each enabled model is reported, or updated as far as its policy allows. If a window
closes during a download, or the machine is no longer on the network or the power that the settings ask for
(`conditions`), the download stops; its data is kept for the next run. A run never installs a new major
version, and only updates models for which auto-update is enabled.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from typing import Literal, TypeAlias

from yarnstore.core.reflog import BACKWARD
from yarnstore.errors import (
    BackendError,
    CancelledError,
    IntegrityError,
    LockTimeoutError,
    ReadOnlyError,
    YarnstoreError,
)
from yarnstore.ops.installing.activate import note_check, restore_link
from yarnstore.ops.installing.candidates import plan_moves
from yarnstore.ops.installing.conditions import why_wait
from yarnstore.ops.installing.outdated import Update, check_for_updates
from yarnstore.ops.installing.update import update_group
from yarnstore.ops.installing.update_plan import UpdateResult
from yarnstore.ops.session.clock import zone_of
from yarnstore.ops.session.lookup import find_entry, sources_for
from yarnstore.ops.session.session import Session
from yarnstore.ops.session.stored import cached_entry, not_installed
from yarnstore.registry.decide import Policy as UpdatePolicy
from yarnstore.registry.policies import AutoPolicy, AutoRule, AutoRules, NetworkRule, PowerRule, allows
from yarnstore.registry.ranges import Range
from yarnstore.registry.requirements import Requirements
from yarnstore.registry.versions import update_type
from yarnstore.registry.windows import Opening, delay_s, due_at, find_opening
from yarnstore.store import fsread, lock
from yarnstore.store.state import format_iso, read_state

Outcome: TypeAlias = Literal[
    "updated", "available", "current", "pinned", "held", "closed", "stopped", "failed"
]
# How often a download checks whether the network is metered and the machine on battery power.
_RECHECK_S = 60.0


@dataclass(frozen=True)
class AutoUpdateModel:
    """The auto-update rule of one model."""

    model: str
    enabled: bool  #: Whether the model is checked.
    policy: AutoPolicy  #: Which updates are installed.
    windows: tuple[str, ...]  #: The maintenance windows, empty for any time.
    is_open: bool  #: Whether a window is open now.
    opens: str | None  #: When the next window opens, ISO 8601 in UTC; None if it is open or never opens.
    closes: str | None  #: When the open window closes, ISO 8601 in UTC.
    own: bool = False  #: Whether it has a rule of its own, and does not follow the one of all models.


@dataclass(frozen=True)
class AutoUpdateStatus:
    """The auto-update settings, for all models and for each model that is installed or has a rule."""

    enabled: bool  #: Whether models without a rule of their own are checked.
    policy: AutoPolicy  #: The policy of models without a rule of their own.
    windows: tuple[str, ...]  #: The windows of models without a rule of their own, empty for any time.
    jitter_s: float  #: The longest random delay before a check, in seconds.
    timezone: str  #: The time zone of the windows.
    last_check: str | None  #: When a run last queried the registries, ISO 8601 in UTC.
    models: list[AutoUpdateModel]  #: The models with their rules.
    due: str | None = None  #: When the next run is due, before its random delay, ISO 8601 in UTC.
    network: NetworkRule = "any"  #: The networks that runs use: `any`, or `unmetered` ones.
    power: PowerRule = "any"  #: The power that runs use: `any`, or `mains`.


@dataclass(frozen=True)
class AutoUpdateOutcome:
    """The result of an auto-update run for one model."""

    model: str
    #: `available`: reported only, as the policy says; `held`: newer versions do not fit the application or
    #: this machine; `closed`: no window is open; `stopped`: the window closed during the download, or the
    #: network or the power changed to one that the settings exclude.
    status: Outcome
    policy: AutoPolicy  #: The policy of the model.
    installed: str  #: The version that was installed before the run.
    version: str | None = None  #: The version that was installed or reported.
    kind: str | None = None  #: The type of the update: `major`, `minor`, `patch`, `prerelease` or `security`.
    download_bytes: int | None = None
    changelog: str | None = None
    note: str | None = None  #: Notes, such as why a newer version was skipped.
    opens: str | None = None  #: When the next window opens, ISO 8601 in UTC.
    error: dict[str, object] | None = None
    leaves_copies: bool = False  #: Whether packs still have chunks that its files have, which `slim` deletes.

    @property
    def changed(self) -> bool:
        """Whether a version was installed."""
        return self.status == "updated"


@dataclass(frozen=True)
class AutoUpdateRound:
    """The result of an auto-update run."""

    checked: bool  #: Whether the registries were queried.
    waited_s: float  #: The random delay before the check, in seconds.
    opens: str | None  #: When the next window opens, ISO 8601 in UTC.
    models: list[AutoUpdateOutcome] = field(default_factory=list)  #: The result for each model.
    freed_bytes: int = 0
    running_in: str | None = None  #: The process that makes a run already; then this run did nothing.
    #: Why the run waits, such as a metered network; then no model was checked.
    postponed: str | None = None


@dataclass(frozen=True)
class Clockwork:
    """Randomness and waiting, replaceable in tests."""

    draw: Callable[[], float] = random.random
    sleep: Callable[[float], None] = time.sleep


def auto_update_status(session: Session, rules: AutoRules, models: tuple[str, ...] = ()) -> AutoUpdateStatus:
    """Return the settings and the open windows.  Raises: ConfigError."""
    zone, now = zone_of(rules), _now(session)
    last_check = None
    try:
        state = read_state(session.layout)
        last_check = state.get("last_check") if state else None
    except YarnstoreError:
        pass  # fsck reports it
    rows = []
    for model in models or sorted({*session.refs.installed_models(), *rules.models}):
        rule = rules.of(model)
        opening = _opening(rule, now, zone)
        is_open = rule.enabled and (not rule.windows or _is_open(opening, now))
        rows.append(
            AutoUpdateModel(
                model=model,
                enabled=rule.enabled,
                policy=rule.policy,
                windows=tuple(map(str, rule.windows)),
                is_open=is_open,
                opens=_iso(opening.opens) if opening and rule.enabled and not is_open else None,
                closes=_iso(opening.closes) if opening and is_open else None,
                own=model in rules.models,
            )
        )
    default = rules.default
    return AutoUpdateStatus(
        enabled=default.enabled,
        policy=default.policy,
        windows=tuple(map(str, default.windows)),
        jitter_s=rules.jitter_s,
        timezone=rules.timezone,
        last_check=last_check if isinstance(last_check, str) else None,
        models=rows,
        due=_iso(due) if (due := _due(rules, rows, now, last_check, zone)) else None,
        network=rules.network,
        power=rules.power,
    )


def require_known(session: Session, models: tuple[str, ...]) -> None:
    """Refuse models that are neither in the store nor in a registry; a registry that cannot be reached
    refuses none.

    Raises: NotFoundError with the nearest names.
    """
    refs = session.refs
    for model in models:
        if refs.installed(model) is not None or refs.versions(model) or cached_entry(session, model):
            continue
        if not session.registries.sources:
            raise not_installed(session, model)
        sources = sources_for(session, model)
        try:
            for source in sources:
                session.registries.refresh(source)  # a cached index does not prove that it has no such model
            find_entry(session, model, sources, fresh=True)
        except (BackendError, IntegrityError) as error:
            session.note(f"cannot check whether {model} exists: {error.message}")


def _due(
    rules: AutoRules, rows: list[AutoUpdateModel], now: datetime, last_check: object, zone: tzinfo
) -> datetime | None:
    """Return when the next run is due: when a window opens, and each hour while one is open."""
    try:
        last = datetime.fromisoformat(last_check) if isinstance(last_check, str) else None
    except ValueError:
        last = None
    if last is not None and (last.tzinfo is None or last > now):  # the clock was put back
        last = None
    enabled = [rules.of(row.model).windows for row in rows if row.enabled]
    return min((found for windows in enabled if (found := due_at(windows, now, last, zone))), default=None)


def run_round(
    session: Session, rules: AutoRules, *, now_at_once: bool = False, clockwork: Clockwork | None = None
) -> AutoUpdateRound:
    """Make one run, as a timer does.  With `now_at_once`, run even if no window is open, on any network and
    power, and without a delay.

    One failed model does not stop the others.  While another process makes a run, nothing is done, and the
    result says which one.  Raises: ConfigError, NoRegistryError.
    """
    looked_after = [model for model in session.refs.installed_models() if rules.of(model).enabled]
    with contextlib.ExitStack() as held:
        if looked_after:
            path = session.layout.root / "auto-update.lock"
            try:
                held.enter_context(lock.acquire(path, exclusive=True, timeout_s=0.0))
            except LockTimeoutError as error:
                return AutoUpdateRound(False, 0.0, None, running_in=error.who)
            except ReadOnlyError:
                pass  # in a store that this user cannot write, a run only reports
            for model in looked_after:
                restore_link(session, model)  # a killed run may have left it behind
        return _run_round(session, rules, looked_after, clockwork or Clockwork(), now_at_once=now_at_once)


def _run_round(
    session: Session, rules: AutoRules, looked_after: list[str], clockwork: Clockwork, *, now_at_once: bool
) -> AutoUpdateRound:
    zone = zone_of(rules)
    now = _now(session)
    openings = {model: _opening(rules.of(model), now, zone) for model in looked_after}
    open_now = [
        model
        for model in looked_after
        if now_at_once or not rules.of(model).windows or _is_open(openings[model], now)
    ]
    waited = 0.0
    if open_now and not now_at_once and rules.jitter_s:
        waited = delay_s(rules.jitter_s, clockwork.draw(), _least_left(openings, open_now, now))
        clockwork.sleep(waited)
    postponed = why_wait(rules) if open_now and not now_at_once else None
    if postponed:
        session.note(f"{postponed}: auto-update waits")
    checked = bool(open_now) and postponed is None
    outcomes = [
        _closed(session, rules, model, openings[model]) for model in looked_after if model not in open_now
    ]
    if checked:
        found = check_for_updates(session, tuple(open_now), movable=tuple(open_now))
        limits = {
            model: _Limits(session) if now_at_once else _Limits(session, openings[model], rules)
            for model in open_now
        }
        outcomes += _all(session, rules, found, limits)
    if checked:
        note_check(session)
    following = [
        opening.opens for opening in openings.values() if opening is not None and opening.opens > now
    ]
    return AutoUpdateRound(
        checked,
        round(waited, 3),
        _iso(min(following)) if following else None,
        sorted(outcomes, key=lambda outcome: outcome.model),
        postponed=postponed,
    )


# --- one model ---------------------------------------------------------------------------------


def _all(
    session: Session, rules: AutoRules, found: list[Update], limits: Mapping[str, _Limits]
) -> Iterator[AutoUpdateOutcome]:
    """Update the models as far as their policies allow, those that need each other together."""
    chosen: dict[str, tuple[AutoUpdateOutcome, Range]] = {}
    for each in found:
        outcome, goal = _decided(session, rules.of(each.model), each)
        if goal is None:
            yield outcome
        else:
            chosen[each.model] = (outcome, goal)
    policies = {model: UpdatePolicy(to=goal, to_may_miss=True) for model, (_, goal) in chosen.items()}
    moves = plan_moves(session, policies)
    moving = {model for models in moves.groups for model in models}
    for models in (*moves.groups, *((model,) for model in policies if model not in moving)):
        outcomes = [chosen[model][0] for model in models]
        group = {model: policies[model] for model in models}
        yield from _group(session, outcomes, group, moves.requirements, [limits[model] for model in models])


def _decided(session: Session, rule: AutoRule, found: Update) -> tuple[AutoUpdateOutcome, Range | None]:
    """Return the outcome so far, and the versions that an update may install; None to not update."""
    plain = AutoUpdateOutcome(
        model=found.model,
        status="current",
        policy=rule.policy,
        installed=found.installed,
        version=found.wanted if found.wanted != found.installed else found.newest or found.latest,
        kind=found.kind,
        download_bytes=found.download_bytes,
        changelog=found.changelog,
        note=found.note,
    )
    if found.registry is None:
        return replace(plain, status="failed", error=_told(found.note)), None
    if found.kind is None:
        return plain, None
    if found.wanted == found.installed and found.obstacle == "pinned":
        return replace(plain, status="pinned"), None
    if found.wanted == found.installed and found.obstacle in ("application", "memory", "requires"):
        return replace(plain, status="held"), None
    # By the user, or after a failed self-check: then it is not installed again every night.
    refused = _rolled_back_from(session, found.model, found.installed)
    goal = _goal(rule.policy, found, refused)
    if goal is None and found.wanted == refused:
        note = f"{refused} was rolled back here; `ystore update {found.model}` installs it again"
        return replace(plain, status="available", note=note), None
    return replace(plain, status="available"), goal


def _group(
    session: Session,
    outcomes: list[AutoUpdateOutcome],
    policies: Mapping[str, UpdatePolicy],
    requirements: Requirements,
    limits: list[_Limits],
) -> list[AutoUpdateOutcome]:
    """Update models that move together, while all of them may."""

    def check() -> None:
        for limit in limits:
            limit.check()

    def stopped(more: str = "") -> list[AutoUpdateOutcome] | None:
        why = next((limit.why for limit in limits if limit.why is not None), None)
        if why is None:
            return None
        return [replace(plain, status="stopped", note=f"{why}{more}") for plain in outcomes]

    if any(limit.reached() is not None for limit in limits) and (ended := stopped()) is not None:
        return ended
    try:
        # A download begins only above the reserve, even if it has nothing to download.
        download_bytes = sum(plain.download_bytes or 0 for plain in outcomes)
        fsread.require_space(session.layout.root, download_bytes or 1, session.layout.reserve)
        with session.activity.until(check):
            results = update_group(session, policies, requirements)
    except CancelledError:
        ended = stopped("; downloaded data is kept")
        if ended is None:
            raise
        return ended
    except YarnstoreError as error:
        return [replace(plain, status="failed", error=error.as_dict()) for plain in outcomes]
    return [_outcome(plain, done) for plain, done in zip(outcomes, results, strict=True)]


def _outcome(plain: AutoUpdateOutcome, done: UpdateResult) -> AutoUpdateOutcome:
    if done.changed:
        return replace(
            plain,
            status="updated",
            version=done.version,
            download_bytes=done.download_bytes,
            leaves_copies=done.leaves_copies,
        )
    if done.status == "failed":
        return replace(plain, status="failed", error=done.error)
    return replace(plain, status="held", note=done.note) if done.status == "held" else plain


def _rolled_back_from(session: Session, model: str, installed: str) -> str | None:
    """Return the version from which the last move of a model returned to the installed one, if it did."""
    moves = session.refs.moves(model)
    last = moves[-1] if moves else None
    if last is None or last.operation not in BACKWARD or last.old is None or last.new is None:
        return None
    return last.old.version if last.new.version == installed else None


def _goal(policy: AutoPolicy, found: Update, refused: str | None) -> Range | None:
    """Return the versions that an update may install, newer than a refused one; None to only report."""
    if policy == "notify" or found.wanted in (found.installed, refused):
        return None
    step = update_type(found.installed, found.wanted)
    if allows(policy, step, security=found.kind == "security"):
        return Range.parse(found.wanted)
    if policy == "patch" and step == "minor":
        # There may also be patches of the installed minor version.
        above = found.installed if refused is None else refused
        return Range.parse(f"~{found.installed}, >{above}, <{found.wanted}")
    return None


class _Limits:
    """What ends the downloads of a run: the end of the window, and the network and power that it waits for.

    `why` is what ended them.
    """

    def __init__(
        self, session: Session, opening: Opening | None = None, rules: AutoRules | None = None
    ) -> None:
        self.why: str | None = None
        self._session = session
        self._closes = opening.closes if opening is not None else None
        self._rules = rules
        self._asked_s: float | None = None

    def reached(self) -> str | None:
        """Return why no download may go on, None if it may; several threads may call it."""
        now_s = self._session.clock()
        if self._closes is not None and _now(self._session) >= self._closes:
            self.why = "the window closed"
        elif self._rules is not None and (self._asked_s is None or abs(now_s - self._asked_s) >= _RECHECK_S):
            self._asked_s = now_s
            self.why = why_wait(self._rules) or self.why
        return self.why

    def check(self) -> None:
        """End a download if it may not go on.  Raises: CancelledError."""
        if (why := self.reached()) is not None:
            raise CancelledError(why)


def _told(note: str | None) -> dict[str, object]:
    return {"code": "error", "message": note or "in no registry", "hint": ""}


def _closed(session: Session, rules: AutoRules, model: str, opening: Opening | None) -> AutoUpdateOutcome:
    try:
        current = session.refs.current(model)
    except YarnstoreError as error:
        return AutoUpdateOutcome(model, "failed", rules.of(model).policy, "", error=error.as_dict())
    opens = _iso(opening.opens) if opening else None
    return AutoUpdateOutcome(
        model, "closed", rules.of(model).policy, current.version if current else "", opens=opens
    )


# --- time --------------------------------------------------------------------------------------


def _now(session: Session) -> datetime:
    return datetime.fromtimestamp(session.clock(), UTC)


def _opening(rule: AutoRule, now: datetime, zone: tzinfo) -> Opening | None:
    return find_opening(rule.windows, now, zone) if rule.windows else None


def _is_open(opening: Opening | None, now: datetime) -> bool:
    return opening is not None and opening.opens <= now


def _least_left(openings: dict[str, Opening | None], models: list[str], now: datetime) -> float | None:
    left = [
        (opening.closes - now).total_seconds() for model in models if (opening := openings[model]) is not None
    ]
    return min(left, default=None)


def _iso(when: datetime) -> str | None:
    return format_iso(int(when.timestamp() * 1000))
