#!/bin/sh
# Installs what the tests talk to: Postfix, swaks (with TLS), Python and its DKIM verifier (dkimpy, with Ed25519). Does nothing
# when all is there.
set -eu

packages='postfix swaks libnet-ssleay-perl python3 python3-dkim python3-nacl'

missing=
for package in $packages; do
    state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
# The tests bring their own configuration, so the package's Postfix needs none and must not start.
echo 'postfix postfix/main_mailer_type select No configuration' | $as_root debconf-set-selections
$as_root apt-get update --quiet --quiet
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends $missing
