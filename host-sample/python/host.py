"""A host in Python: consent, fetch, settle, send.

    python3 host.py WALK.json      {"library","plugin","incoming","outgoing","to"}

Says one line per step and reads the redirect of the consent from standard input.
"""

import json
import sys

import oauth_mail


def main(path):
    with open(path) as file:
        walk = json.load(file)
    library = oauth_mail.Library(walk["library"])
    with library.plugin(walk["plugin"]) as plugin:
        try:
            plugin.open({"incoming": {}})
        except oauth_mail.SettingsError as error:
            print("refused", error.faults[0]["pointer"], flush=True)
        with plugin.open({"incoming": walk["incoming"]}) as inbox, plugin.open({"outgoing": walk["outgoing"]}) as outbox:
            try:
                inbox.fetch_batch()
            except oauth_mail.ConsentRequired:
                print("consent", inbox.authenticate("start")["authorize_url"], flush=True)
                answer = inbox.authenticate("complete", redirect=sys.stdin.readline().strip())
                print(answer["state"], flush=True)
            with inbox.fetch_batch(max_messages=100) as batch:
                for message in batch:
                    facts = message.facts
                    sizes = [len(message.attachment(file["part_index"])) for file in facts["attachments"]]
                    print("message", len(message.raw), facts["subject"], *sizes, flush=True)
                done = inbox.settle_batch({message.key: "imported" for message in batch})
            print("settled", len(done), flush=True)
            sent = outbox.send_message(to=[walk["to"]], subject="From Python", text="It works.\n")
            print(sent["outcome"], flush=True)
    print("done", flush=True)


main(sys.argv[1])
