"""Another IMAP client than the product: Python's imaplib.

    other_client.py PORT USER PASSWORD < OPERATIONS

OPERATIONS is a JSON list of [operation, argument, …]; the answers are a JSON list in the same order.
"""

import base64
import hashlib
import imaplib
import json
import re
import sys

imaplib._MAXLINE = 100_000_000


def encoded(name):
    """Modified UTF-7 (RFC 3501 section 5.1.3), quoted."""
    out, run = "", ""
    for char in name + "\0":
        if 0x20 <= ord(char) <= 0x7E or char == "\0":
            if run:
                out += "&" + base64.b64encode(run.encode("utf-16-be")).decode().rstrip("=").replace("/", ",") + "-"
                run = ""
            out += "" if char == "\0" else "&-" if char == "&" else char
        else:
            run += char
    return '"' + out.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Client:
    def __init__(self, port, user, password):
        self.imap = imaplib.IMAP4("127.0.0.1", int(port), 60)
        self.imap.login(user, password)

    def checked(self, answer):
        status, data = answer
        if status != "OK":
            raise RuntimeError(f"{status} {data}")
        return data

    def append(self, folder, text):
        self.checked(self.imap.append(encoded(folder), None, None, base64.b64decode(text)))

    def read(self, folder):
        """SHA-256 and flags of every message."""
        self.checked(self.imap.select(encoded(folder), readonly=True))
        uids = self.checked(self.imap.uid("SEARCH", "ALL"))[0].split()
        found = []
        for uid in uids:
            data = self.checked(self.imap.uid("FETCH", uid.decode(), "(BODY.PEEK[])"))
            raw = next((part[1] for part in data if isinstance(part, tuple)), b"")
            flags = self.checked(self.imap.uid("FETCH", uid.decode(), "(FLAGS)"))
            flags = sorted(re.findall(r"\\\w+", b" ".join(f for f in flags if isinstance(f, bytes)).decode()))
            found.append([hashlib.sha256(raw).hexdigest()[:16], [f for f in flags if f != "\\Recent"]])
        return found

    def flag(self, folder, number, flag):
        self.checked(self.imap.select(encoded(folder)))
        self.checked(self.imap.store(str(number), "+FLAGS", f"({flag})"))

    def expunge(self, folder, numbers):
        self.checked(self.imap.select(encoded(folder)))
        if numbers:
            self.checked(self.imap.store(",".join(map(str, numbers)), "+FLAGS.SILENT", "(\\Deleted)"))
        self.checked(self.imap.expunge())

    def validity(self, folder):
        self.checked(self.imap.select(encoded(folder), readonly=True))
        return (self.imap.untagged_responses.get("UIDVALIDITY") or [b""])[0].decode()

    def create(self, folder):
        self.checked(self.imap.create(encoded(folder)))

    def delete(self, folder):
        self.checked(self.imap.delete(encoded(folder)))


def main():
    client = Client(*sys.argv[1:4])
    answers = []
    for operation, *arguments in json.load(sys.stdin):
        answers.append(getattr(client, operation)(*arguments))
    json.dump(answers, sys.stdout)


main()
