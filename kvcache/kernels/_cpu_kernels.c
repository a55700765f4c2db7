/* Tokens moved on a CPU in one pass: rows of a pool become tokens of a batch's heads, and are corrected on the way.
 *
 * torch needs up to four operations for that. Each goes through its dispatcher, and reads and writes all of the memory.
 * Memory is given by the addresses of torch's tensors (cpu.py), so neither NumPy nor torch is needed to build this.
 * Row numbers and places are checked before anything is written.
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

/* A batch [C, B, H, T, D]: the keys and values of all layers are its kinds C. A token of a row has a place,
 * t x B + b. Tokens i = 0, 1, ... are at places[i]; without places at first x B + i. */
typedef struct {
    char *memory;
    int64_t kinds, rows, heads, tokens, bytes; /* C, B, H, T; bytes of D elements */
    const int64_t *places;
    int64_t first;
} Batch;

enum { BATCH = 8 }; /* numbers that describe one */

static Batch batch_of(const int64_t *n) {
    Batch batch = {(char *)(intptr_t)n[0], n[1], n[2], n[3], n[4], n[5], (const int64_t *)(intptr_t)n[6], n[7]};
    return batch;
}

/* Raises unless the batch has those places, and all of it and of the pool can be in memory. */
static int can_move(const Batch *batch, int64_t count, int64_t pool_rows) {
    if (are_in_memory(batch->kinds, batch->heads) || are_in_memory(batch->rows, batch->tokens)) return -1;
    int64_t kinds_heads = batch->kinds * batch->heads, places = batch->rows * batch->tokens;
    if (are_in_memory(kinds_heads, batch->bytes)) return -1;
    int64_t row_bytes = kinds_heads * batch->bytes;
    if (are_in_memory(places, row_bytes) || are_in_memory(pool_rows, row_bytes) || are_in_memory(count, row_bytes))
        return -1;
    if (batch->places) return are_rows(batch->places, count, places);
    if (batch->first < 0 || batch->first > batch->tokens || count > places - batch->first * batch->rows) {
        PyErr_Format(PyExc_IndexError, "%lld tokens of %lld rows, from %lld on, are not in 0..%lld", (long long)count,
                     (long long)batch->rows, (long long)batch->first, (long long)batch->tokens - 1);
        return -1;
    }
    return 0;
}

/* The token to be moved as number n: row by row where that is possible, so that what is written is consecutive. */
static int64_t in_order(const Batch *batch, int64_t count, int64_t n) {
    if (batch->places || count % batch->rows) return n;
    int64_t tokens = count / batch->rows;
    return n % tokens * batch->rows + n / tokens;
}

/* Where token i of a batch's first head begins; further heads are next_head behind each other. */
static char *begin(const Batch *batch, int64_t i) {
    int64_t place = batch->places ? batch->places[i] : batch->first * batch->rows + i;
    return batch->memory + (place % batch->rows * batch->heads * batch->tokens + place / batch->rows) * batch->bytes;
}

static int64_t next_head(const Batch *batch) { return batch->tokens * batch->bytes; }

static int64_t next_kind(const Batch *batch) { return batch->rows * batch->heads * next_head(batch); }

/* batch[:, b_i, :, t_i] = pool[index[i]] */
static PyObject *gather(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[4 + BATCH];
    if (take_in("gather", args, given, 4 + BATCH, n)) return NULL;
    const char *pool = (const char *)(intptr_t)n[0];
    const int64_t *index = (const int64_t *)(intptr_t)n[2];
    int64_t rows = n[1], count = n[3];
    Batch batch = batch_of(n + 4);
    if (can_move(&batch, count, rows) || are_rows(index, count, rows)) return NULL;
    for (int64_t token = 0; token < count; token++) {
        int64_t i = in_order(&batch, count, token);
        const char *from = pool + index[i] * batch.kinds * batch.heads * batch.bytes;
        char *to = begin(&batch, i);
        for (int64_t kind = 0; kind < batch.kinds; kind++, to += next_kind(&batch))
            for (int64_t head = 0; head < batch.heads; head++, from += batch.bytes)
                memcpy(to + head * next_head(&batch), from, (size_t)batch.bytes);
    }
    Py_RETURN_NONE;
}

/* As many copies as there are kinds of processors; which one runs is chosen when this is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && (defined(__clang__) ? __clang_major__ >= 14 : defined(__GNUC__))
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

/* A token's heads, each D elements of some type. */
#define ADD(TYPE)                                                                                              \
    FOR_EACH_PROCESSOR static void add_##TYPE(const Batch *batch, char *to, const char *row, const char *shift) { \
        const TYPE *tokens = (const TYPE *)row, *shifts = (const TYPE *)shift;                                 \
        int64_t width = batch->bytes / (int64_t)sizeof(TYPE);                                                  \
        for (int64_t kind = 0; kind < batch->kinds; kind++, to += next_kind(batch))                            \
            for (int64_t head = 0; head < batch->heads; head++, tokens += width, shifts += width) {            \
                TYPE *out = (TYPE *)(to + head * next_head(batch));                                            \
                for (int64_t i = 0; i < width; i++) out[i] = tokens[i] + shifts[i];                            \
            }                                                                                                  \
    }
ADD(float)
ADD(double)

/* batch[:, b_i, :, t_i] = pool[index[i]] + shifts[shift_index[i / sharing]], of floats or doubles */
static PyObject *gather_shifted(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[9 + BATCH];
    if (take_in("gather_shifted", args, given, 9 + BATCH, n)) return NULL;
    const char *pool = (const char *)(intptr_t)n[0], *shifts = (const char *)(intptr_t)n[4];
    const int64_t *index = (const int64_t *)(intptr_t)n[2], *shift_index = (const int64_t *)(intptr_t)n[6];
    int64_t rows = n[1], count = n[3], shift_rows = n[5], sharing = n[7], item = n[8];
    Batch batch = batch_of(n + 9);
    if (count && sharing < 1) return PyErr_Format(PyExc_ValueError, "sharing must be positive");
    if (item != sizeof(float) && item != sizeof(double))
        return PyErr_Format(PyExc_ValueError, "elements of %lld bytes cannot be added", (long long)item);
    if (can_move(&batch, count, rows) || are_rows(index, count, rows)) return NULL;
    if (are_in_memory(shift_rows, batch.kinds * batch.heads * batch.bytes)) return NULL;
    if (count && are_rows(shift_index, (count - 1) / sharing + 1, shift_rows)) return NULL;
    void (*add)(const Batch *, char *, const char *, const char *) = item == sizeof(float) ? add_float : add_double;
    int64_t width = batch.kinds * batch.heads * batch.bytes;
    for (int64_t token = 0; token < count; token++) {
        int64_t i = in_order(&batch, count, token);
        add(&batch, begin(&batch, i), pool + index[i] * width, shifts + shift_index[i / sharing] * width);
    }
    Py_RETURN_NONE;
}

/* pool[index[i]] = batch[:, b_i, :, t_i]; what goes to NULL_PAGE is not written */
static PyObject *scatter(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[4 + BATCH];
    if (take_in("scatter", args, given, 4 + BATCH, n)) return NULL;
    char *pool = (char *)(intptr_t)n[0];
    const int64_t *index = (const int64_t *)(intptr_t)n[2];
    int64_t rows = n[1], count = n[3];
    Batch batch = batch_of(n + 4);
    if (can_move(&batch, count, rows) || are_rows(index, count, rows)) return NULL;
    for (int64_t token = 0; token < count; token++) {
        int64_t i = in_order(&batch, count, token);
        if (index[i] == NULL_PAGE) continue;
        char *to = pool + index[i] * batch.kinds * batch.heads * batch.bytes;
        const char *from = begin(&batch, i);
        for (int64_t kind = 0; kind < batch.kinds; kind++, from += next_kind(&batch))
            for (int64_t head = 0; head < batch.heads; head++, to += batch.bytes)
                memcpy(to, from + head * next_head(&batch), (size_t)batch.bytes);
    }
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"gather", (PyCFunction)(void (*)(void))gather, METH_FASTCALL,
     "gather(pool, rows, index, count, *batch)"},
    {"gather_shifted", (PyCFunction)(void (*)(void))gather_shifted, METH_FASTCALL,
     "gather_shifted(pool, rows, index, count, shifts, shift_rows, shift_index, sharing, item_bytes, *batch)"},
    {"scatter", (PyCFunction)(void (*)(void))scatter, METH_FASTCALL,
     "scatter(pool, rows, index, count, *batch)"},
    {NULL, NULL, 0, NULL},
};

static int fill(PyObject *module) { return PyModule_AddIntConstant(module, "NULL_PAGE", NULL_PAGE); }

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_cpu_kernels", .m_doc = "Tokens moved on a CPU: see kvcache.kernels.cpu.",
    .m_methods = functions, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__cpu_kernels(void) { return PyModuleDef_Init(&definition); }
