#!/usr/bin/env bash
# Makes sure that what Tidegate is built and tested with is there.
#
#   scripts/setup.sh build    cmake, a C compiler and make, which some dependencies are built with, and libpq, which the
#                             synchronous backend reaches PostgreSQL with
#   scripts/setup.sh test     the same, and PostgreSQL's server programs, Chromium and its driver, which tests start for
#                             themselves
#
# Says nothing if nothing is missing. Installs with apt-get where that is allowed; otherwise says in one line what to
# install, and fails.
set -euo pipefail

fail() {
    echo "setup: $*" >&2
    exit 1
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
purpose=${1:-test}
case $purpose in
    build | test) ;;
    *) fail "unknown purpose \"$purpose\"; use build or test" ;;
esac

if ! command -v cargo >/dev/null; then
    rust=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    fail "cargo is missing: install Rust $rust or later as https://rustup.rs says, or put ~/.cargo/bin on the PATH"
fi

missing=()
command -v cmake >/dev/null || missing+=(cmake)
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v make >/dev/null || missing+=(make)
# The library to link with, not libpq.so.5 alone, which every client has.
has_libpq() {
    local directory
    for directory in "$(pg_config --libdir 2>/dev/null)" /usr/lib/*/ /usr/lib64 /usr/local/lib; do
        [[ -e $directory/libpq.so || -e $directory/libpq.dylib ]] && return 0
    done
    return 1
}
has_libpq || missing+=(libpq-dev)
if [[ $purpose == test ]] && ! command -v initdb >/dev/null && ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
    missing+=(postgresql)
fi
if [[ $purpose == test ]]; then
    # The dashboard is tried in a real browser.
    command -v chromium >/dev/null || missing+=(chromium)
    command -v chromedriver >/dev/null || missing+=(chromium-driver)
fi
((${#missing[@]})) || exit 0

advice="install what is missing: apt-get install ${missing[*]}"
command -v apt-get >/dev/null || fail "$advice (or the same by this system's own package manager)"
if ((EUID == 0)); then
    as_root=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
else
    fail "$advice"
fi

apt() {
    # A machine that has just started may still be upgrading itself: wait for it.
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@" </dev/null >/dev/null
}

install() {
    apt install --yes --no-install-recommends "$@" || fail "apt-get failed; $advice"
}

echo "setup: installing ${missing[*]}" >&2
# One source that cannot be reached need not stand in the way of the others.
apt update || echo "setup: apt-get update failed; going on with the package lists that are there" >&2
if [[ " ${missing[*]} " == *" postgresql "* && ! -e /etc/postgresql-common/createcluster.conf ]]; then
    # Only the programs are wanted: no database server may start by itself.
    install postgresql-common
    "${as_root[@]}" sed -i 's/^#*create_main_cluster *=.*/create_main_cluster = false/' \
        /etc/postgresql-common/createcluster.conf
fi
install "${missing[@]}"
