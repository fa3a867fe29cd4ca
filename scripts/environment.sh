# Sourced by the scripts here: the virtual environment, made and kept up to date.
#
# TRIAGE_VENV   where it lies (default: .venv in the repository)
# PYTHON        the interpreter to make it with (default: the first Python >= 3.11 found)

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${TRIAGE_VENV:-$ROOT/.venv}

say() { printf '==> %s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

find_python() {
    local python
    for python in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 python}; do
        if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null; then
            printf '%s\n' "$python"
            return
        fi
    done
    fail "Python 3.11 or newer with its venv module is needed; found: $(python3 --version 2>&1 || true).
       Install it (Debian, Ubuntu: apt-get install python3 python3-venv), or name it: PYTHON=/path/to/python3.11 $0"
}

# What the installation depends on, as one hash; $1: extras.
fingerprint() {
    {
        printf '%s\n' "$ROOT" "$1"
        "$VENV/bin/python" -c 'import sys; print(sys.version)'
        cat "$ROOT/constraints.txt" "$ROOT/pyproject.toml" "$ROOT/setup.py"
    } | "$VENV/bin/python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

pip() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }

# Makes $VENV and installs the program in it; $1: extras, "" or "[test]" (which holds the former).
# The stamp remembers what was installed, so that the next call has nothing to do.
install_environment() {
    local extras=$1 stamp=$VENV/.triage-installed torch python
    if [ ! -x "$VENV/bin/python" ] || ! "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
        python=$(find_python)
        say "making the virtual environment $VENV with $("$python" --version)"
        "$python" -m venv --clear "$VENV"
    fi
    case $(cat "$stamp" 2>/dev/null) in
        "$(fingerprint "$extras")" | "$(fingerprint "[test]")")
            say "the virtual environment $VENV is up to date"
            return
            ;;
    esac
    rm -f "$stamp"
    torch=$(grep -E '^torch==' "$ROOT/constraints.txt")
    say "installing $torch (the largest part; minutes on a slow line)"
    pip install -q -c "$ROOT/constraints.txt" "$torch" setuptools
    say "installing the program and its other packages"
    pip install -q -c "$ROOT/constraints.txt" --no-build-isolation -e "$ROOT$extras"
    fingerprint "$extras" > "$stamp"
}
