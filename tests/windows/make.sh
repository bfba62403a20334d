#!/bin/bash
# `make test-windows`: sets up Wine, then runs what it can prove; says what is skipped and what it cannot prove.
# Ends with 0 and a sentence where Wine cannot be set up: not root, not Debian, or no network.
set -uo pipefail
here=$(dirname "$(readlink -f "$0")")
if ! timeout "${WIN_SETUP_TIMEOUT:-1800}" bash "$here/setup.sh"; then
  echo "Wine cannot be set up here, so nothing was tested on Windows"
  [ -z "${CI:-}" ] || exit 1
  exit 0
fi
failed=0
bash "$here/run.sh" -m tests.windows.tour || failed=1
for folder in "${@:-unit/core unit/registry unit/settings unit/backends unit/store unit/cli cli/test_run_cli.py unit/ops/installing/test_self_check.py unit/web/test_serve.py}"; do
  for each in $folder; do
    WIN_TIMEOUT=${WIN_TIMEOUT:-900} bash "$here/run.sh" -m pytest -q -rs -o faulthandler_timeout=300 -o faulthandler_exit_on_timeout=true "tests/$each" || failed=1
  done
done
cat <<'TEXT'
Wine does not prove, so run `python -m tests.windows.questions` on Windows (docs/decisions/0035):
replacing a file that is open, a folder with an open file in it, paths beyond 260 characters, symlinks, and
files that a virus scanner holds; nor that a file is durable on NTFS.
TEXT
exit $failed
