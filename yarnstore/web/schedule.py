"""The time of the next auto-update run, in words."""

from __future__ import annotations

from datetime import UTC, datetime

from yarnstore.results import AutoUpdateStatus
from yarnstore.web.records import AutoUpdatePage, NextRound


def auto_update_page(found: AutoUpdateStatus, now: datetime | None = None) -> AutoUpdatePage:
    """Return the auto-update settings and the next run."""
    return AutoUpdatePage(found, _next_round(found, now or datetime.now(UTC)))


def _next_round(found: AutoUpdateStatus, now: datetime) -> NextRound:
    looked_after = [rule for rule in found.models if rule.enabled]
    if not looked_after:
        return NextRound(None, "Auto-update is off.")
    if found.due is None:
        return NextRound(None, "No window will ever open.")
    first = datetime.fromisoformat(found.due)
    if first <= now:
        return NextRound(int(now.timestamp() * 1000), "The next check runs now: a window is open.")
    local = first.astimezone()
    near = (first - now).days < 6
    day = f"{local:%A}" if near else f"{local:%d %B}"
    return NextRound(int(first.timestamp() * 1000), f"The next check is on {day} at {local:%H:%M}.")
