#!/bin/sh
# What: Python's email package writes a long message id as encoded words, which RFC 2047 section 5 forbids in
#       In-Reply-To and References. The receiving helpdesk gets no id it knows.
# With: CPython 3.11 (Debian's python3-minimal 3.11), standard library only; email.message.EmailMessage, policy SMTP.
# Seen: an id of 77 columns with its brackets is written as it is; from 78 columns on, In-Reply-To becomes =?utf-8?q?=3C…?=.
# So:   keep Message-IDs below 78 columns, and decode encoded words in id fields of what comes in.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/long_id.py" <<'PY'
import sys
from email.message import EmailMessage
from email.policy import SMTP

def in_reply_to(columns):
    message_id = "<" + "a" * (columns - 14) + "@example.org>"
    assert len(message_id) == columns
    message = EmailMessage(policy=SMTP)
    message["In-Reply-To"] = message_id
    message.set_content("thanks")
    # get the header's lines, unfolded, as another program would read them
    head = message.as_bytes().split(b"\r\n\r\n")[0].replace(b"\r\n ", b" ").decode("ascii")
    value = next(line for line in head.split("\r\n") if line.startswith("In-Reply-To:")).split(":", 1)[1].strip()
    return message_id, value

print("Python", sys.version.split()[0])
for columns in (60, 77, 78, 90):
    message_id, value = in_reply_to(columns)
    print(f"{columns} columns: {'unchanged' if value == message_id else value[:40] + '...'}")
    changed = value.startswith("=?utf-8?q?=3C")
    if changed != (columns >= 78) or (not changed and value != message_id):
        sys.exit("the behaviour has changed")
PY
/usr/bin/python3 "$work/long_id.py"
echo "as seen: ids of 78 columns and more are written as encoded words"
