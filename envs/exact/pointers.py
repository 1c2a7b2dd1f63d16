"""Compiled code's access to C: memory at an address, functions at an address.

Addresses are arguments, never globals, so that compiled code can be cached on disk.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["call", "call_jacobian", "doubles", "ints", "take", "words_at"]

_WORD, _INT = ir.IntType(64), ir.IntType(32)


def _pointer(kind: Any) -> Any:
    def typed(typing, address):
        def generate(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), generate

    return intrinsic(typed)


def _function(arguments: list[ir.IntType]) -> Any:
    """Return the code generator of a call to a `void` C function with these arguments."""

    def generate(context, builder, signature, values):
        kind = ir.FunctionType(ir.VoidType(), arguments)
        cast = [
            value if width == _WORD else builder.trunc(value, width)
            for value, width in zip(values[1:], arguments, strict=True)
        ]
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), cast)
        return context.get_dummy_value()

    return types.void(*[types.int64] * (1 + len(arguments))), generate


def _call(typing, function, model, data):
    return _function([_WORD] * 2)


def _call_jacobian(typing, function, model, data, linear, angular, site):
    return _function([_WORD] * 4 + [_INT])


def _take(typing, address):
    def generate(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], _WORD.as_pointer())
        return builder.atomic_rmw("add", place, _WORD(1), "monotonic")

    return types.int64(types.int64), generate


doubles, words_at, ints = _pointer(types.float64), _pointer(types.int64), _pointer(types.int32)
call: Any = intrinsic(_call)  # f(model, data)
call_jacobian: Any = intrinsic(_call_jacobian)  # mj_jacSite(model, data, jacp, jacr, site)
take: Any = intrinsic(_take)  # count the integer at an address up; return what it was, to one thread alone
