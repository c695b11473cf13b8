#!/bin/sh
# Installs what the tests talk to: Postfix, swaks (with TLS), Python and its DKIM verifier (dkimpy, with Ed25519), and the
# libraries of PyPI and npm that verify webhooks, below target/verifiers. Does nothing when all is there.
set -eu

packages='postfix swaks libnet-ssleay-perl python3 python3-dkim python3-nacl python3-venv'
# Node is not everywhere Debian's, and then brings its own npm.
command -v node >/dev/null || packages="$packages nodejs"
command -v npm >/dev/null || packages="$packages npm"

missing=
for package in $packages; do
    state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done

if [ -n "$missing" ]; then
    as_root=
    [ "$(id -u)" = 0 ] || as_root=sudo
    # The tests bring their own configuration, so the package's Postfix needs none and must not start.
    echo 'postfix postfix/main_mailer_type select No configuration' | $as_root debconf-set-selections
    $as_root apt-get update --quiet --quiet
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends $missing
fi

# The lists of versions are copied last: they say that the rest is there.
from=$(dirname "$0")/verifiers
to=$(dirname "$0")/../target/verifiers
mkdir -p "$to"
if ! cmp --silent "$from/requirements.txt" "$to/requirements.txt"; then
    /usr/bin/python3 -m venv --clear "$to/python"
    "$to/python/bin/pip" install --quiet --require-hashes --requirement "$from/requirements.txt"
    cp "$from/requirements.txt" "$to"
fi
if ! cmp --silent "$from/package-lock.json" "$to/package-lock.json"; then
    # npm keeps to the lock that lies beside what it installs.
    rm -rf "$to/npm"
    mkdir "$to/npm"
    cp "$from/package.json" "$from/package-lock.json" "$to/npm"
    npm ci --silent --ignore-scripts --prefix "$to/npm"
    cp "$from/package-lock.json" "$to"
fi
