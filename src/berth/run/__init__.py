"""`berth run`: a command in a fresh sandbox on a network.

Three processes take part:

    berth (the parent)    asks the engine for the network, passes signals and the terminal, reports the exit code
      └─ init             holds the sandbox's namespaces; process 1 in them, so that all in it ends when it does
           └─ CMD         or, with --rootfs, a container that an OCI runtime starts in init's namespaces

The parent's death takes init along (PR_SET_PDEATHSIG), and init's death everything else (its PID namespace):
nothing of a sandbox outlives its `berth run`, not even after SIGKILL.
"""

from berth.run.command import run
from berth.run.request import Mode, RunRequest, network_word

__all__ = ["Mode", "RunRequest", "network_word", "run"]
