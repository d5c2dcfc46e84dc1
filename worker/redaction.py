"""What counts as a secret, by its name. Used wherever settings or log events are printed.                     (pure)

The rule errs on the side of hiding: a certificate's public part (`ssl.ca.pem`) is hidden too.
"""

from __future__ import annotations

import re

HIDDEN = "**********"

_SECRET = re.compile(
    r"""(^|[._\-])
        (password|passwd|passphrase|secret|token|credentials?|assertion|pem|api[._\-]?key|jaas|authorization
         |basic[._\-]auth[._\-]user[._\-]info)
        ($|[._\-])
     | ^sasl\.oauthbearer\.config$""",
    re.IGNORECASE | re.VERBOSE,
)
_LOCATION = re.compile(r"[._\-](location|file|path|url|claim|method|enable|timeout|ms|s)$", re.IGNORECASE)
_USERINFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.\-]*://)[^/\s@]+@", re.IGNORECASE)


def is_secret(name: str) -> bool:
    """True if a setting or log field called `name` may hold a secret. The path of a file that holds one is none."""
    return bool(_SECRET.search(name)) and not _LOCATION.search(name)


def without_userinfo(text: str) -> str:
    """`text` with the `user:password@` part of every URL in it hidden."""
    return _USERINFO.sub(rf"\g<scheme>{HIDDEN}@", text)
