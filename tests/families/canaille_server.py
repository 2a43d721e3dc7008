"""Canaille on a port of loopback: PORT BASE FOLDER CERTIFICATE. HTTPS is a terminator's before it.

People: alice and bob, password "NAME-password". Clients: desk (secret) and certified (the key of CERTIFICATE).
POST /test/withdraw ends what alice has granted, as its page of consents does.
"""

import json
import os
import sys
from socketserver import ThreadingMixIn
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIServer, make_server

from canaille import create_app
from canaille.app import models
from canaille.backends import Backend
from joserfc.jwk import RSAKey, import_key

PORT, BASE, FOLDER, CERTIFICATE = int(sys.argv[1]), *sys.argv[2:]


def signing_key():
    """The same after a restart."""
    path = os.path.join(FOLDER, "signing.json")
    if not os.path.exists(path):
        key = RSAKey.generate_key(2048, {"kid": "signing", "alg": "RS256", "use": "sig"}, auto_kid=True)
        with open(path, "w") as file:
            json.dump(key.as_dict(private=True), file)
    with open(path) as file:
        return json.load(file)


app = create_app({
    "SECRET_KEY": "tests",
    "SERVER_NAME": urlsplit(BASE).netloc,
    "PREFERRED_URL_SCHEME": "https",
    "OAUTH2_TOKEN_EXPIRES_IN": {"authorization_code": 3600, "refresh_token": 3600},
    "CANAILLE": {"DATABASE": "sql"},
    "CANAILLE_SQL": {"DATABASE_URI": f"sqlite:///{FOLDER}/canaille.sqlite"},
    "CANAILLE_OIDC": {"ACTIVE_JWKS": [signing_key()]},
})


@app.post("/test/withdraw")
def withdraw():
    alice = Backend.instance.get(models.User, user_name="alice")
    for consent in Backend.instance.query(models.Consent, subject=alice):
        consent.revoke()
    return "done"


if "csrf" in app.extensions:
    app.extensions["csrf"].exempt(withdraw)


def prepare():
    with app.app_context():
        if Backend.instance.get(models.User, user_name="alice"):
            return
        for name in ["alice", "bob"]:
            Backend.instance.save(models.User(
                user_name=name, formatted_name=name, family_name=name, emails=[f"{name}@example.test"],
                password=f"{name}-password",
            ))
        known = {**import_key(open(CERTIFICATE).read(), "EC").as_dict(private=False), "kid": "desk-key"}
        for client_id, method, more in [
            ("desk", "client_secret_basic", {"client_secret": "desk-secret+with/odd:characters"}),
            ("certified", "private_key_jwt", {"jwks": json.dumps({"keys": [known]})}),
        ]:
            client = models.Client(
                client_id=client_id, client_name=client_id, redirect_uris=["https://desk.test/callback"],
                grant_types=["authorization_code", "refresh_token"], response_types=["code"],
                scope=["openid", "email"], token_endpoint_auth_method=method, **more,
            )
            Backend.instance.save(client)
            client.audience = [client]
            Backend.instance.save(client)


def application(environ, start_response):
    environ["wsgi.url_scheme"] = "https"
    return app(environ, start_response)


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


if __name__ == "__main__":
    prepare()
    make_server("127.0.0.1", PORT, application, server_class=Server).serve_forever()
