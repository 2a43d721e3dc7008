"""django-oauth-toolkit on a port of loopback, as a project of one file: PORT ISSUER_BASE FOLDER.

People: alice@example.test and bob@example.test, password "NAME-password". HTTPS is a terminator's before it.
POST /test/withdraw ends what alice has granted, as the person does on an account page.
"""

import os
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.conf import settings

PORT, BASE, FOLDER = int(sys.argv[1]), sys.argv[2], sys.argv[3]
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


def signing_key():
    """The same after a restart."""
    path = os.path.join(FOLDER, "signing.pem")
    if not os.path.exists(path):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with open(path, "wb") as file:
            file.write(pem)
    with open(path) as file:
        return file.read()


settings.configure(
    SECRET_KEY="tests",
    ALLOWED_HOSTS=["localhost"],
    ROOT_URLCONF="__main__",
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.path.join(FOLDER, "db.sqlite3")}},
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django.contrib.sessions",
        "oauth2_provider",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    TEMPLATES=[{
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {"loaders": [
            ("django.template.loaders.locmem.Loader", {
                "registration/login.html": "<form method='post'>{% csrf_token %}{{ form }}</form>",
            }),
            "django.template.loaders.app_directories.Loader",
        ]},
    }],
    LOGIN_URL="/login/",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    OAUTH2_PROVIDER={
        "OIDC_ENABLED": True,
        "OIDC_ISS_ENDPOINT": f"{BASE}/o",
        "OIDC_RSA_PRIVATE_KEY": signing_key(),
        "OAUTH2_VALIDATOR_CLASS": "__main__.Validator",
        "SCOPES": {"openid": "OpenID Connect", "mail": "your mail"},
        "OAUTH_DEVICE_VERIFICATION_URI": f"{BASE}/o/device/",
        "ACCESS_TOKEN_EXPIRE_SECONDS": 3600,
        # RFC 9700 4.14.2, not the default.
        "REFRESH_TOKEN_REUSE_PROTECTION": True,
    },
)
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.contrib.auth.views import LoginView  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import include, path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402
from oauth2_provider.models import Application, RefreshToken  # noqa: E402
from oauth2_provider.oauth2_validators import OAuth2Validator  # noqa: E402


class Validator(OAuth2Validator):
    oidc_claim_scope = None

    def get_additional_claims(self):
        return {"email": lambda request: request.user.email}


@csrf_exempt
def withdraw(_request):
    for token in RefreshToken.objects.filter(user__username="alice", revoked__isnull=True):
        token.revoke()
    return HttpResponse("done")


urlpatterns = [
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
    path("login/", LoginView.as_view()),
    path("test/withdraw", withdraw),
]


def prepare():
    call_command("migrate", verbosity=0)
    if User.objects.exists():
        return
    for name in ["alice", "bob"]:
        User.objects.create_user(name, f"{name}@example.test", f"{name}-password")
    code = Application.GRANT_AUTHORIZATION_CODE
    for client_id, secret, kind, grant in [
        ("desk", "desk-secret+with/odd:characters", Application.CLIENT_CONFIDENTIAL, code),
        ("device", "", Application.CLIENT_PUBLIC, DEVICE),
    ]:
        Application.objects.create(
            client_id=client_id, client_secret=secret, client_type=kind, authorization_grant_type=grant,
            redirect_uris="https://desk.test/callback", algorithm="RS256", name=client_id,
        )


def application(environ, start_response, _wsgi=get_wsgi_application()):
    # wsgiref takes the scheme from its own environment, not from the request's.
    environ["wsgi.url_scheme"] = "https"
    return _wsgi(environ, start_response)


if __name__ == "__main__":
    prepare()
    make_server("127.0.0.1", PORT, application, handler_class=WSGIRequestHandler).serve_forever()
