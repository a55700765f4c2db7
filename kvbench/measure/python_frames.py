"""Python functions that callgrind can tell apart.

The interpreter runs all of them by one C function, and callgrind shows that one only. Here each gets a C function of
its own around it (PEP 523), and a list says which is whose. ``python -X perf`` does this from Python 3.12 on.
"""

from __future__ import annotations

import ctypes
import re
import sysconfig
from collections.abc import Collection, Mapping
from pathlib import Path
from types import CodeType
from typing import Any

from kvbench.measure.instructions import compile_library

__all__ = ["MOST", "PREFIX", "PythonFrames", "build_frames", "describe_code"]

PREFIX = "python_function_"
MOST = 4000  # functions; those beyond share the last name

_SOURCE = """
#include <Python.h>

typedef struct _PyInterpreterFrame Frame;
typedef PyObject *(*Evaluate)(PyThreadState *, Frame *, int);
extern PyObject *_PyEval_EvalFrameDefault(PyThreadState *, Frame *, int);
extern void _PyInterpreterState_SetEvalFrameFunc(PyInterpreterState *, Evaluate);
#if PY_VERSION_HEX >= 0x030C0000
#define get_extra PyUnstable_Code_GetExtra
#define set_extra PyUnstable_Code_SetExtra
#define request_index PyUnstable_Eval_RequestCodeExtraIndex
extern PyObject *PyUnstable_InterpreterFrame_GetCode(Frame *);
#else
#define get_extra _PyCode_GetExtra
#define set_extra _PyCode_SetExtra
#define request_index _PyEval_RequestCodeExtraIndex
#endif

static PyObject *codes;
static Py_ssize_t place;

/* What follows the call is different in each: none is merged with another one, and none is left by a jump. */
#define NAMED(number) static __attribute__((noinline)) PyObject * \\
    PREFIX##number(PyThreadState *thread, Frame *frame, int throws) { \\
        PyObject *result = _PyEval_EvalFrameDefault(thread, frame, throws); \\
        __asm__ volatile("" : : "i"(number)); \\
        return result; \\
    }
{functions}
static Evaluate const named[] = {{names}};
#define MOST ((Py_ssize_t)(sizeof named / sizeof *named))

static PyObject *evaluate(PyThreadState *thread, Frame *frame, int throws) {
#if PY_VERSION_HEX >= 0x030C0000
    PyObject *code = PyUnstable_InterpreterFrame_GetCode(frame);
    Py_DECREF(code);  /* the frame has it */
#else
    PyObject *code = ((PyObject **)frame)[4];  /* f_code of Python 3.11 */
#endif
    void *known = NULL;
    get_extra(code, place, &known);
    if (known == NULL) {
        Py_ssize_t number = PyList_GET_SIZE(codes);
        if (number < MOST - 1 && PyList_Append(codes, code) < 0) return NULL;
        known = (void *)named[number < MOST - 1 ? number : MOST - 1];
        set_extra(code, place, known);
    }
    return ((Evaluate)known)(thread, frame, throws);
}

void name_frames(PyObject *list) {
    Py_INCREF(list);
    codes = list;
    place = request_index(NULL);
    _PyInterpreterState_SetEvalFrameFunc(PyInterpreterState_Get(), evaluate);
}
"""


def build_frames(folder: Path, environment: Mapping[str, str] | None = None) -> Path:
    """Compile, in ``folder``, what names frames. Raises NotCountedError: the compiler failed."""
    source = _SOURCE.replace("PREFIX", PREFIX)
    source = source.replace("{functions}", "\n".join(f"NAMED({number})" for number in range(MOST)))
    source = source.replace("{names}", ", ".join(f"{PREFIX}{number}" for number in range(MOST)))
    return compile_library(folder / "frames.c", source, [Path(sysconfig.get_paths()["include"])], environment)


class PythonFrames:
    """From now on, and until this process ends, each Python function has a C function of its own."""

    def __init__(self, library: Path) -> None:
        self._codes: list[CodeType] = []
        self._library = ctypes.PyDLL(str(library))
        self._library.name_frames.argtypes, self._library.name_frames.restype = [ctypes.py_object], None
        self._library.name_frames(self._codes)

    def names(self, roots: Collection[str]) -> list[str]:
        """The Python functions by their numbers. A file's name begins behind the one of ``roots`` that it is in."""
        return [describe_code(code, roots) for code in self._codes]


def describe_code(code: Any, roots: Collection[str]) -> str:
    """Without its line: that moves when something before it changes."""
    file = str(code.co_filename)
    for root in roots:
        file = file.removeprefix(f"{root}/")
    return f"{code.co_qualname} ({re.sub(r'^.*/(site-packages|lib/python[0-9.]+)/', '', file)})"
