"""The network and the power that auto-update waits for: not metered, and not a battery.

NetworkManager, Windows and macOS are asked for the network through their own programs, and the system for the
power (`store/native`).  A system that does not say is not waited for.
"""

from __future__ import annotations

import re
import subprocess
import sys

from yarnstore.registry.policies import AutoRules
from yarnstore.store import native

_PATIENCE_S = 10.0
# NMMetered of NetworkManager: 1 is yes and 3 a guess of yes, 2 and 4 are the same for no, 0 is unknown.
_LINUX = (
    *("busctl", "--auto-start=no", "get-property", "org.freedesktop.NetworkManager"),
    *("/org/freedesktop/NetworkManager", "org.freedesktop.NetworkManager", "Metered"),
)
# NetworkCostType of Windows.Networking.Connectivity: Unknown, Unrestricted, Fixed or Variable.
_WINDOWS = """
$ErrorActionPreference = 'Stop'
$null = [Windows.Networking.Connectivity.NetworkInformation, Windows, ContentType=WindowsRuntime]
$used = [Windows.Networking.Connectivity.NetworkInformation]::GetInternetConnectionProfile()
[Console]::Out.Write($used.GetConnectionCost().NetworkCostType.ToString())
"""


def why_wait(rules: AutoRules) -> str | None:
    """Return why auto-update has to wait now, as a clause; None if it need not."""
    if rules.power == "mains" and native.on_battery():
        return "this machine runs on battery power"
    if rules.network == "unmetered" and is_metered(sys.platform):
        return "the network is metered"
    return None


def is_metered(platform: str) -> bool | None:
    """Whether the network that leads to the internet is metered; None if the system does not say.

    Takes at most twenty seconds.
    """
    if platform == "darwin":
        found = re.search(r"interface: (\w+)", _answer("route", "-n", "get", "default"))
        text = _answer("ifconfig", "-v", found[1]) if found else ""
        flags = re.search(r"\beflags=\w+(<[^>]*>)?", text)  # IFEF_EXPENSIVE of net/if.h
        return re.search(r"\bEXPENSIVE\b", flags[0]) is not None if flags else None
    if platform == "win32":
        text = _answer("powershell", "-NoProfile", "-NonInteractive", "-Command", _WINDOWS)
        return {"Fixed": True, "Variable": True, "Unrestricted": False}.get(text)
    return {"u 1": True, "u 3": True, "u 2": False, "u 4": False}.get(_answer(*_LINUX))


def _answer(*command: str) -> str:
    """Return what a program prints, empty if it fails, does not exist or takes too long."""
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("ascii", "replace").strip()
