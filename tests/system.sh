#!/usr/bin/env bash
# Brings what the tests want from the system: by apt-get where that needs no question, else it says what to do.
# PostgreSQL and Redis can also come from the development wheels; a Chromium has to be somewhere.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv/bin/python
log=.venv/system.log

missing() { "$python" -m tests.services missing; }
has() { [[ " $(missing | tr '\n' ' ') " != *" $1 "* ]]; }

as_root=()
if [ "$(id -u)" != 0 ]; then as_root=(sudo -n); fi

# Packages bring services along. Ours are started by the tests, so nothing shall run by itself afterwards.
install() {
    local policy=/usr/sbin/policy-rc.d cluster=/etc/postgresql-common/createcluster.d/elicit-tests.conf status=0
    "${as_root[@]}" mkdir -p "${cluster%/*}"
    echo 'create_main_cluster = false' | "${as_root[@]}" tee "$cluster" >/dev/null
    if [ -e "$policy" ]; then policy=; else
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod +x "$policy"
    fi
    "${as_root[@]}" apt-get update -qq || true
    # One by one: where one has another name, the others still come.
    for package in "$@"; do
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            -o DPkg::Lock::Timeout=300 "$package" || status=1
    done
    "${as_root[@]}" rm -f "$cluster" ${policy:+"$policy"}
    return "$status"
}

wanted=$(missing)
if [ -n "$wanted" ] && command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; then
    echo "installing with apt-get:" $wanted
    install $wanted >"$log" 2>&1 || echo "apt-get could not install everything: see $log"
fi
if ! has chromium; then
    echo "no Chromium: Playwright downloads one"
    "$python" -m playwright install chromium >"$log" 2>&1 || {
        echo "Chromium is missing: apt-get install chromium, or brew install --cask google-chrome, or set ELICIT_TEST_CHROMIUM"
        exit 1
    }
fi
wanted=$(missing)
if [ -n "$wanted" ]; then
    echo "from wheels, for want of system packages (apt-get install" $wanted"):" $wanted
fi
