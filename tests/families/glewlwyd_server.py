"""Glewlwyd on a port of loopback: PROGRAM_ROOT PORT BASE FOLDER CERTIFICATE. HTTPS is a terminator's before it.

People: alice and bob, password "NAME-password". Clients: desk (secret), certified (the key of CERTIFICATE), device.
Everything is entered through its own administration interface.
"""

import gzip
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request

from jwcrypto.jwk import JWK

ROOT, PORT, BASE, FOLDER, CERTIFICATE = sys.argv[1:]
LIBRARY = f"{ROOT}/usr/lib/glewlwyd"
DATABASE = f"{FOLDER}/glewlwyd.db"
CONFIGURATION = f"{FOLDER}/glewlwyd.conf"
GRANTS = ["code", "refresh_token", "device_authorization"]


class Administrator:
    def __init__(self):
        self.cookie = ""

    def call(self, method, path, body):
        headers = {"Content-Type": "application/json", "Cookie": self.cookie}
        url, data = f"http://127.0.0.1:{PORT}/api{path}", json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method)) as answer:
            self.cookie = (answer.headers.get("Set-Cookie") or self.cookie).split(";")[0]

    def log_in(self, server):
        while server.poll() is None:
            try:
                return self.call("POST", "/auth/", {"username": "admin", "password": "password"})
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        sys.exit("glewlwyd ended")

    def set_up(self):
        self.call("POST", "/scope/", {"name": "mail", "display_name": "mail", "password_required": False})
        openid = {"display_name": "openid", "password_required": True, "password_max_age": 0}
        self.call("PUT", "/scope/openid", openid)
        for name in ["alice", "bob"]:
            self.call("POST", "/user/", {
                "username": name, "password": f"{name}-password", "email": f"{name}@example.test", "name": name,
                "enabled": True, "scope": ["openid", "mail", "g_profile"],
            })
        certificate = open(CERTIFICATE, "rb").read()
        known = {**JWK.from_pem(certificate).export_public(as_dict=True), "kid": "desk-key"}
        for client_id, method, more in [
            ("desk", "client_secret_basic", {"confidential": True, "client_secret": "desk-secret"}),
            ("certified", "private_key_jwt", {"confidential": True, "jwks": {"keys": [known]}}),
            ("device", "none", {"confidential": False}),
        ]:
            self.call("POST", "/client/", {
                "client_id": client_id, "name": client_id, "enabled": True, "scope": [],
                "redirect_uri": ["https://desk.test/callback"], "authorization_type": GRANTS,
                "token_endpoint_auth_method": [method], **more,
            })
        own = JWK.generate(kty="RSA", size=2048, kid="signing", alg="RS256", use="sig")
        self.call("POST", "/mod/plugin/", {"module": "oidc", "name": "oidc", "display_name": "oidc", "parameters": {
            "iss": BASE, "jwks-private": json.dumps({"keys": [own.export(as_dict=True)]}), "subject-type": "public",
            "access-token-duration": 3600, "refresh-token-duration": 1209600, "code-duration": 600,
            # RFC 9700 4.14.2, not the default.
            "refresh-token-rolling": False, "refresh-token-one-use": "always",
            "auth-type-code-enabled": True, "auth-type-refresh-enabled": True, "auth-type-device-enabled": True,
            "device-authorization-expiration": 600, "device-authorization-interval": 5,
            "pkce-allowed": True, "allowed-scope": ["openid", "mail"], "email-claim": "mandatory",
            "name-claim": "no", "scope-claim": "no",
            "introspection-revocation-allowed": True, "introspection-revocation-allow-target-client": True,
            "request-parameter-allow": True, "client-jwks-parameter": "jwks",
        }})


def configuration():
    modules = {"user": "user", "user_middleware": "user_middleware", "client": "client", "plugin": "plugin",
               "user_auth_scheme": "scheme"}
    paths = "".join(f'{name}_module_path="{LIBRARY}/{folder}"\n' for name, folder in modules.items())
    return f"""port={PORT}
bind_address="127.0.0.1"
external_url="{BASE}"
login_url="login.html"
api_prefix="api"
static_files_path="{FOLDER}"
log_mode="console"
log_level="WARNING"
cookie_domain="localhost"
cookie_secure=1
session_key="GLEWLWYD2_SESSION_ID"
session_expiration=86400
login_api_enabled=true
admin_scope="g_admin"
profile_scope="g_profile"
hash_algorithm="SHA512"
database = {{ type="sqlite3" path="{DATABASE}" }};
{paths}"""


def main():
    is_new = not os.path.exists(DATABASE)
    if is_new:
        # It insists on the folder of each kind of module, and the package has none of this one.
        os.makedirs(f"{LIBRARY}/user_middleware", exist_ok=True)
        with gzip.open(f"{ROOT}/usr/share/doc/glewlwyd/database/init.sqlite3.sql.gz", "rt") as tables:
            sqlite3.connect(DATABASE).executescript(tables.read())
        with open(CONFIGURATION, "w") as file:
            file.write(configuration())
    server = subprocess.Popen([f"{ROOT}/usr/bin/glewlwyd", f"--config-file={CONFIGURATION}"])
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    if is_new:
        administrator = Administrator()
        administrator.log_in(server)
        administrator.set_up()
    sys.exit(server.wait())


if __name__ == "__main__":
    main()
