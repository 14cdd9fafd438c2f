"""The codes of a pickle -> plain values, on a stack machine that calls only what `Names` gives.

Python's own unpickler is not used: it can import, call, set attributes and allocate at a file's
word. Codes that no checkpoint uses are refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import IO, Any, Protocol, cast

from sae.core.quiet import quiet
from sae.untrusted.damage import Unfit

MAX_CODES = 1 << 17
"""Of a file: a checkpoint has some hundred; a byte of code can make an object of a hundred."""

_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_OLD_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING")
_TEXTS = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
_PUSHED = frozenset(_NUMBERS + _OLD_TEXTS + _TEXTS + _BYTES)
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


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
    with quiet:  # of texts with odd escapes
        for code, argument, _place in pickletools.genops(cast(IO[bytes], file)):
            budget.step()
            machine.step(code.name, argument)
    return machine.stack.pop()


def require_key(key: Any) -> None:
    """Raise `Unfit` for what is no plain key of a dict: a tuple's hash can take for ever.

    An optimiser keeps what it knows by tensor, which is a key by its identity.
    """
    by_identity = vars(object)["__hash__"] is type(key).__hash__
    if not isinstance(key, str | int | float | bool | None) and not by_identity:
        raise Unfit(f"a key of type {type(key).__name__}")


class _Machine:
    def __init__(self, names: Names, budget: Budget) -> None:
        self.names = names
        self.budget = budget
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # what lay on the stack at each MARK
        self.memo: dict[int, Any] = {}

    def step(self, code: str, argument: Any) -> None:
        """Do what one code says."""
        stack = self.stack
        match code:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _ if code in _PUSHED:
                stack.append(argument)
            case _ if code in _CONSTANTS:
                stack.append(_CONSTANTS[code])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(code[-1])
                stack[-n:] = [tuple(stack[-n:])]
            case "LIST" | "TUPLE" | "DICT":
                items = self._since_mark()
                self.stack.append(_BUILT[code](items))
            case "APPEND":
                item = stack.pop()
                self._extend([item])
            case "APPENDS" | "ADDITEMS":
                self._extend(self._since_mark())
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self._update([key, value])
            case "SETITEMS":
                self._update(self._since_mark())
            case "GLOBAL":
                module, _, name = argument.partition(" ")
                stack.append(self.names.named(module, name))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                if not isinstance(name, str) or not isinstance(module, str):
                    raise Unfit("a name that is no text")
                stack.append(self.names.named(module, name))
            case "NEWOBJ_EX":
                stack.pop()  # keyword arguments: a stub has no use for them
                self._call()
            case "REDUCE" | "NEWOBJ":
                self._call()
            case "BUILD":
                state = stack.pop()
                self.names.built(stack[-1], state)
            case "BINPERSID":
                stack.append(self.names.stored(stack.pop()))
            case _:
                raise Unfit(f"the pickle uses {code}, which no checkpoint needs")

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _call(self) -> None:
        args, call = self.stack.pop(), self.stack.pop()
        if not isinstance(args, tuple) or not callable(call):
            raise Unfit("a call of what is no function")
        made = call(*args)
        self.budget.spend(_weight(made))
        self.stack.append(made)

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


_BUILT: dict[str, Callable[[list[Any]], Any]] = {"LIST": list, "TUPLE": tuple, "DICT": _pairs}
