"""How a broker is verified and who we are there: certificates from files.

It never verifies less than the certificate's chain and name, never speaks less than TLS 1.2, and never
asks a person for a password. In: paths of PEM files. Out: an `ssl.SSLContext`.
Raises: `UplinkError(TLS)`, which names the files. Remembers: nothing.
"""

import ssl
from pathlib import Path

from agent.errors import UplinkError, UplinkReason


def tls_context(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    """How the broker is verified and who we are; `UplinkError` where a file is no certificate or key.

    `ca` None: the system's authorities. `cert` and `key` come together.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if cert is not None:
            context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = ", ".join(str(f) for f in (ca, cert, key) if f)
        text = f"cannot read the certificates ({files}): {_certificate_problem(error)}"
        raise UplinkError(UplinkReason.TLS, text) from error
    return context


def _certificate_problem(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key belongs to another certificate"
        return "no certificate and key in PEM form"
    return getattr(error, "strerror", None) or str(error)


def _no_password() -> str:
    """A key with a password: nobody is there to type it."""
    raise ValueError("the key has a password; give one without")
