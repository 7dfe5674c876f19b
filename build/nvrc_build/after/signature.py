# SPDX-License-Identifier: Apache-2.0
"""Signatures of files by OpenSSH (ssh-keygen -Y, PROTOCOL.sshsig): a key that operators have, and no service at all.

It works offline, with keys in files, agents, FIDO tokens and PKCS#11, and a reader needs nothing but openssh-client.
Who may sign is an allowed_signers file (ssh-keygen(1)), which also says from when to when. Rejected: sigstore, whose
bundles can be verified offline and not made offline; minisign, for a key format that operators do not have yet.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from nvrc_build.ground import run
from nvrc_build.ground.errors import BuildError, WrongCallError

NAMESPACE = "nvrc-image"
_PROGRAM, _PACKAGE = "ssh-keygen", "openssh-client"
TIMEOUT_S = 120.0
SIZE_LIMIT = 64 << 10


def sign_file(path: Path, key: Path) -> Path:
    """Sign a file anew. `key`: a private key, or a public one whose other half an agent holds."""
    made = path.with_name(f"{path.name}.sig")
    made.unlink(missing_ok=True)
    try:
        run.run([run.find(_PROGRAM, _PACKAGE), "-q", "-Y", "sign", "-f", key, "-n", NAMESPACE, path],
                timeout_s=TIMEOUT_S, env=run.clean_env(run.agent_env()), what="ssh-keygen -Y sign")
    except BuildError as wrong:
        raise BuildError(f"{path.name} could not be signed: {wrong.what}", "give --key a key of OpenSSH; one with a "
                         "passphrase has to be in an agent (ssh-add)", findings=wrong.findings) from wrong
    if not made.is_file():
        raise BuildError(f"ssh-keygen wrote no {made}", "update openssh-client to 8.2 or later")
    return made


def verify(data: bytes, signature: Path, signers: Path, identity: str) -> None:
    """BuildError unless `identity` of the file `signers` has signed exactly these bytes."""
    for path in (signature, signers):
        if not path.is_file():
            raise WrongCallError(f"{path} does not exist", "take it from the builder of the image")
    if signature.stat().st_size > SIZE_LIMIT:
        raise BuildError(f"the signature {signature} has more than {SIZE_LIMIT} bytes",
                         "take it from the builder of the image")
    argv = [run.find(_PROGRAM, _PACKAGE), "-Y", "verify", "-f", str(signers), "-I", identity, "-n", NAMESPACE,
            "-s", str(signature)]
    try:
        done = subprocess.run(argv, input=data, capture_output=True, check=False, timeout=TIMEOUT_S,
                              env=run.clean_env())
    except subprocess.TimeoutExpired as late:
        raise BuildError(f"ssh-keygen -Y verify did not end within {TIMEOUT_S:g} s",
                         "wait until the machine is less busy") from late
    if done.returncode:
        said = (done.stdout + done.stderr).decode("utf-8", "replace").strip().splitlines()
        raise BuildError(f"the signature {signature} is not one of {identity}: {said[-1] if said else 'refused'}",
                         "use the image as its builder published it, and the builder's own allowed_signers file")
