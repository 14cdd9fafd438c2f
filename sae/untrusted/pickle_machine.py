"""The codes of a pickle -> plain values, on a stack machine that calls only what `Names` gives.

Python's own unpickler is not used: it can import, call, set attributes and allocate at a file's
word. Codes that no checkpoint uses are refused.
"""

from __future__ import annotations

import pickletools
import warnings
from typing import IO, Any, Protocol, cast

from sae.untrusted.damage import Unfit

__all__ = ["Budget", "Names", "Readable", "interpret", "require_key"]

MAX_CODES = 1 << 17
"""Of a file: a checkpoint has some hundred; a byte of code can make an object of a hundred."""

_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_OLD_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING")
_TEXTS = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
_PUSHED = frozenset(_NUMBERS + _OLD_TEXTS + _TEXTS + _BYTES)
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUT = ("PUT", "BINPUT", "LONG_BINPUT")
_GET = ("GET", "BINGET", "LONG_BINGET")


class Budget:
    """What one file may still cost: a few bytes of a pickle can repeat a large value for ever."""

    def __init__(self, n_bytes: int) -> None:
        self.n_codes = MAX_CODES
        self.n_bytes = n_bytes + (1 << 20)

    def step(self) -> None:
        """Another code of a pickle."""
        self.n_codes -= 1
        if self.n_codes < 0:
            raise Unfit(f"its pickle has more than {MAX_CODES} steps, for some hundred values")

    def spend(self, n_bytes: int) -> None:
        """So many bytes were made of what was there before."""
        self.n_bytes -= n_bytes
        if self.n_bytes < 0:
            raise Unfit("its pickle repeats its own parts to more than the file's size")


class Readable(Protocol):
    """A file to read from, as `pickletools` needs it."""

    def read(self, n: int = -1) -> bytes: ...
    def readline(self) -> bytes: ...
    def tell(self) -> int: ...


class Names(Protocol):
    """What stands behind the names and references in a pickle."""

    def named(self, module: str, name: str) -> Any: ...
    def stored(self, pid: Any) -> Any: ...
    def built(self, made: Any, state: Any) -> None: ...


def interpret(file: Readable, names: Names, budget: Budget) -> Any:
    """The value of the next pickle; the file is left behind it. Raises `Unfit` or `LookupError`,
    `TypeError` or `ValueError` when the pickle is damaged."""
    machine = _Machine(names, budget)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of texts with odd escapes
        for code, argument, _place in pickletools.genops(cast(IO[bytes], file)):
            budget.step()
            machine.step(code.name, argument)
    return machine.pop()


def require_key(key: Any) -> None:
    """Raise `Unfit` for what is no plain key of a dict: a tuple's hash can take for ever."""
    if not isinstance(key, str | int | float | bool | None):
        raise Unfit(f"a key of type {type(key).__name__}")


class _Machine:
    def __init__(self, names: Names, budget: Budget) -> None:
        self.names = names
        self.budget = budget
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # what lay on the stack at each MARK
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        return self.stack.pop()

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def step(self, code: str, argument: Any) -> None:
        if code in _PUSHED:
            self.stack.append(argument)
        elif code in _CONSTANTS:
            self.stack.append(_CONSTANTS[code])
        elif code in _PUT:
            self.memo[argument] = self.stack[-1]
        elif code in _GET:
            self.stack.append(self.memo[argument])
        elif code in _TUPLES:
            n = _TUPLES[code]
            self.stack[-n:] = [tuple(self.stack[-n:])]
        else:
            run = _STEPS.get(code)
            if run is None:
                raise Unfit(f"the pickle uses {code}, which no checkpoint needs")
            run(self, argument)

    def mark(self, _argument: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def memoize(self, _argument: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def empty_list(self, _argument: Any) -> None:
        self.stack.append([])

    def empty_dict(self, _argument: Any) -> None:
        self.stack.append({})

    def list_of(self, _argument: Any) -> None:
        items = self.since_mark()
        self.stack.append(items)

    def tuple_of(self, _argument: Any) -> None:
        items = self.since_mark()
        self.stack.append(tuple(items))

    def dict_of(self, _argument: Any) -> None:
        items = self.since_mark()
        self.stack.append(_pairs(items))

    def append(self, _argument: Any) -> None:
        item = self.pop()
        self._extend([item])

    def appends(self, _argument: Any) -> None:
        self._extend(self.since_mark())

    def set_item(self, _argument: Any) -> None:
        value, key = self.pop(), self.pop()
        self._update([key, value])

    def set_items(self, _argument: Any) -> None:
        self._update(self.since_mark())

    def name(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(self.names.named(module, name))

    def stack_name(self, _argument: Any) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise Unfit("a name that is no text")
        self.stack.append(self.names.named(module, name))

    def reduce(self, _argument: Any) -> None:
        args, call = self.pop(), self.pop()
        if not isinstance(args, tuple) or not callable(call):
            raise Unfit("a call of what is no function")
        made = call(*args)
        self.budget.spend(_weight(made))
        self.stack.append(made)

    def new_with_names(self, _argument: Any) -> None:
        self.pop()  # keyword arguments: a stub has no use for them
        self.reduce(None)

    def build(self, _argument: Any) -> None:
        state = self.pop()
        self.names.built(self.stack[-1], state)

    def reference(self, _argument: Any) -> None:
        self.stack.append(self.names.stored(self.pop()))

    def nothing(self, _argument: Any) -> None:
        """PROTO, FRAME and STOP carry no value."""

    def _extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise Unfit("items for what is no list")
        self.stack[-1].extend(items)

    def _update(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], dict):
            raise Unfit("entries for what is no dict")
        self.stack[-1].update(_pairs(items))


def _weight(made: Any) -> int:
    """Bytes of a value, not of what it refers to."""
    if isinstance(made, str | bytes):
        return len(made)
    return 8 * len(made) if isinstance(made, list | tuple | dict) else 0


def _pairs(items: list[Any]) -> dict[Any, Any]:
    for key in items[::2]:
        require_key(key)
    return dict(zip(items[::2], items[1::2], strict=True))


_STEPS = {
    "PROTO": _Machine.nothing,
    "FRAME": _Machine.nothing,
    "STOP": _Machine.nothing,
    "MARK": _Machine.mark,
    "MEMOIZE": _Machine.memoize,
    "EMPTY_LIST": _Machine.empty_list,
    "EMPTY_SET": _Machine.empty_list,
    "EMPTY_DICT": _Machine.empty_dict,
    "LIST": _Machine.list_of,
    "TUPLE": _Machine.tuple_of,
    "DICT": _Machine.dict_of,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stack_name,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.new_with_names,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.reference,
}
