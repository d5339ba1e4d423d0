#!/bin/sh
# Debian packages that the tests use. Installed through apt where we may; else what is missing is named.
set -eu
tools="tcpdump:tcpdump tshark:tshark nmap:nmap hping3:hping3 arpspoof:dsniff ettercap:ettercap-text-only
mosquitto:mosquitto mosquitto_sub:mosquitto-clients ip:iproute2 ping:iputils-ping dnsmasq:dnsmasq-base
nginx:nginx-light ethtool:ethtool shellcheck:shellcheck strace:strace update-ieee-data:ieee-data"
PATH="$PATH:/usr/sbin:/sbin"
missing=""
for pair in $tools; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing:$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of words
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "missing Debian packages; their tests will be skipped (as root: apt-get install$missing)" >&2
fi
