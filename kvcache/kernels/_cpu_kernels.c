/* Tokens moved on a CPU: rows are copied in one pass, and the correction is added on the way.
 *
 * torch needs three operations for that. Each goes through its dispatcher, and two read and write all of the memory.
 * Memory is given by the addresses of torch's tensors (cpu.py), so neither NumPy nor torch is needed to build this.
 * Row numbers are checked before anything is written.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#ifdef Py_GIL_DISABLED
#error "kvcache does not run on free-threaded Python: see setup.py"
#endif

enum { NULL_PAGE = 1 }; /* as in kvcache/kernels/base.py; a test compares them */

/* All arguments are ints: addresses, counts and bytes. */
static int take_in(const char *name, PyObject *const *args, Py_ssize_t given, Py_ssize_t wanted, int64_t *numbers) {
    if (given != wanted) {
        PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, got %zd", name, wanted, given);
        return -1;
    }
    for (Py_ssize_t i = 0; i < wanted; i++) {
        numbers[i] = (int64_t)PyLong_AsUnsignedLongLong(args[i]);
        if (numbers[i] == -1 && PyErr_Occurred()) return -1;
    }
    return 0;
}

/* Rows of so many bytes are in memory: their number of bytes is one of a pointer's differences. */
static int are_in_memory(int64_t rows, int64_t row_bytes) {
    if (rows >= 0 && row_bytes >= 0 && (!row_bytes || rows <= PTRDIFF_MAX / row_bytes)) return 0;
    PyErr_Format(PyExc_ValueError, "there is no memory of %lld rows of %lld bytes", (long long)rows,
                 (long long)row_bytes);
    return -1;
}

static int are_rows(const int64_t *index, int64_t count, int64_t rows) {
    for (int64_t i = 0; i < count; i++) {
        if (index[i] < 0 || index[i] >= rows) {
            PyErr_Format(PyExc_IndexError, "row %lld is not in 0..%lld", (long long)index[i], (long long)rows - 1);
            return -1;
        }
    }
    return 0;
}

/* out[i] = pool[index[i]] */
static PyObject *gather(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[6];
    if (take_in("gather", args, given, 6, n)) return NULL;
    const char *pool = (const char *)(intptr_t)n[0];
    const int64_t *index = (const int64_t *)(intptr_t)n[2];
    char *out = (char *)(intptr_t)n[4];
    int64_t rows = n[1], count = n[3], bytes = n[5];
    if (are_in_memory(rows, bytes) || are_in_memory(count, bytes) || are_rows(index, count, rows)) return NULL;
    for (int64_t i = 0; i < count; i++) memcpy(out + i * bytes, pool + index[i] * bytes, (size_t)bytes);
    Py_RETURN_NONE;
}

static void add(float *out, const float *row, const float *shift, int64_t width) {
    for (int64_t i = 0; i < width; i++) out[i] = row[i] + shift[i];
}

/* out[i] = pool[index[i]] + shifts[shift_index[i / sharing]], of float32 */
static PyObject *gather_shifted(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[10];
    if (take_in("gather_shifted", args, given, 10, n)) return NULL;
    const float *pool = (const float *)(intptr_t)n[0];
    const int64_t *index = (const int64_t *)(intptr_t)n[2];
    float *out = (float *)(intptr_t)n[4];
    const float *shifts = (const float *)(intptr_t)n[6];
    const int64_t *shift_index = (const int64_t *)(intptr_t)n[8];
    int64_t rows = n[1], count = n[3], width = n[5], shift_rows = n[7], sharing = n[9];
    if (count && sharing < 1) return PyErr_Format(PyExc_ValueError, "sharing must be positive");
    if (width < 0 || width > PTRDIFF_MAX / (int64_t)sizeof(float))
        return PyErr_Format(PyExc_ValueError, "there is no memory of rows of %lld numbers", (long long)width);
    int64_t bytes = width * (int64_t)sizeof(float);
    if (are_in_memory(rows, bytes) || are_in_memory(count, bytes) || are_in_memory(shift_rows, bytes)) return NULL;
    if (are_rows(index, count, rows) || (count && are_rows(shift_index, (count - 1) / sharing + 1, shift_rows)))
        return NULL;
    for (int64_t i = 0; i < count; i++)
        add(out + i * width, pool + index[i] * width, shifts + shift_index[i / sharing] * width, width);
    Py_RETURN_NONE;
}

/* pool[index[i]] = source[i]; what goes to NULL_PAGE is not written */
static PyObject *scatter(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[6];
    if (take_in("scatter", args, given, 6, n)) return NULL;
    char *pool = (char *)(intptr_t)n[0];
    const int64_t *index = (const int64_t *)(intptr_t)n[2];
    const char *source = (const char *)(intptr_t)n[4];
    int64_t rows = n[1], count = n[3], bytes = n[5];
    if (are_in_memory(rows, bytes) || are_in_memory(count, bytes) || are_rows(index, count, rows)) return NULL;
    for (int64_t i = 0; i < count; i++)
        if (index[i] != NULL_PAGE) memcpy(pool + index[i] * bytes, source + i * bytes, (size_t)bytes);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"gather", (PyCFunction)(void (*)(void))gather, METH_FASTCALL,
     "gather(pool, rows, index, count, out, row_bytes)"},
    {"gather_shifted", (PyCFunction)(void (*)(void))gather_shifted, METH_FASTCALL,
     "gather_shifted(pool, rows, index, count, out, width, shifts, shift_rows, shift_index, sharing)"},
    {"scatter", (PyCFunction)(void (*)(void))scatter, METH_FASTCALL,
     "scatter(pool, rows, index, count, source, row_bytes)"},
    {NULL, NULL, 0, NULL},
};

static int fill(PyObject *module) { return PyModule_AddIntConstant(module, "NULL_PAGE", NULL_PAGE); }

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_cpu_kernels", .m_doc = "Tokens moved on a CPU: see kvcache.kernels.cpu.",
    .m_methods = functions, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__cpu_kernels(void) { return PyModuleDef_Init(&definition); }
