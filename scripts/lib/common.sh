# shellcheck shell=bash
# What every script here needs: messages, the cache folder, packages.

# shellcheck disable=SC2034 # Used by the scripts that read this file.
cache=${FOREBAY_CACHE:-$HOME/.cache/forebay}

say() {
    echo "$*" >&2
}

die() {
    say "error: $*"
    exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

can_apt() {
    has apt-get && [ "$(id -u)" = 0 ]
}

# The package's own service must not start: a policy of 101 forbids it while apt runs.
apt_install() {
    local policy=/usr/sbin/policy-rc.d ours=no status=0
    say "installing by apt-get: $*"
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        ours=yes
    fi
    {
        apt-get -qq update &&
            DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@"
    } >&2 || status=$?
    [ "$ours" = no ] || rm -f "$policy"
    [ "$status" = 0 ] || die "apt-get could not install: $*"
}

# install_or_explain WHAT "DEBIAN PACKAGES" "BREW PACKAGES"
install_or_explain() {
    # shellcheck disable=SC2086 # Package names are words.
    if can_apt; then
        apt_install $2
    elif has apt-get; then
        die "$1 is missing: as root run 'apt-get install -y --no-install-recommends $2'"
    elif has brew; then
        die "$1 is missing: run 'brew install $3'"
    else
        die "$1 is missing: install it by your system's package manager ($2 on Debian, $3 on Homebrew)"
    fi
}
