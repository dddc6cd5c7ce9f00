#!/usr/bin/env bash
# Installs the renderers that bench/scene.py measures against, each in an environment of its own below .venv-peers/.
# Mitsuba's llvm variants need libLLVM >= 19 (DRJIT_LIBLLVM_PATH, or Debian's libllvm19); bpy wants Python 3.11 and numpy < 2.
set -uo pipefail
cd "$(dirname "$0")/../.."
python="${PYTHON:-python3}"

install() {  # NAME PACKAGE...
  local name="$1"; shift
  test -d ".venv-peers/$name" || "$python" -m venv ".venv-peers/$name" || return 1
  if ".venv-peers/$name/bin/pip" install --quiet "$@"; then
    echo "$name: installed"
  else
    echo "$name: not available for this Python or platform; bench/scene.py leaves it out"
  fi
}

install mitsuba "mitsuba>=3.9" numpy OpenImageIO
install cycles "bpy>=4.4" "numpy<2"
install luxcore pyluxcore numpy
install embree embreex trimesh numpy

if [ -z "${DRJIT_LIBLLVM_PATH:-}" ] && ! ls /usr/lib/*/ 2>/dev/null | grep -qE "libLLVM[-.](so[.])?(19|2[0-9])"; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -q >/dev/null && apt-get install -y -q libllvm19 >/dev/null && echo "libLLVM 19: installed"
  else
    echo "libLLVM >= 19 not found: Mitsuba's llvm variants are left out (apt-get install libllvm19)"
  fi
fi
