# The TUF project's reference client, used as its documentation does, on a repository of ours.
# Arguments: URL of the repository, trusted root.json, folder of trusted metadata, channel. Prints the version that the channel gets.
import json
import os
import sys

from tuf.ngclient import Updater, UpdaterConfig

url, anchor, folder, channel = sys.argv[1:]
if not os.path.exists(os.path.join(folder, "root.json")):
    with open(anchor, "rb") as f, open(os.path.join(folder, "root.json"), "wb") as g:
        g.write(f.read())
updater = Updater(
    metadata_dir=folder,
    metadata_base_url=url + "/metadata/",
    target_dir=folder,
    target_base_url=url + "/targets/",
    config=UpdaterConfig(prefix_targets_with_hash=True),
)
updater.refresh()


def get(name):
    info = updater.get_targetinfo(name)
    if info is None:
        sys.exit("not signed: " + name)
    with open(updater.download_target(info), "rb") as f:
        return f.read()


release = json.loads(get("plan/%s.json" % channel))["release"]
described = json.loads(get("releases/%s/amd64/release.json" % release))
for payload in [described["payloads"]["full"], *described["payloads"].get("deltas", {}).values()]:
    if len(get(payload["name"])) != payload["size"]:
        sys.exit("payload of another size: " + payload["name"])
print(described["version"])
