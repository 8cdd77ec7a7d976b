"""Which errors of tools may be said to a caller: sentences, not what programs say to those who wrote them.

Looks for what is surely technical: stack traces, SQL, and where things are (addresses, machines, files).
"""

import re

_LABEL = r"[a-z0-9][a-z0-9-]{0,62}"
_TECHNICAL = (
    # Stack traces: Python's, those of the JVM, JavaScript, Go, and the names of exceptions.
    r"Traceback \(most recent call last\)",
    r'\bFile \\?"[^"]{1,500}", line \d',
    r"\bat [\w$.<>]{1,200} ?\([^()]{0,200}:\d+\)",
    r"\bgoroutine \d+ \[",
    r"\b[A-Za-z]\w{1,80}(?:Error|Exception)\b ?[:(]",
    r"\bSQLSTATE\b|\bORA-\d{5}\b|\bErrno\b|\bE(?:CONN(?:REFUSED|RESET)|TIMEDOUT|NOTFOUND|HOSTUNREACH|ACCES)\b",
    # SQL: as it is written by hand in capitals, or with what no sentence has.
    r"\bSELECT\b[^;]{1,2000}\bFROM\b|\b(?:INSERT|REPLACE) INTO\b|\bDELETE FROM\b|\bUPDATE\b.{1,200}\bSET\b",
    r"\b(?:CREATE|DROP|ALTER|TRUNCATE) (?:TABLE|INDEX|DATABASE|VIEW|SCHEMA)\b",
    r"(?i:\bselect \*|\binsert into \w+ ?\(|\bdelete from \w+ where\b|\bupdate \w+ set \w+ ?=)",
    r"(?i:\bselect [\w.,\" ]{1,500} from [\w.\"]{1,100} where [\w.\"]{1,100} ?(?:[=<>]|in\b|like\b|is\b))",
    r"(?i:\bnear \\?\"[^\"]{0,200}\\?\": syntax error|\bviolates \w+(?: key)? constraint\b)",
    # Where things are.
    r"\b[a-z][a-z0-9+.-]{1,20}://",
    r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?!\.?\d)",
    r"(?<![\w:])(?:[0-9a-f]{1,4}:){4,7}[0-9a-f]{1,4}\b|(?<![\w:])(?:[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,6})?::[0-9a-f]",
    rf"\blocalhost\b|(?i:\b{_LABEL}\.(?:internal|intern|local|localdomain|lan|corp|svc|cluster|home|arpa)\b)",
    rf"(?<![\w.@-])(?!www\.)(?:{_LABEL}\.){{2,10}}[a-z]{{2,24}}\b",
    rf"(?<![\w.@-])(?:{_LABEL}\.)+[a-z]{{2,24}}:\d{{2,5}}\b",
    r"(?<![\w/])/(?:etc|home|usr|var|opt|srv|tmp|root|app|proc|run|mnt|data|lib|bin)/\w",
    r"\b[A-Z]:\\{1,2}\w",
)
_FOUND = re.compile("|".join(f"(?:{each})" for each in _TECHNICAL), re.DOTALL)


def is_sayable(text: str) -> bool:
    """Whether nothing in a text is surely technical."""
    return _FOUND.search(text) is None
