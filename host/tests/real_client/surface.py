"""Which public names of the client's package a script has used.

Python's own classes are watched from inside. Those of the native module cannot be, so every value they give
out goes through `look`, which notes what is read of it.
"""
import dataclasses
import functools
import inspect
import types

import runtimed

# What no script can use, and why.
UNTESTABLE = {
    "ExecutionEvent": "no call of the package returns one; `watch` gives ExecutionProgress",
    "show_notebook_app": "starts the desktop app, which is not part of this package",
    "show_notebook_app_for_channel": "starts the desktop app, which is not part of this package",
    "KernelErrorReasonKey": "a type for annotations, without members",
    "KernelStatusKey": "a type for annotations, without members",
}

used = set()


def members(cls):
    """The public names that a class has of its own, beyond what every object or exception has."""
    fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    return fields | {name for name in dir(cls) if not name.startswith("_") and not hasattr(Exception, name)}


def classes():
    """The package's own classes, by name."""
    found = inspect.getmembers(runtimed, inspect.isclass)
    own = ("runtimed", "builtins")
    return {name: cls for name, cls in found if not name.startswith("_") and cls.__module__.startswith(own)}


def public():
    """Every public name: of the package, and `Class.member` of its classes."""
    names = {name for name in dir(runtimed) if not name.startswith("_")}
    for name, cls in classes().items():
        names |= {f"{name}.{member}" for member in members(cls)} if name not in UNTESTABLE else set()
    return names


def unused():
    return sorted(name for name in public() - used if name not in UNTESTABLE)


class Look:
    """A native value whose public attributes are noted when they are read."""

    def __init__(self, value):
        self.__dict__["_value"] = value

    def __getattr__(self, name):
        note(type(self._value).__name__, name)
        return look(getattr(self._value, name))

    def __repr__(self):
        return repr(self._value)


def note(cls, name):
    used.update((cls, f"{cls}.{name}"))


def look(value):
    """The value, watched if it is one of the package's native ones."""
    if isinstance(value, dict):
        return {key: look(item) for key, item in value.items()}
    if isinstance(value, list):
        return [look(item) for item in value]
    return Look(value) if type(value).__name__ in NATIVE else value


def watch():
    """Begins to watch the package's Python classes."""
    for name, cls in classes().items():
        if name in NATIVE or issubclass(cls, BaseException):
            continue
        for member in members(cls):
            there = inspect.getattr_static(cls, member, None)
            if isinstance(there, property):
                setattr(cls, member, property(noting(name, member, there.fget)))
            elif isinstance(there, types.FunctionType):
                setattr(cls, member, noting(name, member, there))
        if dataclasses.is_dataclass(cls):
            cls.__getattribute__ = noting_fields(name, {field.name for field in dataclasses.fields(cls)})


def noting_fields(cls, fields):
    def noted(self, name):
        if name in fields:
            note(cls, name)
        return object.__getattribute__(self, name)

    return noted


def noting(cls, member, function):
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def noted(*args, **kwargs):
            note(cls, member)
            return look(await function(*args, **kwargs))
    else:

        @functools.wraps(function)
        def noted(*args, **kwargs):
            note(cls, member)
            return look(function(*args, **kwargs))

    return noted


# Classes of the native module, which name no module of their own.
NATIVE = {name for name, cls in classes().items() if cls.__module__ == "builtins"}
