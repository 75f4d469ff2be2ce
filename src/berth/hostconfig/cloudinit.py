"""cloud-init writes the network's files anew at each boot, and what was edited in them is gone, unless it is told."""

from __future__ import annotations

import re
from collections.abc import Iterable

from berth.hostconfig import Edits, File, Files

_CONFIG = "etc/cloud/cloud.cfg.d"
GLOB = f"{_CONFIG}/*.cfg"
_OFF = f"{_CONFIG}/99-disable-network-config.cfg"
#: In one line or in two, as people write it; YAML that says it in another way is answered by saying it once more.
_SAID = re.compile(r"^network:\s*(\{\s*config:\s*disabled\s*\}|\n\s+config:\s*disabled\b)", re.MULTILINE)


def kept_off(files: Files, edited: Iterable[str]) -> Edits:
    """What to write so that cloud-init leaves the edited files alone: nothing where none is its, or it knows."""
    its = [path for path in edited if path in files and ("cloud-init" in path or "cloud-init" in files[path].text)]
    if not its or any(path.startswith(f"{_CONFIG}/") and _SAID.search(file.text) for path, file in files.items()):
        return {}
    return {_OFF: File("network: {config: disabled}\n")}
