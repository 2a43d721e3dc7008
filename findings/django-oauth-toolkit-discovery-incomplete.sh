#!/bin/sh
# What: django-oauth-toolkit serves token revocation and device authorization and names neither in its OpenID discovery
#       document. A client that trusts discovery believes that the server cannot revoke and has no device flow.
# With: django-oauth-toolkit 3.4.1, Django 5.2.8, from PyPI.
# Seen: /o/.well-known/openid-configuration has no revocation_endpoint and no device_authorization_endpoint;
#       POST /o/revoke_token/ and POST /o/device-authorization/ exist (they answer, with 400 or 401 to an empty request).
# So:   let a person type these two addresses, and do not conclude from discovery that a server cannot revoke.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check django==5.2.8 django-oauth-toolkit==3.4.1
cat > "$work/probe.py" <<'PY'
import sys
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
import django
from django.conf import settings

key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
settings.configure(
    SECRET_KEY="probe", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["testserver"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
    OAUTH2_PROVIDER={"OIDC_ENABLED": True, "OIDC_RSA_PRIVATE_KEY": key, "SCOPES": {"openid": "sign in"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()
from django.core.management import call_command
from django.test import Client
from django.urls import include, path
import oauth2_provider

urlpatterns = [path("o/", include("oauth2_provider.urls", namespace="oauth2_provider"))]
call_command("migrate", verbosity=0)
client = Client()
print("django-oauth-toolkit", oauth2_provider.__version__)
document = client.get("/o/.well-known/openid-configuration").json()
named = [name for name in ("token_endpoint", "revocation_endpoint", "device_authorization_endpoint") if name in document]
served = {url: client.post(url).status_code for url in ("/o/token/", "/o/revoke_token/", "/o/device-authorization/")}
print("named by discovery:", ", ".join(named))
print("answers to an empty POST:", served)
if named != ["token_endpoint"] or any(status in (404, 405) for status in served.values()):
    sys.exit("the behaviour has changed")
PY
"$work/venv/bin/python" "$work/probe.py"
echo "as seen: revocation and device authorization are served and not named"
