"""The scenario through the C interface, by the Python host's wrapper: one JSON document per step on standard output.

    python3 c_face.py WALK.json      {"library","plugin","incoming","outgoing","user","scenario","wrapper"}
"""

import json
import sys


def main(path):
    walk = json.load(open(path))
    sys.path.insert(0, walk["wrapper"])
    import oauth_mail

    library = oauth_mail.Library(walk["library"])
    plugin = library.plugin(walk["plugin"])
    handles, keys = {}, []

    def step(step):
        call, on = step["call"], handles.get(step["on"])
        request = json.loads(json.dumps(step.get("request", {})).replace("USER", walk["user"]))
        if call == "describe":
            return library.describe()
        if call == "open":
            settings = step["settings"]
            handles[step["on"]] = plugin.open({settings: walk[settings]} if isinstance(settings, str) else settings)
            return "open"
        if call == "authenticate":
            return on.authenticate(request.pop("action"), **request)
        if call == "consent":
            print(json.dumps({"consent": on.authenticate("start")["authorize_url"]}), flush=True)
            return on.authenticate("complete", redirect=sys.stdin.readline().strip())
        if call == "fetch_batch":
            with on.fetch_batch(**request) as batch:
                keys.extend(message.key for message in batch if message.key not in keys)
                return {"header": batch.header, "messages": [
                    {"key": message.key, "raw": str(message.raw, "utf-8"), "facts": message.facts} for message in batch]}
        if call == "settle_batch":
            results = dict(zip(keys, step["results"])) if "results" in step else request["results"]
            return {"done": on.settle_batch(results)}
        if call == "send_message":
            return on.send_message(raw=step.get("raw", "").encode(), **request)
        if call == "close":
            library._api.close(on._handle, None)
            return "closed"

    for each in json.load(open(walk["scenario"])):
        try:
            answer = {"ok": step(each)}
        except oauth_mail.OauthMailError as error:
            answer = {"error": error.document}
        print(json.dumps(answer), flush=True)


main(sys.argv[1])
