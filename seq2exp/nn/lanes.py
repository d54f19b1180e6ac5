"""Vectors of 16 floats inside functions that numba compiles.

numba has no vector type; loops that left it to vectorise over channels were four times slower than
these (docs/scan.md). A value of the type made here is one vector of LLVM, which the compiler cuts
into the registers that a machine has, so that the same code serves AVX-512, AVX2, SSE and NEON.
Vectors know ``+ - * /`` among themselves and with float32 numbers.

A function cached by numba is compiled again when its own file changes, not when this one does:
remove ``__pycache__/*.nbi`` after a change here.
"""

# The arguments of compiled functions have types that only numba knows.
# mypy: ignore-errors

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.typing import templates
from numba.extending import intrinsic, lower_builtin, models, register_model
from numba.np import arrayobj
from numpy.typing import NDArray

__all__ = [
    "WIDTH",
    "add_sums",
    "compiled",
    "exp2",
    "fma",
    "inline",
    "load",
    "scratch",
    "sigmoid",
    "softplus",
    "splat",
    "store",
    "total",
]

WIDTH = 16
"""Floats of one vector."""

Lanes = Any

_F = np.float32
_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_LANES, _BITS = ir.VectorType(_FLOAT, WIDTH), ir.VectorType(_INT, WIDTH)
_FOUR = ir.VectorType(_FLOAT, 4)
_LOG2E = _F(1.4426950408889634)
# 2^r = 1 + r q(r) on |r| <= 1/2: q minimises the largest error over |2^r - 1|, which is 4.3e-7. A
# state that decays slowly sees many factors near 1, and this keeps their product exact.
_EXP2 = (1.0, 0.69314714, 0.24022351, 0.05550500, 0.0096662454, 0.0013333539)
# Added to a number below 2^22, it leaves the nearest integer in the lowest bits.
_MAGIC = 1.5 * 2**23
_LOW, _HIGH = -126.0, 128.0
# atanh(s) / s = 1 + s^2 (a0 + s^2 (a1 + ...)) on s^2 <= 1/9, largest error 5e-9.
_ATANH = (_F(0.33333207), _F(0.20010847), _F(0.13999591), _F(0.14012207))

inline = njit(forceinline=True, error_model="numpy", fastmath={"contract"})
"""Compile a function that is copied into those that call it.

References to an array are counted at such a call too, where the compiler does not see that it may
leave that out; once per token this costs a third of the time. So give it vectors, not arrays, in
loops that do little else.
"""


def compiled(
    signature: str, *, parallel: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compile at the first call; keep the machine code where there is a folder to keep it in."""

    def wrap(function: Callable[..., None]) -> Callable[..., None]:
        @cache
        def machine_code() -> Callable[..., None]:
            options = {"error_model": "numpy", "fastmath": {"contract"}, "parallel": parallel}
            try:
                return njit(signature, cache=True, **options)(function)
            except RuntimeError:
                return njit(signature, **options)(function)

        @wraps(function)
        def run(*args: Any) -> None:  # noqa: ANN401
            machine_code()(*args)

        return run

    return wrap


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name="lanes")


_lanes = _Lanes()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:  # noqa: ANN401
        super().__init__(manager, kind, _LANES)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_LANES, [float(_F(value))] * WIDTH)


def _whole(value: int) -> ir.Constant:
    return ir.Constant(_BITS, [value] * WIDTH)


def _pick(builder: Any, a: Any, b: Any, places: list[int]) -> Any:  # noqa: ANN401
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT, len(places)), places))


def _spread(context: Any, builder: Any, value: Any, kind: Any) -> Any:  # noqa: ANN401
    """Return a vector as it is and a number in every place of a vector."""
    if isinstance(kind, _Lanes):
        return value
    number = context.cast(builder, value, kind, types.float32)
    undefined = ir.Constant(_LANES, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, undefined, _whole(0))


def _call(builder: Any, name: str, arguments: list[Any], result: Any) -> Any:  # noqa: ANN401
    kind = ir.FunctionType(result, [value.type for value in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, arguments)


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:  # noqa: ANN401
    return _call(builder, f"llvm.fmuladd.v{WIDTH}f32", [a, b, c], _LANES)


def _define(operation: Callable[..., Any], name: str) -> None:
    """Teach numba one operator on vectors, and on a vector and a number."""

    @templates.infer_global(operation)
    class Template(templates.AbstractTemplate):
        def generic(self, args: tuple[Any, ...], kws: dict[str, Any]) -> Any:  # noqa: ANN401
            mixed = len(args) == 2 and any(isinstance(kind, _Lanes) for kind in args)
            if mixed and all(isinstance(kind, (_Lanes, types.Float)) for kind in args):
                return templates.signature(_lanes, *args)
            return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ANN401
        pairs = zip(args, sig.args, strict=True)
        return getattr(builder, name)(*(_spread(context, builder, *pair) for pair in pairs))

    for kinds in ((_Lanes, _Lanes), (_Lanes, types.Float), (types.Float, _Lanes)):
        lower_builtin(operation, *kinds)(lower)


for _operation, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define(_operation, _name)


def _address(context: Any, builder: Any, sig: Any, args: Any, kind: Any) -> Any:  # noqa: ANN401
    """Pointer to the vector that starts at an index; the last axis must be without gaps."""
    array = arrayobj.make_array(sig.args[0])(context, builder, args[0])
    steps = cgutils.unpack_tuple(builder, array.strides)[:-1]
    steps.append(ir.Constant(array.strides.type.element, 4))
    places = cgutils.unpack_tuple(builder, args[1])
    offset = ir.Constant(steps[0].type, 0)
    for place, found, step in zip(places, sig.args[1], steps, strict=True):
        index = context.cast(builder, place, found, types.intp)
        offset = builder.add(offset, builder.mul(index, step))
    start = builder.bitcast(array.data, ir.IntType(8).as_pointer())
    return cgutils.pointer_add(builder, start, offset, kind.as_pointer())


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:  # noqa: ANN401
    """Return the vector of a float32 array that starts at an index, one number per axis."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.load(_address(context, builder, sig, args, _LANES), align=4)

    return _lanes(array, index), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:  # noqa: ANN401
    """Write a vector, or a number 16 times, from an index of a float32 array on."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ANN401
        lanes = _spread(context, builder, args[2], sig.args[2])
        builder.store(lanes, _address(context, builder, sig, args, _LANES), align=4)
        return context.get_dummy_value()

    return types.void(array, index, value), generate


@intrinsic
def splat(typing: Any, number: Any) -> Any:  # noqa: ANN401
    """Return a vector of one number."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ANN401
        return _spread(context, builder, args[0], sig.args[0])

    return _lanes(number), generate


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:  # noqa: ANN401
    """Return a * b + c, rounded once where the machine can; each a vector or a number."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ANN401
        pairs = zip(args, sig.args, strict=True)
        return _multiply_add(builder, *(_spread(context, builder, *pair) for pair in pairs))

    return _lanes(a, b, c), generate


@intrinsic
def exp2(typing: Any, x: Any) -> Any:  # noqa: ANN401
    """Return 2^x: relative error below 3e-7, 2^-126 below there, inf from 128 on.

    A NaN whose lowest nine bits are zero, as all made by arithmetic, stays a NaN.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ANN401
        low, high, magic = _constant(_LOW), _constant(_HIGH), _constant(_MAGIC)
        x = builder.select(builder.fcmp_ordered("<", args[0], low), low, args[0])
        x = builder.select(builder.fcmp_ordered(">", x, high), high, x)
        shifted = builder.fadd(x, magic)
        rest = builder.fsub(x, builder.fsub(shifted, magic))
        factor = _constant(_EXP2[-1])
        for coefficient in _EXP2[-2::-1]:
            factor = _multiply_add(builder, factor, rest, _constant(coefficient))
        # Adding the integer to the exponent multiplies by its power of two.
        power = builder.shl(builder.bitcast(shifted, _BITS), _whole(23))
        return builder.bitcast(builder.add(builder.bitcast(factor, _BITS), power), _LANES)

    return _lanes(x), generate


@intrinsic
def _minus_magnitude(typing: Any, x: Any) -> Any:  # noqa: ANN401
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ANN401
        sign = _whole(-(2**31))
        return builder.bitcast(builder.or_(builder.bitcast(args[0], _BITS), sign), _LANES)

    return _lanes(x), generate


@intrinsic
def _if_negative(typing: Any, x: Any, then: Any, otherwise: Any) -> Any:  # noqa: ANN401
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ANN401
        pairs = zip(args[1:], sig.args[1:], strict=True)
        then, otherwise = (_spread(context, builder, *pair) for pair in pairs)
        negative = builder.fcmp_ordered("<", args[0], _constant(0.0))
        return builder.select(negative, then, otherwise)

    return _lanes(x, then, otherwise), generate


@inline
def sigmoid(x: Lanes) -> Lanes:
    """Return 1 / (1 + exp(-x))."""
    small = exp2(_minus_magnitude(x) * _LOG2E)
    return _if_negative(x, small, _F(1)) / (small + _F(1))


@inline
def softplus(x: Lanes) -> tuple[Lanes, Lanes]:
    """Return log(1 + exp(x)), exact relative to its value, and its derivative."""
    small = exp2(_minus_magnitude(x) * _LOG2E)
    # log(1 + w) = 2 atanh(w / (2 + w)).
    s = small / (small + _F(2))
    q = s * s
    p = fma(fma(fma(fma(_ATANH[3], q, _ATANH[2]), q, _ATANH[1]), q, _ATANH[0]), q, _F(1))
    value = fma(s + s, p, _if_negative(x, _F(0), x))
    return value, _if_negative(x, small, _F(1)) / (small + _F(1))


@intrinsic
def total(typing: Any, x: Any) -> Any:  # noqa: ANN401
    """Return the sum of the numbers of a vector."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ANN401
        value, width = args[0], WIDTH
        while width > 1:
            half = width // 2
            low = _pick(builder, value, value, list(range(half)))
            value = builder.fadd(low, _pick(builder, value, value, list(range(half, width))))
            width = half
        return builder.extract_element(value, ir.Constant(_INT, 0))

    return types.float32(x), generate


def _interleaved_sum(builder: Any, a: Any, b: Any, group: int) -> Any:  # noqa: ANN401
    """Add neighbours in four parts of four: `group` numbers of a, as many of b, and so on."""
    low, high = [], []
    for start in range(0, WIDTH, 4):
        for part in range(start, start + 2, group):
            for source in (0, WIDTH):
                low += [source + part + i for i in range(group)]
                high += [source + part + 2 + i for i in range(group)]
    return builder.fadd(_pick(builder, a, b, low), _pick(builder, a, b, high))


@intrinsic
def add_sums(typing: Any, array: Any, index: Any, a: Any, b: Any, c: Any, d: Any) -> Any:  # noqa: ANN401
    """Add the sums of four vectors to four neighbours of an array, from an index on.

    Four at once take less than half the shuffles of one after the other.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ANN401
        ab = _interleaved_sum(builder, args[2], args[3], 1)
        cd = _interleaved_sum(builder, args[4], args[5], 1)
        value, width = _interleaved_sum(builder, ab, cd, 2), WIDTH
        while width > 4:
            half = width // 2
            low = _pick(builder, value, value, list(range(half)))
            value = builder.fadd(low, _pick(builder, value, value, list(range(half, width))))
            width = half
        place = _address(context, builder, sig, args, _FOUR)
        builder.store(builder.fadd(builder.load(place, align=4), value), place, align=4)
        return context.get_dummy_value()

    return types.void(array, index, a, b, c, d), generate


@inline
def scratch(rows: int, columns: int) -> NDArray[np.float32]:
    """Return an uninitialised (rows, columns) array of whole, aligned vectors."""
    room = np.empty(rows * columns + WIDTH, _F)
    first = (-(room.ctypes.data // 4)) % WIDTH
    return room[first : first + rows * columns].reshape((rows, columns))
