#!/bin/bash
# Windows Python under Wine, with this checkout copied to Z:\w\y; `setup.sh` makes it.  WIN_TIMEOUT in seconds.
#   bash tests/windows/run.sh -m yarnstore status
# A file server that stays for 60 s makes the next call start in 0.3 s rather than 4 to 14; the first call of
# some may hang, so it is bounded and repeated once.
set -uo pipefail
lab=${WIN_LAB:-/tmp/winlab}
root=$(readlink -f "$(dirname "$(readlink -f "$0")")/../..")
mkdir -p "$lab/y"
(cd "$root" && git ls-files -z --cached --others --exclude-standard | tar c --null --ignore-failed-read -T - 2>/dev/null) |
  tar x -C "$lab/y"
server() { chroot "$lab/trixie" env WINEDEBUG=-all WINEPREFIX=/w/prefix /usr/lib/wine/wineserver64 "$@" </dev/null >/dev/null 2>&1; }
wine() {
  timeout "$1" chroot "$lab/trixie" env -C /w/y -i PATH=/usr/bin:/bin HOME=/root LC_ALL=C.UTF-8 WINEDEBUG=-all WINEPREFIX=/w/prefix \
    "YSTORE_HOME=${YSTORE_HOME:-C:\\store}" PYTHONDONTWRITEBYTECODE=1 wine /w/py/cp312/python.exe "${@:2}" \
    </dev/null 2> >(grep -v XDG_RUNTIME >&2)
}
server -p60
wine 120 -c pass || { server -k; server -p60; wine 120 -c pass || { echo "Wine does not start" >&2; exit 3; }; }
wine "${WIN_TIMEOUT:-600}" "$@"
