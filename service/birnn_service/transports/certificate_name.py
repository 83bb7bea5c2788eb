"""Who a caller is by its certificate."""

import time
from functools import lru_cache

from cryptography import x509
from cryptography.x509.oid import NameOID


def name_in(certificate: bytes) -> str:
    """The name of a caller in its verified certificate, in PEM or DER.

    It is the first URI among the alternative names (a SPIFFE ID, for example), or else the first DNS name, or else the
    common name. Whether it can be used as a name is for `birnn_service.access` to judge.

    A certificate is verified when a connection begins, and not again where a TLS session is resumed. So that it has not
    expired is checked here, for each call.

    Returns:
        The name; empty where there is none, where the certificate cannot be read, or where it has expired.
    """
    name, end = _read(certificate)
    return name if time.time() <= end else ""


@lru_cache(maxsize=1024)
def _read(certificate: bytes) -> tuple[str, float]:
    """The name in a certificate, and when that ends, in seconds since the epoch."""
    try:
        read = x509.load_pem_x509_certificate if certificate.startswith(b"-----") else x509.load_der_x509_certificate
        parsed = read(certificate)
        end = parsed.not_valid_after_utc.timestamp()
        common = [str(each.value) for each in parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        try:
            others = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return next(iter(common), ""), end
        uris = others.get_values_for_type(x509.UniformResourceIdentifier)
        names = others.get_values_for_type(x509.DNSName)
    except (ValueError, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType):
        return "", 0.0
    return next(iter((*uris, *names, *common)), ""), end
