# shellcheck shell=bash
# A Python that can make virtual environments.

find_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
        if has "$candidate" && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            echo "$candidate"
            return
        fi
    done
}

# Sets python. Debian ships venv apart from it.
check_python() {
    python=$(find_python)
    if [ -z "$python" ] || ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        install_or_explain "Python 3.11 or newer with venv" "python3 python3-venv" python
        python=$(find_python)
        [ -n "$python" ] || die "Python 3.11 or newer is missing: set PYTHON to one"
    fi
}

# make_venv FOLDER REQUIREMENTS: the list is complete, so that nothing is resolved.
make_venv() {
    check_python
    rm -rf "$1"
    "$python" -m venv "$1"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir \
        --no-deps --requirement "$2" >&2
}
