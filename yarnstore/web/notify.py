"""Desktop notifications, with the system's program for them.

The text is an argument or the input of that program, and never a part of a command that a shell or a script
reads.  Without such a program or a desktop nothing happens; failures are ignored.
"""

from __future__ import annotations

import contextlib
import html
import shutil
import subprocess
import sys

_PATIENCE_S = 10.0
_LONGEST = 300
_MACOS = (
    *("-e", "on run argv", "-e", "display notification (item 2 of argv) with title (item 1 of argv)"),
    *("-e", "end run"),
)
# Text nodes are made by the document's own method, so that the text cannot be markup.
_WINDOWS = """
$ErrorActionPreference = 'Stop'
[Console]::InputEncoding = [Text.Encoding]::UTF8
$title, $text = [Console]::In.ReadToEnd() -split '\\n', 2
$null = [NAMES.ToastNotificationManager, NAMES, ContentType=WindowsRuntime]
$toast = [NAMES.ToastNotificationManager]::GetTemplateContent(5)
$lines = $toast.GetElementsByTagName('text')
$null = $lines.Item(0).AppendChild($toast.CreateTextNode($title))
$null = $lines.Item(1).AppendChild($toast.CreateTextNode($text))
$id = '{1AC14E77-02E7-4E5D-B744-2EB1AE5198B7}\\WindowsPowerShell\\v1.0\\powershell.exe'
$note = [NAMES.ToastNotification]::new($toast)
[NAMES.ToastNotificationManager]::CreateToastNotifier($id).Show($note)
""".replace("NAMES", "Windows.UI.Notifications")


def notify(title: str, text: str) -> bool:
    """Show a notification if possible; return whether a program accepted it.  Takes at most ten seconds.

    `title` is one line.
    """
    command, data = command_for(sys.platform, title[:_LONGEST], text[:_LONGEST])
    if shutil.which(command[0]) is None:
        return False
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        done = subprocess.run(  # noqa: S603 - a fixed program; the text is data
            command,
            input=data.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE_S,
            check=False,
        )
        return done.returncode == 0
    return False


def command_for(platform: str, title: str, text: str) -> tuple[list[str], str]:
    """Return the program's arguments and its input; without a desktop that program fails."""
    if platform == "darwin":
        return ["osascript", *_MACOS, title, text], ""
    if platform == "win32":
        return ["powershell", "-NoProfile", "-NonInteractive", "-Command", _WINDOWS], f"{title}\n{text}"
    # A notification server may interpret the text as markup, but not the title.
    return ["notify-send", "--app-name=ystore", "--", title, html.escape(text, quote=False)], ""
