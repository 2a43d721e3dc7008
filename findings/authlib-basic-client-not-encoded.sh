#!/bin/sh
# What: Authlib's server form-decodes the id and secret of HTTP Basic (RFC 6749 section 2.3.1), Authlib's own client does
#       not form-encode them. A secret with a percent sign that works by client_secret_post fails by client_secret_basic,
#       and the same client and server come from one package.
# With: Authlib 1.9.10 from PyPI.
# Seen: client secret "s%41t" arrives at the server as "sAt"; encoded as the RFC says it arrives as it is.
# So:   a refused Basic is no proof of a wrong secret: ask once more with client_secret_post.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check authlib==1.9.10
cat > "$work/basic.py" <<'PY'
import base64, sys
from urllib.parse import quote_plus
import authlib
from authlib.oauth2.auth import encode_client_secret_basic
from authlib.oauth2.rfc6749.util import extract_basic_authorization

class Client:
    client_id = "desk"
    client_secret = "s%41t"

print("Authlib", authlib.__version__)
_, headers, _ = encode_client_secret_basic(Client, "POST", "https://as.example.org/token", {}, "")
by_client = extract_basic_authorization(headers)
by_rfc = extract_basic_authorization({"Authorization": "Basic " + base64.b64encode(
    f"{quote_plus(Client.client_id)}:{quote_plus(Client.client_secret)}".encode()).decode()})
print("sent by Authlib's client, read by its server:", by_client[1])
print("sent as RFC 6749 says, read by its server:   ", by_rfc[1])
if by_client != ("desk", "sAt") or by_rfc != ("desk", "s%41t"):
    sys.exit("the behaviour has changed")
PY
"$work/venv/bin/python" "$work/basic.py"
echo "as seen: the client does not encode what the server decodes"
