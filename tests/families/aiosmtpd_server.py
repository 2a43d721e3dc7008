"""aiosmtpd, started by the tests: each message goes to FOLDER/RECIPIENT'S NAME/NUMBER, as it came.

With a certificate it speaks TLS from the first byte and wants XOAUTH2; without one it takes mail from whoever connects.
"""
import asyncio
import base64
import pathlib
import signal
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, MISSING

port, folder, users, largest = int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3].split(","), int(sys.argv[4])
certificate = sys.argv[5:7]


class Desk:
    numbers = iter(range(1, 1_000_000))

    async def handle_RCPT(self, server, session, envelope, address, options):
        name = address.partition("@")[0]
        if name == "later":
            return "450 4.2.0 this mailbox is busy"
        if name not in users:
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server, session, envelope):
        for address in envelope.rcpt_tos:
            place = folder / address.partition("@")[0]
            place.mkdir(parents=True, exist_ok=True)
            part = place / f"{next(self.numbers)}.part"
            part.write_bytes(envelope.original_content)
            part.rename(part.with_suffix(""))
        return "250 2.0.0 taken"

    async def auth_XOAUTH2(self, server, args):
        text = args[1] if len(args) > 1 else None
        if text is None:
            asked = await server.challenge_auth("")
            if asked is MISSING:
                return AuthResult(success=False)
            text = base64.b64encode(asked).decode()
        parts = base64.b64decode(text).split(b"\x01")
        allowed = any(part.startswith(b"auth=Bearer ") and b"revoked" not in part for part in parts)
        return AuthResult(success=allowed)


def server():
    return SMTP(
        Desk(),
        data_size_limit=largest,
        enable_SMTPUTF8=True,
        hostname="localhost",
        auth_required=bool(certificate),
        auth_require_tls=False,
        auth_exclude_mechanism=["LOGIN", "PLAIN"],
    )


async def main():
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)
    await asyncio.get_running_loop().create_server(server, "127.0.0.1", port, ssl=context)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


asyncio.run(main())
