"""msgraph-sdk against the sandbox: python graph_check.py FACTS, a JSON file. A step that fails ends it.

FACTS: graph_url, ca_file, admin_url, tokens {alice, app}, alice, bob, support.
"""

import asyncio
import base64
import json
import ssl
import sys
from datetime import datetime, timedelta, timezone

import httpx
from azure.core.credentials import AccessToken
from kiota_abstractions.api_error import APIError
from kiota_abstractions.base_request_configuration import RequestConfiguration
from kiota_authentication_azure.azure_identity_authentication_provider import AzureIdentityAuthenticationProvider
from msgraph import GraphRequestAdapter, GraphServiceClient
from msgraph.generated.models.attachment_item import AttachmentItem
from msgraph.generated.models.attachment_type import AttachmentType
from msgraph.generated.models.body_type import BodyType
from msgraph.generated.models.email_address import EmailAddress
from msgraph.generated.models.exchange_id_format import ExchangeIdFormat
from msgraph.generated.models.file_attachment import FileAttachment
from msgraph.generated.models.importance import Importance
from msgraph.generated.models.item_body import ItemBody
from msgraph.generated.models.mail_folder import MailFolder
from msgraph.generated.models.message import Message
from msgraph.generated.models.o_data_errors.o_data_error import ODataError
from msgraph.generated.models.recipient import Recipient
from msgraph.generated.users.item.messages.item.attachments.create_upload_session.create_upload_session_post_request_body import (  # noqa: E501
    CreateUploadSessionPostRequestBody,
)
from msgraph.generated.users.item.messages.item.move.move_post_request_body import MovePostRequestBody
from msgraph.generated.users.item.send_mail.send_mail_post_request_body import SendMailPostRequestBody
from msgraph.generated.users.item.translate_exchange_ids.translate_exchange_ids_post_request_body import (
    TranslateExchangeIdsPostRequestBody,
)
from msgraph.graph_request_adapter import options
from msgraph_core import GraphClientFactory
from msgraph_core.requests.batch_request_content import BatchRequestContent
from msgraph_core.requests.batch_request_item import BatchRequestItem

with open(sys.argv[1], encoding="utf-8") as file:
    FACTS = json.load(file)
TLS = ssl.create_default_context(cafile=FACTS["ca_file"])
MIME = (
    "From: Ann Outside <ann@outside.test>\r\nTo: {to}\r\nSubject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?= {number} & <more>\r\n"
    "Message-ID: <{number}@outside.test>\r\nDate: Mon, 02 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n\r\nBody of {number}\r\n"
)


class Token:
    """A credential as azure-identity has them."""

    def __init__(self, token):
        self.token = token

    def get_token(self, *scopes, **more):
        return AccessToken(self.token, 2**31)


def client(token):
    provider = AzureIdentityAuthenticationProvider(
        Token(token), scopes=["https://graph.microsoft.com/.default"], allowed_hosts=["localhost"]
    )
    http = GraphClientFactory.create_with_default_middleware(
        client=httpx.AsyncClient(verify=TLS, timeout=30), options=options
    )
    adapter = GraphRequestAdapter(provider, http)
    adapter.base_url = FACTS["graph_url"] + "/v1.0"
    return GraphServiceClient(request_adapter=adapter)


def admin(path, body):
    answer = httpx.post(FACTS["admin_url"] + path, json=body, verify=TLS)
    assert answer.status_code == 204, answer.text


def deliver(to, number, more=""):
    admin("/deliver", {"to": to, "raw": more + MIME.format(to=to, number=number)})


def ask(*prefer, **parameters):
    """A request configuration: preferences and query parameters."""
    configuration = RequestConfiguration()
    for one in prefer:
        configuration.headers.add("Prefer", one)
    configuration.query_parameters = type("Parameters", (), parameters)() if parameters else None
    return configuration


def query(builder, *prefer, **parameters):
    """The same with the builder's own parameters, whose names are mapped to OData's."""
    configuration = ask(*prefer)
    kind = next(kind for name, kind in vars(type(builder)).items() if name.endswith("GetQueryParameters"))
    configuration.query_parameters = kind(**parameters)
    return configuration


IMMUTABLE = 'IdType="ImmutableId"'


async def fails(status, code, work):
    try:
        result = await work
    except APIError as error:
        found = error.error.code if isinstance(error, ODataError) else None
        assert (error.response_status_code, found) == (status, code), (error.response_status_code, error)
        return error
    raise AssertionError(f"{status} {code} expected, got {result!r}")


def recipient(address, name=None):
    return Recipient(email_address=EmailAddress(address=address, name=name))


async def pages(builder, *prefer, **parameters):
    """All items, and how many pages there were."""
    page = await builder.get(query(builder, *prefer, **parameters))
    found, count = list(page.value), 1
    while page.odata_next_link:
        page = await builder.with_url(page.odata_next_link).get(ask(*prefer))
        found += page.value
        count += 1
    return found, count, getattr(page, "odata_delta_link", None)


async def read_and_change(user, address):
    """Folders, lists, MIME, delta, mark read, move, copy, delete: in one mailbox."""
    names = {folder.display_name for folder in (await user.mail_folders.get()).value}
    assert names == {"Inbox", "Drafts", "Sent Items", "Deleted Items", "Archive", "Junk Email"}, names
    inbox = user.mail_folders.by_mail_folder_id("inbox")
    for number in range(7):
        deliver(address, number)
    about = await inbox.get()
    assert (about.total_item_count, about.unread_item_count, about.child_folder_count) == (7, 7, 0), about
    assert (await user.mail_folders.by_mail_folder_id(about.id).get()).display_name == "Inbox"
    assert (await user.mail_folders.by_mail_folder_id(about.parent_folder_id).get()).child_folder_count == 6

    found, count, _ = await pages(inbox.messages, top=3, select=["subject"], orderby=["receivedDateTime desc"])
    assert count == 3 and len({one.id for one in found}) == 7, (count, found)
    assert found[0].subject == "Grüße 6 & <more>" and found[0].is_read is None, found[0]
    page = await inbox.messages.get(query(inbox.messages, count=True, filter="isRead eq false"))
    assert page.odata_count == 7, page
    assert await inbox.messages.count.get() == 7
    page = await inbox.messages.get(query(inbox.messages, filter="internetMessageId eq '<3@outside.test>'"))
    assert len(page.value) == 1, page.value
    one = page.value[0]
    assert one.from_.email_address.address == "ann@outside.test" and one.sender.email_address.name == "Ann Outside"
    assert one.to_recipients[0].email_address.address == address and not one.bcc_recipients, one
    assert one.body.content_type == BodyType.Text and one.body.content.strip() == "Body of 3", one.body
    assert one.body_preview == "Body of 3" and one.importance == Importance.Normal, one
    assert one.sent_date_time == datetime(2026, 11, 2, 10, tzinfo=timezone.utc), one.sent_date_time
    assert one.parent_folder_id == about.id and not one.is_draft and not one.has_attachments, one
    assert not one.additional_data or set(one.additional_data) <= {"@odata.etag"}, one.additional_data
    since = (datetime.now(timezone.utc) - timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    page = await inbox.messages.get(query(inbox.messages, filter=f"receivedDateTime ge {since}", top=50))
    assert len(page.value) == 7, page.value
    page = await inbox.messages.get(query(inbox.messages, filter="receivedDateTime le 2026-01-01T00:00:00Z"))
    assert not page.value
    filtered = query(inbox.messages, filter="isRead eq false", orderby=["receivedDateTime desc"])
    await fails(400, "InefficientFilter", inbox.messages.get(filtered))
    headers = await user.messages.by_message_id(one.id).get(
        query(user.messages.by_message_id(one.id), select=["internetMessageHeaders"])
    )
    assert any(header.name == "Message-ID" for header in headers.internet_message_headers), headers

    raw = await user.messages.by_message_id(one.id).content.get()
    assert MIME.format(to=address, number=3).encode() in raw, raw

    delta = inbox.messages.delta
    size = "odata.maxpagesize=3"
    found, count, link = await pages(delta, IMMUTABLE, size, select=["subject", "isRead"])
    assert count == 3 and len({one.id for one in found}) == 7, (count, found)
    assert link and not (await pages(delta.with_url(link), IMMUTABLE))[0]
    same = await user.messages.by_message_id(found[3].id).get(ask(IMMUTABLE))
    assert same.subject == "Grüße 3 & <more>" and same.id == found[3].id, same
    assert (await user.messages.by_message_id(same.id).get()).id == one.id != same.id
    await fails(400, "ErrorInvalidIdMalformed", user.messages.by_message_id(one.id.lower()).get())

    patched = await user.messages.by_message_id(same.id).patch(Message(is_read=True))
    assert patched.is_read, patched
    page = await delta.with_url(link).get(ask(IMMUTABLE, size))
    assert [(one.id, one.is_read) for one in page.value] == [(same.id, True)], page.value
    link = page.odata_delta_link

    made = await user.mail_folders.post(MailFolder(display_name="Processed"))
    child = await user.mail_folders.by_mail_folder_id(made.id).child_folders.post(MailFolder(display_name="Done"))
    await fails(409, "ErrorFolderExists", user.mail_folders.post(MailFolder(display_name="Processed")))
    named = query(user.mail_folders, filter="displayName eq 'Processed'", select=["id"])
    assert [folder.id for folder in (await user.mail_folders.get(named)).value] == [made.id]
    assert child.parent_folder_id == made.id
    moved = await user.messages.by_message_id(same.id).move.post(
        MovePostRequestBody(destination_id=child.id), ask(IMMUTABLE)
    )
    assert moved.id == same.id and moved.parent_folder_id == child.id and moved.is_read, moved
    await fails(404, "ErrorItemNotFound", user.messages.by_message_id(one.id).get())
    now = (await user.messages.by_message_id(same.id).get()).id
    assert now not in (one.id, same.id)
    back = await user.messages.by_message_id(now).move.post(MovePostRequestBody(destination_id="archive"))
    assert back.id not in (now, one.id), back
    page = await delta.with_url(link).get(ask(IMMUTABLE, size))
    assert [one.id for one in page.value] == [same.id], page.value
    assert page.value[0].additional_data["@removed"]["reason"] == "changed", page.value[0].additional_data
    link = page.odata_delta_link
    gone = found[0].id
    await user.messages.by_message_id(gone).delete()
    await fails(404, "ErrorItemNotFound", user.messages.by_message_id(gone).get())
    deliver(address, 8)
    page = await delta.with_url(link).get(ask(IMMUTABLE, size))
    assert page.value[0].id == gone and page.value[0].additional_data["@removed"]["reason"] == "deleted", page.value
    assert page.value[1].subject == "Grüße 8 & <more>", page.value
    again = await delta.with_url(link).get(ask(IMMUTABLE, size))
    assert [one.id for one in again.value] == [one.id for one in page.value], "a link can be used again"

    admin("/expire_delta_links", {})
    error = await fails(410, "syncStateNotFound", delta.with_url(link).get(ask(IMMUTABLE)))
    fresh = error.response_headers["location"]
    found, _, link = await pages(delta.with_url(fresh), IMMUTABLE, size)
    assert len(found) == 6 and link, found
    rubbish = link.split("=")[0] + "=rubbish"
    await fails(410, "syncStateNotFound", delta.with_url(rubbish).get(ask(IMMUTABLE)))

    deliver(address, 9, more="X-Sandbox-Poison: yes\r\n")
    page = await inbox.messages.get(query(inbox.messages, filter="internetMessageId eq '<9@outside.test>'"))
    poison = user.messages.by_message_id(page.value[0].id)
    await fails(500, "ErrorContentConversionFailed", poison.content.get())
    await poison.delete()


async def send(user, address, other, other_address):
    """JSON, MIME, draft, attachments small and large."""
    inbox = other.mail_folders.by_mail_folder_id("inbox").messages

    async def received(message_id):
        found = await inbox.get(query(inbox, filter=f"internetMessageId eq '{message_id}'", expand=["attachments"]))
        assert len(found.value) == 1, found.value
        return found.value[0]

    composed = Message(
        subject="Gruß, composed",
        internet_message_id="<composed@here.test>",
        body=ItemBody(content_type=BodyType.Html, content="<p>Hello ä</p>"),
        to_recipients=[recipient(other_address, "A receiver, with comma")],
        bcc_recipients=[recipient(other_address)],
        importance=Importance.High,
        attachments=[
            FileAttachment(
                odata_type="#microsoft.graph.fileAttachment",
                name="small ü.txt",
                content_type="text/plain",
                content_bytes=b"small\r\n",
            )
        ],
    )
    await user.send_mail.post(SendMailPostRequestBody(message=composed, save_to_sent_items=True))
    got = await received("<composed@here.test>")
    assert got.subject == "Gruß, composed" and got.body.content_type == BodyType.Html, got
    assert "<p>Hello ä</p>" in got.body.content and not got.bcc_recipients and not got.is_read, got
    assert got.to_recipients[0].email_address.name == "A receiver, with comma", got
    assert got.from_.email_address.address == address and got.importance == Importance.High, got
    assert got.has_attachments and got.attachments[0].name == "small ü.txt", got.attachments
    assert got.attachments[0].content_bytes == b"small\r\n", got.attachments
    assert b"\nBcc:" not in await other.messages.by_message_id(got.id).content.get()

    raw = MIME.format(to=other_address, number="mime").replace("ann@outside.test", address)
    request = user.send_mail.to_post_request_information(SendMailPostRequestBody())
    request.headers.remove("Content-Type")
    request.headers.add("Content-Type", "text/plain")
    request.content = base64.b64encode(raw.encode())
    await user.request_adapter.send_no_response_content_async(request, {"XXX": ODataError})
    assert (await received("<mime@outside.test>")).subject == "Grüße mime & <more>"
    request.content = b"!!!"
    await fails(
        400,
        "ErrorMimeContentInvalidBase64String",
        user.request_adapter.send_no_response_content_async(request, {"XXX": ODataError}),
    )

    draft = await user.messages.post(
        Message(subject="later", body=ItemBody(content_type=BodyType.Text, content="first")), ask(IMMUTABLE)
    )
    assert draft.is_draft and draft.id, draft
    await user.messages.by_message_id(draft.id).patch(
        Message(subject="sent later", to_recipients=[recipient(other_address)])
    )
    builder = user.messages.by_message_id(draft.id).attachments
    await builder.post(
        FileAttachment(odata_type="#microsoft.graph.fileAttachment", name="one.bin", content_bytes=b"\0\1\2")
    )
    large = bytes(number % 251 for number in range(7_000_000))
    session = await builder.create_upload_session.post(
        CreateUploadSessionPostRequestBody(
            attachment_item=AttachmentItem(
                attachment_type=AttachmentType.File, name="large.bin", size=len(large)
            )
        )
    )
    assert session.next_expected_ranges == ["0-"] and session.expiration_date_time, session
    # By hand, without a token: LargeFileUploadTask (msgraph-core 1.5.2) fails on the ranges that it writes itself.
    step = 2_500_000
    for start in range(0, len(large), step):
        part = large[start : start + step]
        last = start + len(part) - 1
        answer = httpx.put(
            session.upload_url,
            content=part,
            headers={"Content-Range": f"bytes {start}-{last}/{len(large)}", "Content-Type": "application/octet-stream"},
            verify=TLS,
        )
        assert answer.status_code == (201 if last + 1 == len(large) else 200), answer.text
    assert "/attachments(" in answer.headers["location"].lower(), answer.headers
    names = [one.name for one in (await builder.get()).value]
    assert names == ["one.bin", "large.bin"], names
    await user.messages.by_message_id(draft.id).send.post()
    sent = await user.messages.by_message_id(draft.id).get(ask(IMMUTABLE))
    folder = await user.mail_folders.by_mail_folder_id("sentitems").get()
    assert sent.id == draft.id and sent.parent_folder_id == folder.id and not sent.is_draft, sent
    got = await received(sent.internet_message_id)
    assert got.subject == "sent later" and [one.name for one in got.attachments] == names, got
    assert got.attachments[1].content_bytes == large
    await fails(400, "ErrorInvalidOperation", user.messages.by_message_id(draft.id).send.post())

    stranger = Message(subject="x", from_=recipient("else@example.test"), to_recipients=[recipient(other_address)])
    await fails(
        403, "ErrorSendAsDenied", user.send_mail.post(SendMailPostRequestBody(message=stranger))
    )
    nobody = SendMailPostRequestBody(message=Message(subject="x"))
    await fails(400, "ErrorInvalidRecipients", user.send_mail.post(nobody))


async def batch_and_ids(graph, user, address):
    inbox = user.mail_folders.by_mail_folder_id("inbox").messages
    await user.mail_folders.by_mail_folder_id("inbox").get()
    deliver(address, 20)
    deliver(address, 21)
    wanted = [
        (await inbox.get(query(inbox, filter=f"internetMessageId eq '<{number}@outside.test>'"))).value[0].id
        for number in (20, 21)
    ]
    items = []
    for number, id in enumerate(wanted):
        request = user.messages.by_message_id(id).to_patch_request_information(Message(is_read=True))
        items.append(BatchRequestItem(request, id=f"read-{number}"))
    items.append(BatchRequestItem(user.messages.by_message_id("M00000000000").to_get_request_information(), id="none"))
    answer = await graph.batch.post(BatchRequestContent({item.id: item for item in items}))
    statuses = {id: answer.get_response_status_code(id) for id in ("read-0", "read-1", "none")}
    assert statuses == {"read-0": 200, "read-1": 200, "none": 404}, statuses
    assert answer.get_response_by_id("read-0").body["isRead"] is True
    assert (await user.messages.by_message_id(wanted[1]).get()).is_read

    async def translate(ids, source, target):
        body = TranslateExchangeIdsPostRequestBody(input_ids=ids, source_id_type=source, target_id_type=target)
        return [one.target_id for one in (await user.translate_exchange_ids.post(body)).value]

    formats = ExchangeIdFormat
    immutable = await translate(wanted, formats.RestId, formats.RestImmutableEntryId)
    same = await user.messages.by_message_id(wanted[0]).get(ask(IMMUTABLE))
    assert immutable[0] == same.id, immutable
    ews = await translate(immutable, formats.RestImmutableEntryId, formats.EwsId)
    assert await translate(ews, formats.EwsId, formats.RestId) == wanted
    assert await translate(["rubbish"], formats.EwsId, formats.RestId) == [None]


async def main():
    alice, bob, support = FACTS["alice"], FACTS["bob"], FACTS["support"]
    delegated, app = client(FACTS["tokens"]["alice"]), client(FACTS["tokens"]["app"])
    me = delegated.me
    profile = await me.get()
    assert profile.mail == alice and profile.user_principal_name == alice and profile.display_name == "Alice", profile
    assert (await app.users.by_user_id(profile.id).get()).mail == alice
    await fails(400, "BadRequest", app.me.messages.get())
    await fails(404, "ErrorInvalidUser", app.users.by_user_id("nobody@example.test").messages.get())
    await fails(403, "ErrorAccessDenied", delegated.users.by_user_id(bob).messages.get())
    await fails(401, "InvalidAuthenticationToken", client("rubbish").me.messages.get())

    for user, address in (
        (me, alice),
        (delegated.users.by_user_id(support), support),
        (app.users.by_user_id(bob), bob),
    ):
        await read_and_change(user, address)
    receiver = app.users.by_user_id(bob)
    await send(me, alice, receiver, bob)
    await batch_and_ids(delegated, me, alice)
    await batch_and_ids(app, receiver, bob)
    shared = Message(
        subject="as support",
        internet_message_id="<as-support@here.test>",
        from_=recipient(support),
        to_recipients=[recipient(bob)],
    )
    await me.send_mail.post(SendMailPostRequestBody(message=shared))
    messages = receiver.messages
    found = await messages.get(query(messages, filter="internetMessageId eq '<as-support@here.test>'"))
    assert found.value[0].from_.email_address.address == support, found.value
    print("msgraph-sdk is content")


asyncio.run(main())
