#!/bin/sh
# Print the Python that makes a virtual environment:
#   find_python.sh newest|oldest   the newest or oldest supported one in PATH
#   find_python.sh NAME            the given one, from 3.11 on
# It must run (a pyenv shim may only say that it does not) and make environments (Debian ships ensurepip apart).
set -u
want=${1:?newest, oldest or the name of an interpreter}
probe='
import sys
version = "%d.%d" % sys.version_info[:2]
last = (3, 13) if sys.argv[1] == "supported" else (3, 1000)
if not (3, 11) <= sys.version_info[:2] <= last:
    sys.exit(print("is " + version))
try:
    import ensurepip, venv
except ImportError as error:
    sys.exit(print("has no " + (error.name or "ensurepip")))
print("ok")
'

# say PYTHON supported|any: "ok", or why it will not do
say() {
  answer=$("$1" -c "$probe" "$2" 2>/dev/null </dev/null) || answer=
  echo "${answer:-does not run}"
}

# Empty fields and spaces in PATH are as the shell has them.
search() {
  found=
  for name in "$@"; do
    seen=
    old_ifs=$IFS
    IFS=:
    for folder in $PATH; do
      IFS=$old_ifs
      candidate=${folder:-.}/$name
      [ -f "$candidate" ] && [ -x "$candidate" ] || continue
      seen=$(say "$candidate" supported)
      if [ "$seen" = ok ]; then
        echo "$candidate"
        return 0
      fi
      found="$found${found:+, }$candidate $seen"
    done
    IFS=$old_ifs
  done
  echo "make: looked for $*; ${found:-none is in PATH}; give a Python from 3.11 on with PYTHON=..." >&2
  return 2
}

case $want in
  newest) search python3.13 python3.12 python3.11 python3 ;;
  oldest) search python3.11 python3.12 python3.13 python3 ;;
  *)
    seen=not\ found
    command -v "$want" >/dev/null && seen=$(say "$want" any)
    [ "$seen" = ok ] && { echo "$want"; exit 0; }
    echo "make: PYTHON=$want $seen; give a Python from 3.11 on with PYTHON=..." >&2
    exit 2
    ;;
esac
