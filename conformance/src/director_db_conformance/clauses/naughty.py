"""Texts that storage gets wrong: each has its meaning to some layer that must not give it one.

No two of them are equal code point by code point, and many are equal to something less careful.
"""

from __future__ import annotations

from typing import Final

NAUGHTY_TEXTS: Final[tuple[str, ...]] = (
    # Case, space, width and digits.
    *("a", "A", "a ", " a", "a\t", "\ta", "a\n", "a\r\n", "aa", "\uff41", "\u0430", "a\xa0"),
    *("ss", "\xdf", "\u1e9e", "SS", "i", "I", "\u0131", "\u0130", "\u017f", "s", "\ufb01", "fi"),
    *("1", "01", "1.0", "1e0", "+1", "-0", "0", "0x1", "\u0661", "\u096f", "\uff11", "\xb2", "Inf"),
    # One letter in several forms of Unicode.
    *("\xe9", "e\u0301", "E\u0301", "\xc5", "A\u030a", "\u212b", "\uac00", "\u1100\u1161"),
    *("q\u0307\u0323", "q\u0323\u0307", "\u1e69", "s\u0323\u0307", "\u03a9", "\u2126"),
    # What is not seen, and what turns the writing around.
    *(
        "a\u200b",
        "a\u200d",
        "\u200ba",
        "a\ufeff",
        "\ufeffa",
        "a\u00ad",
        "\u2060",
        "\u180e",
        "\u3000",
    ),
    *("\u202eabc", "\u202dabc\u202c", "\u05d0\u05d1", "\u0627\u0644", "\u2066x\u2069", "\u200f"),
    *("\u2028", "\u2029", "\x85", "\x0b", "\x0c"),
    # Beyond the first 65,536 code points, and at their edges.
    *("\U0001f600", "\U0001f469\u200d\U0001f4bb", "\U0001f1e9\U0001f1ea", "\u2764\ufe0f", "\u2764"),
    *("\U00010000", "\U0010ffff", "\U000e0041", "\uffff", "\ufffe", "\ufffd", "\ufdd0", "\ue000"),
    *("\ud7ff", "\U0001d4d0", "a" + "\u0300" * 30, "\U0001f44d\U0001f3fd", "\U0001f44d"),
    # Patterns, and what escapes them.
    *("%", "_", "%%", "a%", "a_", "*", "?", "a*", "[a]", "^a$", ".*", "a|A", "(?i)a", "\\%", "\\_"),
    # Quotes, escapes and statements.
    *(
        "'",
        "''",
        '"',
        '""',
        "`",
        "\\",
        "\\\\",
        "\\'",
        "\\x00",
        "\\0",
        "\\u0000",
        "\\N",
        "\\.",
        "/*",
    ),
    *("'; DROP TABLE sessions; --", "' OR '1'='1", "1; SELECT 1", "a'--", "$1", ":a", "?1", "@a"),
    *("$$", "$tag$", "E'\\n'", "x'41'", "U&'\\0041'", "NULL", "null", "None", "nil", "undefined"),
    *("true", "True", "DEFAULT", "CURRENT_TIMESTAMP", "session_id", "rowid", "ctid", "--", ";"),
    # What looks like JSON, arrays, formats, paths or markup.
    *("{}", "[]", '{"a": 1}', '{"a":1}', "[1]", '"a"', "{a,b}", "{NULL}", "(a,b)", "\\{", "{0}"),
    *("%s", "%(a)s", "%d", "%n", "{a}", "${a}", "$(a)", "{{a}}", "#{a}", "<b>", "&amp;", "&#0;"),
    *("../../etc/passwd", "/dev/null", "C:\\a", "a/b", ".", "..", "~", "CON", "file:a", "a\\b"),
    *("a,b", "a;b", "a=b", "a:b", "a&b", "a#b", "a?b", "a+b", "a b", "%41", "%00", "=1+1", "@x"),
    # Control characters: all but U+0000 may stand in an id.
    *map(chr, range(1, 0x20)),
    *("\x7f", "\x80", "\x9f", "a\x01", "a\x1b[31m", "\x1a", "a\b"),
    # Long ones, and those that differ at the very end.
    *("x" * 255, "x" * 254, "x" * 254 + "y", "\U0001f600" * 255, "\xe9" * 255, "\U0001f600" * 254),
)
"""All may be ids (VAL-4)."""

_ONCE: Final = tuple(dict.fromkeys(NAUGHTY_TEXTS))

PAYLOAD_TEXTS: Final[tuple[str, ...]] = (
    *_ONCE,
    *("", "\0", "a\0", "\0a", "a\0b", "\0\0"),
    # Surrogates: alone, and in pairs that are not the character which UTF-16 writes so.
    *("\ud800", "\udfff", "a\ud800", "\udc00\ud800", "\ud83d\ude00", "\ud83d", "\ude00\ud83d"),
    *("\ud83d\U0001f600\ude00", "\\ud83d\\ude00", "\ud83d\\ude00", "\\uD83D\ud83d", "\t\ud800"),
    *("\xe9\ud800", '"\ud800"', "\\\ud800", "\ud800\0"),
    *("x" * 10_000, "\U0001f600" * 3000, "\0" * 3000, "\\" * 3000, '"' * 3000, " " * 3000),
)
"""All may stand in a payload, as values and as keys (VAL-2)."""
