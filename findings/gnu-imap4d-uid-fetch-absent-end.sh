#!/bin/sh
# What: GNU imap4d answers BAD to "UID FETCH 1:2" when no message has the UID 2, although a larger one exists, and answers
#       "UID FETCH 9" (no such UID) with the last message. RFC 3501 section 6.4.8: a UID that does not exist is ignored
#       without an error. Beside it, a maildir gets another UIDVALIDITY with each login, and UIDNEXT grows with each EXAMINE.
# With: mailutils-imap4d and libmailutils9 1:3.15-4 of Debian 12, Python 3. Run as root or as the owner of the folder.
# Seen: after three messages: BAD UID FETCH Failed to parse message set; UID FETCH 9 gives the last message.
# So:   end every UID range with the highest number there can be (n:4294967295) or an UID that was listed, and throw away
#       what was not asked for.
set -eu
work=$(mktemp -d)
daemon=
trap '[ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true; rm -rf "$work"' EXIT
chmod 755 "$work"
(cd "$work" && apt-get download -q mailutils-imap4d=1:3.15-4 libmailutils9=1:3.15-4 >/dev/null 2>&1 &&
    for package in ./*.deb; do dpkg -x "$package" root; done)
LD_LIBRARY_PATH=$(echo "$work"/root/usr/lib/*-linux-gnu)
export LD_LIBRARY_PATH
"$work/root/usr/sbin/imap4d" --version | head -n 1
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir "$work/passwd" "$work/home"
uid=$(id -u) gid=$(id -g)
if [ "$uid" = 0 ]; then
    uid=65534 gid=65534
    chown 65534:65534 "$work/home"
fi
# The password is pw.
# shellcheck disable=SC2016
printf 'alice:%s:%s:%s:x:%s/home:/bin/sh\n' '$1$abcdefgh$IQtUouv7y7Q9dRWkQEPCc.' "$uid" "$gid" "$work" \
    > "$work/passwd/example.test"
cat > "$work/conf" <<CONF
auth { authorization virtdomain; authentication generic; }
virtdomain { passwd-dir $work/passwd; }
mailbox { mailbox-pattern "maildir:$work/home/INBOX"; mailbox-type maildir; }
logging { syslog no; }
server 127.0.0.1:$port { single-process no; }
CONF
"$work/root/usr/sbin/imap4d" --foreground --daemon --config-file "$work/conf" 2>"$work/log" &
daemon=$!
sleep 1
cat > "$work/look.py" <<'PY'
import imaplib, sys, time

def visit(append):
    imap = imaplib.IMAP4("127.0.0.1", int(sys.argv[1]))
    imap.login("alice@example.test", "pw")
    for _ in range(append):
        imap.append("INBOX", None, None, b"From: a@example.org\r\nSubject: x\r\n\r\nhello\r\n")
        imap.select("INBOX", readonly=True)
    imap.select("INBOX", readonly=True)
    return imap, imap.untagged_responses["UIDVALIDITY"][0]

imap, first = visit(3)
uids = [int(uid) for uid in imap.uid("SEARCH", "ALL")[1][0].split()]
absent = next(number for number in range(2, uids[-1]) if number not in uids)
try:
    below = imap.uid("FETCH", f"1:{absent}", "(UID)")
except imaplib.IMAP4.error as error:
    below = str(error)
above = imap.uid("FETCH", str(uids[-1] + 50), "(UID)")
imap.logout()
time.sleep(2)
imap, second = visit(0)
print("UIDs", uids)
print(f"UID FETCH 1:{absent}:", below)
print(f"UID FETCH {uids[-1] + 50}:", above)
print("UIDVALIDITY", first, "then", second)
if "BAD" not in str(below) or str(uids[-1]).encode() not in above[1][0] or first == second:
    sys.exit("the behaviour has changed")
PY
python3 "$work/look.py" "$port"
echo "as seen: a range that ends at no message is BAD, a UID that is not there is the last message"
