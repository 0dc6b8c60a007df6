"""Who may ask what of the page's process. Pure functions of what a request says of itself.

A page of another site that a browser shows must not read or change anything here. It cannot read answers, but it could
have its own name lead to this address (then the Host is that name), and it could send what it may send unasked (then
Sec-Fetch-Site or Origin tells). To an address of another machine, without TLS, browsers send no Sec-Fetch-Site; so what
makes work has to come with a header that a page of another site may not send unasked, whatever its value.
"""

import hmac
import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""What is said with every answer: nothing from elsewhere, nobody's frame, nothing kept."""

OWN_HEADER = "x-pagetide"
"""What the page sends with what it asks."""


def may_read(headers: Mapping[str, str]) -> bool:
    """Whether the request names this machine by an address or as localhost, and comes from no other site's page."""
    site = headers.get("sec-fetch-site", "none")
    return _is_address(headers.get("host", "")) and site in {"none", "same-origin"}


def may_have_looked(headers: Mapping[str, str]) -> bool:
    """Whether the request, of which work comes, is this page's, or that of a program which says so by `OWN_HEADER`."""
    return may_read(headers) and (headers.get("sec-fetch-site") == "same-origin" or OWN_HEADER in headers)


def may_change(headers: Mapping[str, str], token: str) -> bool:
    """Whether the request comes from this page, and knows the token; without a token nobody may."""
    host, origin = headers.get("host", ""), headers.get("origin", "")
    given = headers.get("authorization", "").removeprefix("Bearer ")
    return (
        bool(token)
        and may_read(headers)
        and origin.partition("://")[2] == host
        and headers.get("content-type", "").partition(";")[0].strip() == "application/json"
        and hmac.compare_digest(given.encode(), token.encode())
    )


def _is_address(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name != "localhost":
            ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
