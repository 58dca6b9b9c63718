"""Which chapter of Python's library reference each top-level module of the standard library belongs to.

The chapters are those of https://docs.python.org/3/library/, neighbours merged so that each holds at least four
modules and some eighty documented things on every Python from 3.11 to 3.13.
"""

from __future__ import annotations

# Chapter -> its modules. Names that a chapter of the reference documents under another module's name are in ALIASES.
_CHAPTERS: dict[str, str] = {
    "Text Processing and Internationalization": """
        string re difflib textwrap unicodedata stringprep readline rlcompleter struct codecs gettext locale
    """,
    "Built-in and Data Types": """
        builtins datetime zoneinfo calendar collections heapq bisect array weakref types copy pprint reprlib enum
        graphlib
    """,
    "Numeric and Functional Programming": """
        numbers math cmath decimal fractions random statistics itertools functools operator
    """,
    "File and Directory Access": """
        pathlib posixpath stat filecmp tempfile glob fnmatch linecache shutil
    """,
    "Persistence, Compression and Cryptography": """
        pickle copyreg shelve marshal dbm sqlite3 zlib gzip bz2 lzma zipfile tarfile hashlib hmac secrets crypt
    """,
    "File Formats, Markup and Internet Data": """
        csv configparser tomllib netrc plistlib xdrlib html xml email json mailbox mailcap mimetypes base64 binascii
        quopri uu wave colorsys aifc audioop chunk imghdr sndhdr sunau ossaudiodev
    """,
    "Operating System Services": """
        os io time logging platform errno ctypes pwd grp termios tty pty fcntl resource syslog spwd nis pipes msvcrt
        winreg winsound
    """,
    "Concurrency and Interprocess Communication": """
        threading multiprocessing concurrent subprocess sched queue contextvars asyncio socket ssl select selectors
        signal mmap asyncore asynchat
    """,
    "Internet Protocols and Support": """
        webbrowser wsgiref urllib http ftplib poplib imaplib smtplib uuid socketserver xmlrpc ipaddress cgi cgitb
        nntplib smtpd telnetlib
    """,
    "Command-line and Graphical Interfaces": """
        argparse optparse getopt getpass fileinput curses cmd shlex tkinter turtle
    """,
    "Development, Debugging and Packaging": """
        typing pydoc doctest unittest bdb faulthandler pdb profile pstats timeit trace tracemalloc distutils ensurepip
        venv zipapp
    """,
    "Python Runtime Services": """
        sys sysconfig warnings dataclasses contextlib abc atexit traceback __future__ gc inspect site code codeop
    """,
    "Python Language and Importing": """
        ast symtable token keyword tokenize tabnanny pyclbr py_compile compileall dis pickletools zipimport pkgutil
        modulefinder runpy importlib imp
    """,
}

CHAPTER_OF: dict[str, str] = {module: chapter for chapter, text in _CHAPTERS.items() for module in text.split()}

# An implementation's file -> the module it is documented as, so that both stay on one side of a split.
ALIASES: dict[str, str] = {
    "_aix_support": "platform",
    "_collections_abc": "collections",
    "_colorize": "traceback",
    "_compat_pickle": "pickle",
    "_compression": "gzip",
    "_ios_support": "platform",
    "_markupbase": "html",
    "_opcode_metadata": "dis",
    "_osx_support": "platform",
    "_py_abc": "abc",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_pyio": "io",
    "_pylong": "builtins",
    "_pyrepl": "code",
    "_sitebuiltins": "site",
    "_strptime": "time",
    "_threading_local": "threading",
    "_weakrefset": "weakref",
    "_apple_support": "platform",
    "_android_support": "platform",
    "cProfile": "profile",
    "genericpath": "posixpath",
    "ntpath": "posixpath",
    "nturl2path": "urllib",
    "opcode": "dis",
    "sre_compile": "re",
    "sre_constants": "re",
    "sre_parse": "re",
}

# Not documented in the reference, or (encodings) a hundred generated files that say the same.
SKIPPED: frozenset[str] = frozenset(
    [
        "__hello__", "__phello__", "__pycache__", "_bootsubprocess", "antigravity", "dist-packages", "encodings",
        "idlelib", "lib-dynload", "lib2to3", "pydoc_data", "site-packages", "test", "tests", "this", "turtledemo",
    ]
)  # fmt: skip

# Compiled module -> the module it is documented as. Importing these runs nothing but their own initialisation.
COMPILED: dict[str, str] = {
    "builtins": "builtins",
    "array": "array",
    "binascii": "binascii",
    "cmath": "cmath",
    "errno": "errno",
    "faulthandler": "faulthandler",
    "fcntl": "fcntl",
    "gc": "gc",
    "grp": "grp",
    "itertools": "itertools",
    "marshal": "marshal",
    "math": "math",
    "mmap": "mmap",
    "posix": "os",
    "pwd": "pwd",
    "pyexpat": "xml",
    "resource": "resource",
    "select": "select",
    "sys": "sys",
    "syslog": "syslog",
    "termios": "termios",
    "time": "time",
    "unicodedata": "unicodedata",
    "zlib": "zlib",
    "_asyncio": "asyncio",
    "_bisect": "bisect",
    "_blake2": "hashlib",
    "_bz2": "bz2",
    "_codecs": "codecs",
    "_collections": "collections",
    "_contextvars": "contextvars",
    "_csv": "csv",
    "_ctypes": "ctypes",
    "_curses": "curses",
    "_curses_panel": "curses",
    "_datetime": "datetime",
    "_decimal": "decimal",
    "_elementtree": "xml",
    "_functools": "functools",
    "_hashlib": "hashlib",
    "_heapq": "heapq",
    "_imp": "importlib",
    "_io": "io",
    "_json": "json",
    "_locale": "locale",
    "_lsprof": "profile",
    "_lzma": "lzma",
    "_md5": "hashlib",
    "_operator": "operator",
    "_pickle": "pickle",
    "_posixsubprocess": "subprocess",
    "_queue": "queue",
    "_random": "random",
    "_sha1": "hashlib",
    "_sha2": "hashlib",
    "_sha3": "hashlib",
    "_signal": "signal",
    "_socket": "socket",
    "_sqlite3": "sqlite3",
    "_sre": "re",
    "_ssl": "ssl",
    "_stat": "stat",
    "_statistics": "statistics",
    "_string": "string",
    "_struct": "struct",
    "_symtable": "symtable",
    "_thread": "threading",
    "_tracemalloc": "tracemalloc",
    "_typing": "typing",
    "_uuid": "uuid",
    "_warnings": "warnings",
    "_weakref": "weakref",
    "_zoneinfo": "zoneinfo",
}


def documented_as(module: str) -> str | None:
    """The module of the reference that a top-level file or folder name belongs to; None when to none."""
    name = ALIASES.get(module, module)
    return name if name in CHAPTER_OF else None
