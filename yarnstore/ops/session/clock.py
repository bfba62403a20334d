"""The time zone of maintenance windows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from yarnstore.errors import ConfigError
from yarnstore.registry.policies import AutoRules


class LocalZone(tzinfo):
    """The time zone of this machine's clock, with daylight saving time."""

    def utcoffset(self, when: datetime | None) -> timedelta | None:
        """Return the offset of a local time; `fold` selects one of two if it is ambiguous."""
        return when.replace(tzinfo=None).astimezone().utcoffset() if when is not None else None

    def dst(self, when: datetime | None) -> timedelta | None:  # noqa: ARG002
        """Return None: it is not known separately."""
        return None

    def tzname(self, when: datetime | None) -> str | None:
        """Return the system's name for the zone."""
        return when.replace(tzinfo=None).astimezone().tzname() if when is not None else None

    def fromutc(self, when: datetime) -> datetime:
        """Return the local time of an instant."""
        return datetime.fromtimestamp(when.replace(tzinfo=UTC).timestamp()).replace(tzinfo=self)


def zone_of(rules: AutoRules) -> tzinfo:
    """Return the time zone of the windows.  Raises: ConfigError."""
    if not rules.timezone:
        return LocalZone()
    try:
        return ZoneInfo(rules.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(
            f"auto_update.timezone is {rules.timezone!r}, which this machine does not know",
            hint="use a name such as Europe/Berlin, or remove the setting to use this machine's time zone",
        ) from None
