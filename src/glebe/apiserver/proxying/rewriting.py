"""What a proxied answer says about paths is made to lead through the proxy again.

``Location`` headers and the links of HTML pages, as upstream does it (``util/proxy/transport.go``): a path from the
server's root gets the path that led to it; other hosts and relative paths stay.
"""

from __future__ import annotations

import posixpath
import re
from urllib.parse import SplitResult, urlsplit, urlunsplit

#: tag -> its attributes that hold a URL
_LINKS = {
    "a": "href",
    "applet": "codebase",
    "area": "href",
    "audio": "src",
    "base": "href",
    "blockquote": "cite",
    "body": "background",
    "button": "formaction",
    "command": "icon",
    "del": "cite",
    "embed": "src",
    "form": "action",
    "frame": "longdesc src",
    "head": "profile",
    "html": "manifest",
    "iframe": "longdesc src",
    "img": "longdesc src usemap",
    "input": "src usemap formaction",
    "ins": "cite",
    "link": "href",
    "object": "classid codebase data usemap",
    "q": "cite",
    "script": "src",
    "source": "src",
    "video": "poster src",
}
_TAG = re.compile(rb"<([a-zA-Z]+)(\s[^<>]*)>")
_ATTRIBUTE = re.compile(rb"""([a-zA-Z]+)(\s*=\s*)("[^"]*"|'[^']*')""")


def rewritten(url: str, prefix: str, hosts: tuple[str, ...]) -> str:
    """``url`` as it is reached through the proxy whose path is ``prefix``; ``hosts`` are the answering server's."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    if (parts.netloc and parts.netloc not in hosts) or not parts.path.startswith("/") or parts.path.startswith(prefix):
        return url
    path = posixpath.normpath(f"{prefix}/{parts.path.lstrip('/')}")
    if parts.path.endswith("/") and not path.endswith("/"):
        path += "/"
    return urlunsplit(SplitResult("", "", path, parts.query, parts.fragment))


def rewritten_page(page: bytes, prefix: str, hosts: tuple[str, ...]) -> bytes:
    """An HTML page with all its links rewritten."""

    def of_tag(match: re.Match[bytes]) -> bytes:
        names = _LINKS.get(match[1].decode("ascii").lower(), "").split()
        if not names:
            return match[0]

        def of_attribute(found: re.Match[bytes]) -> bytes:
            if found[1].decode("ascii").lower() not in names:
                return found[0]
            quote, text = found[3][:1], found[3][1:-1]
            try:
                url = text.decode()
            except UnicodeDecodeError:
                return found[0]
            return b"".join((found[1], found[2], quote, rewritten(url, prefix, hosts).encode(), quote))

        return b"<" + match[1] + _ATTRIBUTE.sub(of_attribute, match[2]) + b">"

    return _TAG.sub(of_tag, page)
