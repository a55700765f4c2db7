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
#ifdef __linux__
#include <sys/mman.h>
#endif
#ifndef _WIN32
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#define HAS_THREADS
#endif
#include "_cpu_moves.h"

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
    if (batch->first < 0 || batch->first > batch->tokens || count > places - batch->first * batch->rows ||
        (count && count % batch->rows)) {
        PyErr_Format(PyExc_IndexError, "%lld tokens of %lld rows, from %lld on, are not in 0..%lld", (long long)count,
                     (long long)batch->rows, (long long)batch->first, (long long)batch->tokens - 1);
        return -1;
    }
    return 0;
}

/* Tokens of a pool, for a batch; their shifts, if any, are shifts[shift_index[i / sharing]]. Or tokens of a batch for a
 * pool that is written, one by one. */
typedef struct {
    Batch batch;
    char *pool;
    int is_written;
    const int64_t *index;
    int64_t count;
    const char *shifts;
    const int64_t *shift_index;
    int64_t sharing;
} Tokens;

/* Moves tokens i, i + step, ..., which are consecutive in a row. */
static void move_run(const Tokens *tokens, Move move, int64_t i, int64_t step, int64_t count) {
    if (tokens->is_written && tokens->index[i] == NULL_PAGE) return;
    Run run = {.batch = begin(&tokens->batch, i), .count = count};
    int64_t bytes = token_bytes(&tokens->batch);
    for (int64_t n = 0; n < count; n++, i += step) {
        run.rows[n] = tokens->pool + tokens->index[i] * bytes;
        run.shifts[n] = tokens->shifts ? tokens->shifts + tokens->shift_index[i / tokens->sharing] * bytes : run.rows[n];
    }
    move(&tokens->batch, &run);
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

enum { PARTS = 16 };

/* One of the parts that all tokens are moved in: a row of the batch or, of tokens that have places, some of them. */
static int64_t parts_of(const Tokens *tokens) { return tokens->batch.places ? PARTS : tokens->batch.rows; }

static void move_part(const Tokens *tokens, Move move, int64_t part) {
    const int64_t *places = tokens->batch.places;
    int64_t rows = tokens->batch.rows, length = tokens->count / rows, longest = tokens->is_written ? 1 : LONGEST_RUN;
    if (!places) {
        for (int64_t i = 0; i < length; i += longest)
            move_run(tokens, move, i * rows + part, rows, least(longest, length - i));
    } else {
        int64_t end = tokens->count * (part + 1) / PARTS;
        for (int64_t i = tokens->count * part / PARTS, next; i < end; i = next) {
            for (next = i + 1; next < least(i + longest, end) && places[next] == places[next - 1] + rows;) next++;
            move_run(tokens, move, i, 1, next - i);
        }
    }
    end_streams();
}

#ifdef HAS_THREADS
/* What threads share. Whoever is free takes the next part. The calling thread waits for parts that were taken, not for
 * threads: on a busy machine one may start when all is done. The last one frees it. */
typedef struct {
    Tokens tokens;
    Move move;
    int64_t parts;
    atomic_int_fast64_t taken, done, threads;
} Shared;

static void move_parts(Shared *shared) {
    for (int64_t part; (part = atomic_fetch_add(&shared->taken, 1)) < shared->parts; atomic_fetch_add(&shared->done, 1))
        move_part(&shared->tokens, shared->move, part);
}

static void leave(Shared *shared) {
    if (atomic_fetch_sub(&shared->threads, 1) == 1) free(shared);
}

static void *help(void *shared) {
    move_parts(shared);
    leave(shared);
    return NULL;
}

/* Whether threads moved all tokens. */
static int share(const Tokens *tokens, Move move, int64_t threads) {
    Shared *shared = malloc(sizeof(Shared));
    if (!shared) return 0;
    *shared = (Shared){*tokens, move, parts_of(tokens)};
    atomic_init(&shared->threads, 1);
    for (int64_t n = 1; n < least(threads, shared->parts); n++) {
        pthread_t thread;
        atomic_fetch_add(&shared->threads, 1);
        if (pthread_create(&thread, NULL, help, shared)) leave(shared);
        else pthread_detach(thread);
    }
    move_parts(shared);
    while (atomic_load(&shared->done) < shared->parts) sched_yield();
    leave(shared);
    return 1;
}
#else
static int share(const Tokens *tokens, Move move, int64_t threads) { return 0; }
#endif

static void move_tokens(const Tokens *tokens, Move move, int64_t threads) {
    if (threads > 1 && share(tokens, move, threads)) return;
    for (int64_t part = 0; part < parts_of(tokens); part++) move_part(tokens, move, part);
}

/* batch[:, b_i, :, t_i] = pool[index[i]] */
static PyObject *gather(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[5 + BATCH];
    if (take_in("gather", args, given, 5 + BATCH, n)) return NULL;
    Tokens tokens = {batch_of(n + 5), (char *)(intptr_t)n[0], 0, (const int64_t *)(intptr_t)n[2], n[3]};
    if (can_move(&tokens.batch, n[3], n[1]) || are_rows(tokens.index, n[3], n[1])) return NULL;
    if (n[3])
        move_tokens(&tokens, streams(&tokens.batch, n[3], tokens.batch.memory) ? gather_stream : gather_copy, n[4]);
    Py_RETURN_NONE;
}

/* batch[:, b_i, :, t_i] = pool[index[i]] + shifts[shift_index[i / sharing]], all of one type */
static PyObject *gather_shifted(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[10 + BATCH];
    if (take_in("gather_shifted", args, given, 10 + BATCH, n)) return NULL;
    int64_t count = n[3], shift_rows = n[6], sharing = n[8], type = n[9];
    Tokens tokens = {batch_of(n + 10), (char *)(intptr_t)n[0], 0, (const int64_t *)(intptr_t)n[2], count,
                     (const char *)(intptr_t)n[5], (const int64_t *)(intptr_t)n[7], sharing};
    if (count && sharing < 1) return PyErr_Format(PyExc_ValueError, "sharing must be positive");
    if (type < 0 || type >= (adds_halves() ? TYPES : BFLOAT16))
        return PyErr_Format(PyExc_ValueError, "elements of type %lld cannot be added here", (long long)type);
    if (can_move(&tokens.batch, count, n[1]) || are_rows(tokens.index, count, n[1])) return NULL;
    if (are_in_memory(shift_rows, token_bytes(&tokens.batch))) return NULL;
    if (count && are_rows(tokens.shift_index, (count - 1) / sharing + 1, shift_rows)) return NULL;
    if (count) move_tokens(&tokens, gather_added[type][streams(&tokens.batch, count, tokens.batch.memory)], n[4]);
    Py_RETURN_NONE;
}

/* pool[index[i]] = batch[:, b_i, :, t_i]; what goes to NULL_PAGE is not written */
static PyObject *scatter(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[5 + BATCH];
    if (take_in("scatter", args, given, 5 + BATCH, n)) return NULL;
    Tokens tokens = {batch_of(n + 5), (char *)(intptr_t)n[0], 1, (const int64_t *)(intptr_t)n[2], n[3]};
    if (can_move(&tokens.batch, n[3], n[1]) || are_rows(tokens.index, n[3], n[1])) return NULL;
    if (n[3]) move_tokens(&tokens, streams(&tokens.batch, n[3], tokens.pool) ? scatter_stream : scatter_copy, n[4]);
    Py_RETURN_NONE;
}

enum { HUGE_PAGE = 2 << 20 };

/* Asks for huge pages within this memory. It is advice: a system without them does nothing. */
static PyObject *prefer_huge_pages(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[2];
    if (take_in("prefer_huge_pages", args, given, 2, n)) return NULL;
#ifdef MADV_HUGEPAGE
    uint64_t begin = ((uint64_t)n[0] + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    uint64_t end = ((uint64_t)n[0] + (uint64_t)n[1]) / HUGE_PAGE * HUGE_PAGE;
    if (begin < end) madvise((void *)(uintptr_t)begin, (size_t)(end - begin), MADV_HUGEPAGE);
#endif
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"gather", (PyCFunction)(void (*)(void))gather, METH_FASTCALL,
     "gather(pool, rows, index, count, threads, *batch)"},
    {"gather_shifted", (PyCFunction)(void (*)(void))gather_shifted, METH_FASTCALL,
     "gather_shifted(pool, rows, index, count, threads, shifts, shift_rows, shift_index, sharing, type, *batch)"},
    {"scatter", (PyCFunction)(void (*)(void))scatter, METH_FASTCALL,
     "scatter(pool, rows, index, count, threads, *batch)"},
    {"prefer_huge_pages", (PyCFunction)(void (*)(void))prefer_huge_pages, METH_FASTCALL,
     "prefer_huge_pages(address, nbytes)"},
    {NULL, NULL, 0, NULL},
};

static int fill(PyObject *module) {
    return PyModule_AddIntConstant(module, "NULL_PAGE", NULL_PAGE) ||
                   PyModule_AddIntConstant(module, "FLOAT", FLOAT) ||
                   PyModule_AddIntConstant(module, "DOUBLE", DOUBLE) ||
                   PyModule_AddIntConstant(module, "BFLOAT16", BFLOAT16) ||
                   PyModule_AddIntConstant(module, "FLOAT16", FLOAT16) ||
                   PyModule_AddIntConstant(module, "ADDS_HALVES", adds_halves())
               ? -1
               : 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_cpu_kernels", .m_doc = "Tokens moved on a CPU: see kvcache.kernels.cpu.",
    .m_methods = functions, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__cpu_kernels(void) { return PyModuleDef_Init(&definition); }
