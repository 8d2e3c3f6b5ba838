"""A stand-in for the program `Slicer`, as far as running a script without a window goes.

    python slicer_executable.py --no-main-window --no-splash --python-script FILE -- ARGUMENTS

What it does as the program does it, read from Slicer's and CTK's sources: which arguments reach the
script (ctkCommandLineParser); that the script is executed in `__main__`, in a running event loop,
read in the system's encoding, with its folder on the path meanwhile (ctkAbstractPythonManager);
what `sys.stdout` can and cannot do (PythonQt); that Ctrl-C is not Python's; that there is no layout
manager and no main window; that an exception is printed and nothing ends; and that `app.exit` ends
the event loop later, not at once. A dialog would wait for ever: here it ends the program with 99.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback

FLAGS = ("--no-main-window", "--no-splash", "--testing")
VALUES = ("--python-script",)
LISTS = ("--additional-module-paths",)
DIALOG = 99


def parse(arguments: list[str]) -> tuple[dict[str, object], list[str]]:
    """What Slicer understands, and what it leaves to the script."""
    known: dict[str, object] = {}
    left: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return known, left + rest
        if argument in FLAGS:
            known[argument] = True
        elif argument in VALUES:
            known[argument] = rest.pop(0)
        elif argument in LISTS:
            known[argument] = values = []
            while rest and rest[0] not in (*FLAGS, *VALUES, *LISTS, "--"):
                values.append(rest.pop(0))
        else:
            left.append(argument)
    return known, left


C = ctypes.CDLL("ucrtbase" if os.name == "nt" else None)


class Redirect:
    """PythonQt's sys.stdout and sys.stderr: no fileno, no encoding, and nothing to flush.

    A text goes to std::cout or std::cerr. The first keeps it in C's buffer where it is no terminal;
    the second does not.
    """

    def __init__(self, descriptor):
        self.__descriptor = descriptor

    def write(self, text):
        data = text.encode("utf-8")
        if self.__descriptor == 1:
            for byte in data:
                C.putchar(byte)
        else:
            os.write(self.__descriptor, data)

    def flush(self):
        pass

    def isatty(self):
        return False


def main() -> int:
    options, left = parse(sys.argv[1:])
    from core import Core
    from desktop.session import Desktop
    from PySide6 import QtCore

    desktop = Desktop(Core())
    import slicer

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.stdout, sys.stderr = Redirect(1), Redirect(2)
    sys.excepthook = sys.__excepthook__

    def shown(*values, **_options):
        sys.__stderr__.write(f"a dialog would wait: {values}\n")
        os._exit(DIALOG)

    desktop.dialogs._ask = shown
    desktop.dialogs.delay_display = shown
    loop = QtCore.QEventLoop()
    # A test may have put a launcher in front.
    type(slicer.app).launcherExecutableFilePath = os.environ.get("SLICER_LAUNCHER", "")
    slicer.app._headless = "--no-main-window" in options
    slicer.app._on_exit = loop.exit
    for folder in options.get("--additional-module-paths", ()):
        sys.path.append(folder)
    script = options["--python-script"]
    sys.argv = [script, *left]

    def execute() -> None:
        space = sys.modules["__main__"].__dict__
        space["__file__"] = script
        folder = os.path.dirname(os.path.abspath(script))
        sys.path.insert(0, folder)
        try:
            with open(script) as file:
                exec(file.read(), space)
        except SystemExit as error:
            loop.exit(error.code if isinstance(error.code, int) else 1)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.path.remove(folder)

    QtCore.QTimer.singleShot(0, execute)
    return loop.exec()


if __name__ == "__main__":
    # The views' windows have no orderly end without an application.
    code = main()
    C.fflush(None)
    os._exit(code)
