#!/bin/sh
# Installs what the tests need and a Rust toolchain does not bring: mail servers (Debian packages) and the
# authorization server (npm), foreign clients (PyPI). Quiet and quick when all is there. No service is started and
# nothing is configured.
#
#   tests/install.sh            what `make test` and `make demo` need
#   tests/install.sh --bench    also the clients that `make bench` compares with
#   tests/install.sh --servers  also the servers that only `make test-servers` walks; those that Debian lets nobody install
#                               beside Postfix are unpacked in tests/families/debian
set -eu

here=$(cd "$(dirname "$0")" && pwd)
packages="dovecot-core dovecot-imapd dovecot-lmtpd mailutils-imap4d postfix postgresql pgbouncer
    g++ valgrind libcjson-dev python3-minimal python3-venv libxml2-utils php-cli ruby default-jdk-headless libjna-java
    chromium tinyproxy-bin"
unpacked=
npm_folders="$here/idp $here/families $here/page $here/../host-sample/node"
if [ "${1:-}" = --bench ]; then
    packages="$packages isync libsasl2-modules libsasl2-modules-kdexoauth2"
    npm_folders="$npm_folders $here/bench/nodemailer"
fi
if [ "${1:-}" = --servers ]; then
    unpacked="exim4-daemon-light opensmtpd glewlwyd"
    packages="$packages libdb5.3 libevent-2.1-7 libgnutls-dane0 libidn12 libnsl2 libpcre2-8-0"
    packages="$packages libconfig9 libhoel1.4 libiddawc1.1 libmicrohttpd12 liboath0 liborcania2.3 librhonabwy1.1
        libulfius2.7 libyder2.0"
fi
policy=/usr/sbin/policy-rc.d
log=$(mktemp)
sudo=
made_policy=
cleanup() {
    rm -f "$log"
    [ -z "$made_policy" ] || $sudo rm -f "$policy"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

fail() {
    echo "tests/install.sh: $1" >&2
    exit 1
}

# The network is not always well.
three_times() {
    "$@" || { sleep 5 && "$@"; } || { sleep 20 && "$@"; }
}

missing_packages() {
    for package in $packages; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || printf '%s ' "$package"
    done
}

# The rest of the machine must not get a mail server that runs: invoke-rc.d asks policy-rc.d first, 101 means no.
install_packages() {
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || fail "ask an administrator to run: apt-get install --no-install-recommends $*"
        sudo="sudo -n"
    fi
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
        $sudo chmod 755 "$policy"
        made_policy=1
    fi
    # DPkg::Lock::Timeout waits for somebody else's installation; the lists have a lock of their own, hence the loop.
    attempt=1
    until $sudo apt-get update -q -o Acquire::Retries=5 >"$log" 2>&1 &&
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
            -o Acquire::Retries=5 -o DPkg::Lock::Timeout=300 "$@" >>"$log" 2>&1; do
        if [ $attempt -ge 30 ] || ! grep -qiE 'could not get lock|unable to (acquire|lock)' "$log"; then
            tail -n 20 "$log" >&2
            fail "these Debian packages could not be installed: $*"
        fi
        attempt=$((attempt + 1))
        sleep 4
    done
}

command -v dpkg-query >/dev/null || fail "this needs Debian or a relative of it; elsewhere install: $packages"
wanted=$(missing_packages)
if [ -n "$wanted" ]; then
    echo "installing $wanted" >&2
    # Unquoted on purpose: one argument per package.
    install_packages $wanted
fi

for package in $unpacked; do
    done=$here/families/debian/.$package
    [ -f "$done" ] && continue
    echo "unpacking $package" >&2
    mkdir -p "$here/families/debian"
    load=$(mktemp -d)
    # The lists may be older than what the mirror has.
    (cd "$load" && { apt-get download "$package" || { ${sudo:-} apt-get update -q && apt-get download "$package"; }; } &&
        dpkg -x ./"$package"_*.deb "$here/families/debian") >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        rm -rf "$load"
        fail "$package could not be unpacked"
    }
    rm -rf "$load"
    touch "$done"
done

command -v cc >/dev/null || fail "a C compiler (cc) is missing; install the package gcc or clang"
command -v node >/dev/null || fail "node is missing; install Node.js 20 or newer with npm"
node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)' ||
    fail "node $(node -v) is too old; install Node.js 20 or newer"

for folder in $npm_folders; do
    # npm leaves a copy of the lock file behind what it installed; a newer one in the folder means that it changed.
    installed=$folder/node_modules/.package-lock.json
    if [ ! -f "$installed" ] || [ "$folder/package-lock.json" -nt "$installed" ]; then
        echo "installing the npm packages of ${folder#"$here"/}" >&2
        (cd "$folder" && three_times npm ci --no-audit --no-fund --loglevel=error) >"$log" 2>&1 || {
            tail -n 20 "$log" >&2
            fail "npm ci failed in $folder"
        }
        touch "$installed"
    fi
done

# Foreign clients and servers in Python. The copy of the list tells what is installed.
for folder in "$here/python" "$here/families"; do
    venv=$folder/.venv
    list=$folder/requirements.txt
    cmp -s "$list" "$venv/requirements.txt" && continue
    echo "installing the Python packages of ${list#"$here"/}" >&2
    rm -rf "$venv"
    { /usr/bin/python3 -m venv "$venv" &&
        three_times "$venv/bin/pip" install --quiet --disable-pip-version-check --no-input -r "$list"; } >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        fail "the packages of ${list#"$here"/} could not be installed"
    }
    cp "$list" "$venv/requirements.txt"
done
