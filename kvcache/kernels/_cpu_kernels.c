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

/* As many copies as there are kinds of processors; which one runs is chosen when this is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && (defined(__clang__) ? __clang_major__ >= 14 : defined(__GNUC__))
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

/* Stores past the caches; whether the processor has them is asked when they are needed. */
#if defined(__x86_64__) && (defined(__clang__) || defined(__GNUC__))
#include <immintrin.h>
#define HAS_STREAMS
#define STREAMING __attribute__((target("avx")))
#endif

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
    if (batch->first < 0 || batch->first > batch->tokens || count > places - batch->first * batch->rows ||
        (count && count % batch->rows)) {
        PyErr_Format(PyExc_IndexError, "%lld tokens of %lld rows, from %lld on, are not in 0..%lld", (long long)count,
                     (long long)batch->rows, (long long)batch->first, (long long)batch->tokens - 1);
        return -1;
    }
    return 0;
}

/* Where token i of a batch's first head begins; further heads are next_head behind each other. */
static char *begin(const Batch *batch, int64_t i) {
    int64_t place = batch->places ? batch->places[i] : batch->first * batch->rows + i;
    return batch->memory + (place % batch->rows * batch->heads * batch->tokens + place / batch->rows) * batch->bytes;
}

static int64_t next_head(const Batch *batch) { return batch->tokens * batch->bytes; }

static int64_t next_kind(const Batch *batch) { return batch->rows * batch->heads * next_head(batch); }

static int64_t token_bytes(const Batch *batch) { return batch->kinds * batch->heads * batch->bytes; }

/* Consecutive tokens of a row of a batch. Moved together, what is written of each head is consecutive. */
enum { LONGEST_RUN = 4 };

typedef struct {
    char *batch; /* the first token, in the first head */
    char *rows[LONGEST_RUN]; /* of the pool */
    const char *shifts[LONGEST_RUN];
    int64_t count;
} Run;

typedef void (*Move)(const Batch *, const Run *);

/* A function that moves a run. PUT(batch, row, shift, bytes) does so for one head of one token. */
#define MOVE(NAME, PUT)                                                                                           \
    static void NAME(const Batch *batch, const Run *run) {                                                        \
        char *to = run->batch;                                                                                    \
        int64_t at = 0, bytes = batch->bytes;                                                                     \
        for (int64_t kind = 0; kind < batch->kinds; kind++, to += next_kind(batch))                               \
            for (int64_t head = 0; head < batch->heads; head++, at += bytes)                                      \
                for (int64_t n = 0; n < run->count; n++)                                                          \
                    PUT(to + head * next_head(batch) + n * bytes, run->rows[n] + at, run->shifts[n] + at, bytes); \
    }
#define PUT(NAME) static inline void NAME(char *batch, char *row, const char *shift, int64_t bytes)

PUT(copy) { memcpy(batch, row, (size_t)bytes); }
PUT(copy_back) { memcpy(row, batch, (size_t)bytes); }
#define ADD(TYPE)                                                                          \
    PUT(add_##TYPE) {                                                                      \
        for (int64_t i = 0; i < bytes / (int64_t)sizeof(TYPE); i++)                        \
            ((TYPE *)batch)[i] = ((const TYPE *)row)[i] + ((const TYPE *)shift)[i];        \
    }
ADD(float)
ADD(double)

MOVE(gather_copy, copy)
FOR_EACH_PROCESSOR MOVE(gather_float, add_float)
FOR_EACH_PROCESSOR MOVE(gather_double, add_double)
MOVE(scatter_copy, copy_back)

/* From so many bytes on what is written goes past the processor's caches. Otherwise each line is read before it is
 * written, and evicts what is still to be read. With fewer bytes the next reader needs the time that the write saves. */
enum { STREAM_FROM = 8 << 20, LINE = 64 };

#ifdef HAS_STREAMS
#define STREAM(NAME, TO, VALUE)                                                               \
    STREAMING PUT(NAME) {                                                                     \
        for (int64_t i = 0; i < bytes; i += (int64_t)sizeof(__m256))                          \
            _mm256_stream_ps((float *)((TO) + i), VALUE);                                     \
    }
#define FLOATS(FROM) _mm256_loadu_ps((const float *)((FROM) + i))
#define DOUBLES(FROM) _mm256_loadu_pd((const double *)((FROM) + i))
STREAM(stream, batch, FLOATS(row))
STREAM(stream_back, row, FLOATS(batch))
STREAM(stream_float, batch, _mm256_add_ps(FLOATS(row), FLOATS(shift)))
STREAM(stream_double, batch, _mm256_castpd_ps(_mm256_add_pd(DOUBLES(row), DOUBLES(shift))))

STREAMING MOVE(gather_stream, stream)
STREAMING MOVE(gather_stream_float, stream_float)
STREAMING MOVE(gather_stream_double, stream_double)
STREAMING MOVE(scatter_stream, stream_back)

static int streams(const Batch *batch, int64_t count, const char *to) {
    return count * token_bytes(batch) >= STREAM_FROM && batch->bytes % LINE == 0 && (intptr_t)to % LINE == 0 &&
           __builtin_cpu_supports("avx");
}

static void end_streams(void) { _mm_sfence(); }
#else
#define gather_stream gather_copy
#define gather_stream_float gather_float
#define gather_stream_double gather_double
#define scatter_stream scatter_copy

static int streams(const Batch *batch, int64_t count, const char *to) { return 0; }

static void end_streams(void) {}
#endif

/* Tokens of a pool, for a batch; their shifts, if any, are shifts[shift_index[i / sharing]]. */
typedef struct {
    Batch batch;
    char *pool;
    const int64_t *index;
    int64_t count;
    const char *shifts;
    const int64_t *shift_index;
    int64_t sharing;
} Tokens;

/* Moves tokens i, i + step, ..., which are consecutive in a row. */
static void move_run(const Tokens *tokens, Move move, int64_t i, int64_t step, int64_t count) {
    Run run = {.batch = begin(&tokens->batch, i), .count = count};
    int64_t bytes = token_bytes(&tokens->batch);
    for (int64_t n = 0; n < count; n++, i += step) {
        run.rows[n] = tokens->pool + tokens->index[i] * bytes;
        run.shifts[n] = tokens->shifts ? tokens->shifts + tokens->shift_index[i / tokens->sharing] * bytes : run.rows[n];
    }
    move(&tokens->batch, &run);
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Row by row; runs of tokens that have places are found. */
static void gather_tokens(const Tokens *tokens, Move move) {
    const int64_t *places = tokens->batch.places;
    int64_t rows = tokens->batch.rows, length = tokens->count / rows;
    if (places) {
        for (int64_t i = 0, next; i < tokens->count; i = next) {
            for (next = i + 1; next < least(i + LONGEST_RUN, tokens->count) && places[next] == places[next - 1] + rows;)
                next++;
            move_run(tokens, move, i, 1, next - i);
        }
    } else {
        for (int64_t row = 0; row < rows; row++)
            for (int64_t token = 0; token < length; token += LONGEST_RUN)
                move_run(tokens, move, token * rows + row, rows, least(LONGEST_RUN, length - token));
    }
    end_streams();
}

/* batch[:, b_i, :, t_i] = pool[index[i]] */
static PyObject *gather(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[4 + BATCH];
    if (take_in("gather", args, given, 4 + BATCH, n)) return NULL;
    Tokens tokens = {batch_of(n + 4), (char *)(intptr_t)n[0], (const int64_t *)(intptr_t)n[2], n[3], NULL, NULL, 1};
    if (can_move(&tokens.batch, n[3], n[1]) || are_rows(tokens.index, n[3], n[1])) return NULL;
    if (n[3])
        gather_tokens(&tokens, streams(&tokens.batch, n[3], tokens.batch.memory) ? gather_stream : gather_copy);
    Py_RETURN_NONE;
}

/* batch[:, b_i, :, t_i] = pool[index[i]] + shifts[shift_index[i / sharing]], of floats or doubles */
static PyObject *gather_shifted(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[9 + BATCH];
    if (take_in("gather_shifted", args, given, 9 + BATCH, n)) return NULL;
    int64_t count = n[3], shift_rows = n[5], sharing = n[7], item = n[8];
    Tokens tokens = {batch_of(n + 9), (char *)(intptr_t)n[0], (const int64_t *)(intptr_t)n[2], count,
                     (const char *)(intptr_t)n[4], (const int64_t *)(intptr_t)n[6], sharing};
    if (count && sharing < 1) return PyErr_Format(PyExc_ValueError, "sharing must be positive");
    if (item != sizeof(float) && item != sizeof(double))
        return PyErr_Format(PyExc_ValueError, "elements of %lld bytes cannot be added", (long long)item);
    if (can_move(&tokens.batch, count, n[1]) || are_rows(tokens.index, count, n[1])) return NULL;
    if (are_in_memory(shift_rows, token_bytes(&tokens.batch))) return NULL;
    if (count && are_rows(tokens.shift_index, (count - 1) / sharing + 1, shift_rows)) return NULL;
    int past = streams(&tokens.batch, count, tokens.batch.memory);
    if (count && item == sizeof(float)) gather_tokens(&tokens, past ? gather_stream_float : gather_float);
    else if (count) gather_tokens(&tokens, past ? gather_stream_double : gather_double);
    Py_RETURN_NONE;
}

/* pool[index[i]] = batch[:, b_i, :, t_i]; what goes to NULL_PAGE is not written */
static PyObject *scatter(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    int64_t n[4 + BATCH];
    if (take_in("scatter", args, given, 4 + BATCH, n)) return NULL;
    Tokens tokens = {batch_of(n + 4), (char *)(intptr_t)n[0], (const int64_t *)(intptr_t)n[2], n[3], NULL, NULL, 1};
    if (can_move(&tokens.batch, n[3], n[1]) || are_rows(tokens.index, n[3], n[1])) return NULL;
    Move move = streams(&tokens.batch, n[3], tokens.pool) ? scatter_stream : scatter_copy;
    for (int64_t token = 0, rows = tokens.batch.rows; token < n[3]; token++) {
        int64_t length = n[3] / rows, i = token % length * rows + token / length; /* row by row */
        if (tokens.index[i] != NULL_PAGE) move_run(&tokens, move, i, 1, 1);
    }
    end_streams();
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
     "gather(pool, rows, index, count, *batch)"},
    {"gather_shifted", (PyCFunction)(void (*)(void))gather_shifted, METH_FASTCALL,
     "gather_shifted(pool, rows, index, count, shifts, shift_rows, shift_index, sharing, item_bytes, *batch)"},
    {"scatter", (PyCFunction)(void (*)(void))scatter, METH_FASTCALL,
     "scatter(pool, rows, index, count, *batch)"},
    {"prefer_huge_pages", (PyCFunction)(void (*)(void))prefer_huge_pages, METH_FASTCALL,
     "prefer_huge_pages(address, nbytes)"},
    {NULL, NULL, 0, NULL},
};

static int fill(PyObject *module) { return PyModule_AddIntConstant(module, "NULL_PAGE", NULL_PAGE); }

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_cpu_kernels", .m_doc = "Tokens moved on a CPU: see kvcache.kernels.cpu.",
    .m_methods = functions, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__cpu_kernels(void) { return PyModuleDef_Init(&definition); }
