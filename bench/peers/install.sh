#!/usr/bin/env bash
# Installs the renderers that bench/scene.py measures against, each in an environment of its own below .venv-peers/, and
# embreex, whose Embree bench/kernels.py measures against, in the project's own. What cannot be had is named and left out.
# Mitsuba's llvm variants need libLLVM >= 19 (DRJIT_LIBLLVM_PATH, or Debian's libllvm19); bpy wants Python 3.11, numpy < 2.
set -uo pipefail
cd "$(dirname "$0")/../.."
python="${PYTHON:-python3}"
venv="${VENV:-.venv}"

install() {  # NAME PACKAGE...
  local name="$1" place=".venv-peers/$1"; shift
  if { test -d "$place" || "$python" -m venv "$place"; } && "$place/bin/python" -m pip install --quiet "$@"; then
    echo "$name: installed"
  else
    echo "$name: not available for this Python or platform; bench/scene.py leaves it out"
  fi
}

install mitsuba "mitsuba>=3.9" numpy
install cycles "bpy>=4.4" "numpy<2"
install luxcore pyluxcore numpy

if test -x "$venv/bin/python" && "$venv/bin/python" -m pip install --quiet --no-deps embreex; then
  echo "embree: installed in $venv"
else
  echo "embree: not available; bench/kernels.py shows our figures alone"
fi

if [ -z "${DRJIT_LIBLLVM_PATH:-}" ] && ! compgen -G "/usr/lib/*/libLLVM*[-.]19*" >/dev/null &&
  ! compgen -G "/usr/lib/*/libLLVM*[-.]2[0-9]*" >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -q >/dev/null && apt-get install -y -q libllvm19 >/dev/null && echo "libLLVM 19: installed"
  else
    echo "libLLVM >= 19 not found: Mitsuba is left out (apt-get install libllvm19)"
  fi
fi
exit 0
