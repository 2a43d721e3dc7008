"""exchangelib against the sandbox: python exchangelib_check.py FACTS, a JSON file. A step that fails ends it.

FACTS: ews_url, ca_file, admin_url, version, tokens {alice, app}, alice, bob, support.
"""

import json
import os
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    FACTS = json.load(file)
os.environ["REQUESTS_CA_BUNDLE"] = FACTS["ca_file"]

import requests  # noqa: E402
from exchangelib import (  # noqa: E402
    DELEGATE,
    IMPERSONATION,
    OAUTH2,
    Account,
    Configuration,
    FailFast,
    Folder,
    HTMLBody,
    Identity,
    Mailbox,
    Message,
    OAuth2AuthorizationCodeCredentials,
)
from exchangelib.errors import (  # noqa: E402
    ErrorAccessDenied,
    ErrorContentConversionFailed,
    ErrorImpersonateUserDenied,
    ErrorInvalidSyncStateData,
    ErrorItemNotFound,
    ErrorNonExistentMailbox,
    ErrorSendAsDenied,
    ErrorServerBusy,
)
from exchangelib.protocol import Protocol  # noqa: E402
from exchangelib.services import GetItem  # noqa: E402

MIME = (
    "From: Ann Outside <ann@outside.test>\r\nTo: {to}\r\nSubject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?= {number} & <more>\r\n"
    "Message-ID: <{number}@outside.test>\r\nDate: Mon, 02 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n\r\nBody of {number}\r\n"
)


def account(address, token, access_type=DELEGATE):
    Protocol.clear_cache()
    credentials = OAuth2AuthorizationCodeCredentials(
        access_token={"access_token": token, "token_type": "Bearer", "expires_in": 3600},
        identity=Identity(primary_smtp_address=address) if access_type == IMPERSONATION else None,
    )
    configuration = Configuration(
        service_endpoint=FACTS["ews_url"], credentials=credentials, auth_type=OAUTH2, retry_policy=FailFast()
    )
    return Account(
        primary_smtp_address=address, config=configuration, autodiscover=False, access_type=access_type
    )


def raises(kind, work):
    try:
        result = work()
    except kind:
        return
    if isinstance(result, kind):
        return
    raise AssertionError(f"{kind.__name__} expected, got {result!r}")


def put(folder, number, **more):
    raw = MIME.format(to=folder.account.primary_smtp_address, number=number)
    for name, value in more.items():
        raw = f"{name.replace('_', '-')}: {value}\r\n{raw}"
    return Message(account=folder.account, folder=folder, mime_content=raw.encode(), is_read=False).save()


def read_and_change(owner):
    """Sync, search, MIME, mark read, move, copy, delete: in the mailbox of this account."""
    inbox = owner.inbox
    assert inbox.total_count == 0, inbox
    for number in range(5):
        put(inbox, number)
    first = list(inbox.sync_items(only_fields=["subject", "is_read"], max_changes_returned=2))
    assert [kind for kind, _ in first] == ["create"] * 5, first
    assert [item.subject for _, item in first][0] == "Grüße 4 & <more>", first
    assert list(inbox.sync_items()) == []

    assert inbox.filter(is_read=False).count() == 5
    found = list(inbox.filter(message_id="<3@outside.test>"))
    assert len(found) == 1, found
    assert [item.subject[6] for item in inbox.filter(subject__contains="Grüße").order_by("datetime_received")[:2]]
    assert inbox.filter(subject__startswith="nothing").count() == 0
    assert inbox.filter(is_read=False, message_id__exists=True).exclude(message_id="<1@outside.test>").count() == 4
    item = inbox.get(message_id="<3@outside.test>")
    assert item.mime_content == MIME.format(to=owner.primary_smtp_address, number=3).encode(), item.mime_content
    assert item.sender.email_address == "ann@outside.test" and item.author.name == "Ann Outside", item
    assert item.to_recipients[0].email_address == owner.primary_smtp_address, item
    assert item.size == len(item.mime_content) and not item.has_attachments and not item.is_read, item
    assert item.text_body.strip() == "Body of 3", item.text_body
    assert item.datetime_sent.isoformat() == "2026-11-02T10:00:00+00:00", item.datetime_sent

    item.is_read = True
    item.save(update_fields=["is_read"])
    changes = list(inbox.sync_items())
    assert [(kind, change[1]) for kind, change in changes] == [("read_flag_change", True)], changes
    assert inbox.filter(is_read=False).count() == 4

    top = owner.msg_folder_root
    kinds = [kind for kind, _ in top.sync_hierarchy()]
    assert kinds == ["create"] * 6, kinds
    Folder(parent=top, name="Processed").save()
    changes = list(top.sync_hierarchy())
    assert [(kind, folder.name) for kind, folder in changes] == [("create", "Processed")], changes
    owner.root.clear_cache()
    processed = owner.root / "Top of Information Store" / "Processed"
    before = item.id
    item.move(processed)
    assert item.id != before
    raises(ErrorItemNotFound, lambda: list(GetItem(account=owner).call([(before, None)], [], "IdOnly"))[0])
    assert processed.get(message_id="<3@outside.test>").id == item.id
    copy_id, _ = item.copy(inbox)
    changes = list(inbox.sync_items())
    assert [kind for kind, _ in changes] == ["delete", "create"], changes
    assert changes[0][1].id == before and changes[1][1].id == copy_id, changes

    inbox.get(message_id="<3@outside.test>").delete()
    assert owner.bulk_delete(inbox.filter(message_id="<2@outside.test>"), delete_type="SoftDelete") == [True]
    inbox.get(message_id="<1@outside.test>").move_to_trash()
    assert owner.trash.filter(message_id="<1@outside.test>").count() == 1
    assert sorted(kind for kind, _ in inbox.sync_items()) == ["delete"] * 3
    inbox.item_sync_state = "H4sIAAAA"
    raises(ErrorInvalidSyncStateData, lambda: list(inbox.sync_items()))
    assert processed.folder_class == "IPF.Note" and processed.parent.name == "Top of Information Store"


def send(owner, receiver):
    """As composed by exchangelib, as MIME, and a draft that is sent later."""
    to = [Mailbox(email_address=receiver.primary_smtp_address, name="A receiver, with comma")]
    hidden = [Mailbox(email_address=receiver.primary_smtp_address)]
    composed = Message(
        account=owner, folder=owner.sent, subject="Gruß, composed", body=HTMLBody("<p>Hello ä</p>"), to_recipients=to,
        bcc_recipients=hidden,
    )
    composed.send_and_save()
    got = receiver.inbox.get(subject="Gruß, composed")
    assert "<p>Hello ä</p>" in got.body and not got.is_read and not got.bcc_recipients, got
    assert b"\nBcc:" not in got.mime_content, got.mime_content
    assert got.to_recipients[0].name == "A receiver, with comma", got
    assert got.author.email_address == owner.primary_smtp_address, got
    kept = owner.sent.get(subject="Gruß, composed")
    assert kept.bcc_recipients and kept.is_read and kept.message_id == got.message_id, kept

    raw = f"From: {owner.primary_smtp_address}\r\nTo: {receiver.primary_smtp_address}\r\nSubject: as MIME\r\n\r\nx\r\n"
    Message(account=owner, mime_content=raw.encode()).send(save_copy=False)
    assert receiver.inbox.filter(subject="as MIME").count() == 1
    assert owner.sent.filter(subject="as MIME").count() == 0

    draft = Message(account=owner, folder=owner.drafts, subject="later", body="x", to_recipients=to).save()
    assert owner.drafts.get(subject="later").is_draft
    draft.send()
    assert receiver.inbox.filter(subject="later").count() == 1
    assert owner.sent.filter(subject="later").count() == 1 and owner.drafts.filter(subject="later").count() == 0

    forged = raw.replace(owner.primary_smtp_address, receiver.primary_smtp_address, 1).encode()
    raises(ErrorSendAsDenied, Message(account=owner, mime_content=forged).send)


def main():
    alice = account(FACTS["alice"], FACTS["tokens"]["alice"])
    assert alice.version.api_version == FACTS["version"], alice.version
    if FACTS["version"] != "Exchange2016":
        assert alice.inbox.total_count == 0
        return
    read_and_change(alice)
    bob = account(FACTS["bob"], FACTS["tokens"]["app"], IMPERSONATION)
    read_and_change(bob)
    send(alice, bob)

    support = account(FACTS["support"], FACTS["tokens"]["alice"])
    put(support.inbox, 7)
    assert support.inbox.filter(is_read=False).count() == 1
    raw = f"From: {FACTS['support']}\r\nTo: {FACTS['bob']}\r\nSubject: from support\r\n\r\nx\r\n"
    Message(account=support, folder=support.sent, mime_content=raw.encode()).send_and_save()
    assert bob.inbox.filter(subject="from support").count() == 1
    assert support.sent.filter(subject="from support").count() == 1

    raises(ErrorAccessDenied, lambda: account(FACTS["bob"], FACTS["tokens"]["alice"]).inbox.total_count)
    nobody = "nobody@example.test"
    raises(ErrorNonExistentMailbox, lambda: account(nobody, FACTS["tokens"]["alice"]).inbox.total_count)
    raises(ErrorNonExistentMailbox, lambda: account(nobody, FACTS["tokens"]["app"], IMPERSONATION).inbox.total_count)
    raises(
        ErrorImpersonateUserDenied,
        lambda: account(FACTS["bob"], FACTS["tokens"]["alice"], IMPERSONATION).inbox.total_count,
    )

    poison = put(alice.inbox, 8, X_Sandbox_Poison="yes")
    raises(
        ErrorContentConversionFailed,
        lambda: list(alice.fetch([(poison.id, poison.changekey)], only_fields=["mime_content"])),
    )
    (shown,) = alice.fetch([(poison.id, poison.changekey)], only_fields=["subject"])
    assert shown.subject.startswith("Grüße 8"), shown

    order = {"face": "ews", "match": "GetItem", "response_code": "ErrorServerBusy"}
    requests.post(FACTS["admin_url"] + "/faults", json=order, timeout=30).raise_for_status()
    raises(ErrorServerBusy, lambda: list(GetItem(account=alice).call([(poison.id, None)], [], "IdOnly"))[0])


main()
print("exchangelib is content")
