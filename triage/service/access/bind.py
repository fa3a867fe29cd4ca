"""Which addresses the service may listen on, and what for."""

from __future__ import annotations

import ipaddress
import ssl

from triage.settings import Settings


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_encrypted(settings: Settings) -> bool:
    """Whether browsers speak TLS with us, or with the proxy before us."""
    return settings.behind_proxy or settings.tls_cert is not None


def always_login(settings: Settings) -> bool:
    """Whether a login is needed even while there is no user."""
    return settings.login_required or settings.behind_proxy or not is_loopback(settings.http_host)


def refusal(settings: Settings) -> str | None:
    """Why the service must not start with these addresses, in one line; None: it may."""
    if settings.tls_key is not None and settings.tls_cert is None:
        return "TRIAGE_TLS_KEY is set without TRIAGE_TLS_CERT."
    if not is_loopback(settings.http_host) and not is_encrypted(settings):
        return (
            f"{settings.http_host} is reachable by other machines, and nothing is encrypted: set "
            "TRIAGE_TLS_CERT and TRIAGE_TLS_KEY, or TRIAGE_BEHIND_PROXY=true where a proxy does "
            "TLS, or bind to 127.0.0.1."
        )
    if settings.dicom_tls_client_ca is not None and settings.dicom_tls_cert is None:
        return "TRIAGE_DICOM_TLS_CLIENT_CA is set without TRIAGE_DICOM_TLS_CERT: no TLS at all."
    listed = any(entry.strip() for entry in settings.senders.split(","))
    if is_loopback(settings.dicom_host) or listed or settings.dicom_tls_client_ca is not None:
        return None
    return (
        f"{settings.dicom_host} is reachable by other machines: name the senders that may connect "
        "in TRIAGE_SENDERS (AE, or AE@address), ask them for certificates with "
        "TRIAGE_DICOM_TLS_CLIENT_CA, or bind TRIAGE_DICOM_HOST to 127.0.0.1."
    )


def no_users(settings: Settings) -> str:
    """Why the service must not start without any user."""
    why = "TRIAGE_LOGIN_REQUIRED is set" if settings.login_required else "others can reach it"
    return f"There is no user who could log in, and {why}: triage user add NAME --role admin."


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Raises OSError (ssl.SSLError included) if certificate or key cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.tls_cert or "", settings.tls_key)
    context.set_alpn_protocols(["http/1.1"])
    return context
