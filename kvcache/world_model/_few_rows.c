/* Products of a few rows with a large matrix of weights, which is read once and in its own order. A library's product
 * for any number of rows takes two to three times as long as reading the weights. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#define ROWS 8
#define TILE 8
#define AHEAD 16 /* floats of a cache line */

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

static int supported(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

/* Outputs of `count` weight rows, at most TILE: sums over `block` inputs at a time, one after the other. */
__attribute__((target("avx2,fma"), always_inline)) static inline void tile(
    const float *weights, const float *bias, const float *x, __m256 *found, Py_ssize_t inner, Py_ssize_t block,
    int count, int fetches) {
    for (int i = 0; i < count; i++) found[i] = _mm256_broadcast_ss(bias + i);
    for (Py_ssize_t from = 0; from < inner; from += block) {
        Py_ssize_t to = from + block < inner ? from + block : inner;
        __m256 sums[TILE];
        for (int i = 0; i < count; i++) sums[i] = _mm256_setzero_ps();
        for (Py_ssize_t k = from; k < to; k++) {
            __m256 inputs = _mm256_loadu_ps(x + ROWS * k);
            if (fetches && k % AHEAD == 0)
                for (int i = 0; i < count; i++)
                    _mm_prefetch((const char *)(weights + (TILE + i) * inner + k), _MM_HINT_T0);
            for (int i = 0; i < count; i++)
                sums[i] = _mm256_fmadd_ps(_mm256_broadcast_ss(weights + i * inner + k), inputs, sums[i]);
        }
        for (int i = 0; i < count; i++) found[i] = _mm256_add_ps(found[i], sums[i]);
    }
}

__attribute__((target("avx2,fma"))) static void multiply(
    float *out, const float *x, const float *weights, const float *bias, Py_ssize_t rows, Py_ssize_t inner,
    Py_ssize_t outer, Py_ssize_t block) {
    for (Py_ssize_t at = 0; at < outer; at += TILE) {
        __m256 found[TILE];
        float columns[TILE][ROWS];
        int count = outer - at < TILE ? (int)(outer - at) : TILE;
        const float *from = weights + at * inner;
        if (count < TILE)
            for (int i = 0; i < count; i++) tile(from + i * inner, bias + at + i, x, found + i, inner, block, 1, 0);
        else if (at + 2 * TILE <= outer) tile(from, bias + at, x, found, inner, block, TILE, 1);
        else tile(from, bias + at, x, found, inner, block, TILE, 0);
        for (int i = 0; i < count; i++) _mm256_storeu_ps(columns[i], found[i]);
        for (Py_ssize_t row = 0; row < rows; row++)
            for (int i = 0; i < count; i++) out[row * outer + at + i] = columns[i][row];
    }
}
#else
static int supported(void) { return 0; }
static void multiply(float *out, const float *x, const float *weights, const float *bias, Py_ssize_t rows,
                     Py_ssize_t inner, Py_ssize_t outer, Py_ssize_t block) {}
#endif

static PyObject *linear(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    Py_ssize_t numbers[8];
    if (given != 8) return PyErr_Format(PyExc_TypeError, "linear takes 8 arguments, got %zd", given);
    for (int i = 0; i < 8; i++)
        if ((numbers[i] = PyLong_AsSsize_t(args[i])) == -1 && PyErr_Occurred()) return NULL;
    const float *x = (const float *)numbers[1];
    Py_ssize_t rows = numbers[4], inner = numbers[5], outer = numbers[6], block = numbers[7];
    if (!supported()) return PyErr_Format(PyExc_RuntimeError, "this processor has no AVX2");
    if (rows < 1 || rows > ROWS || inner < 1 || outer < 1 || block < 1)
        return PyErr_Format(PyExc_ValueError, "linear takes 1 to %d rows and positive sizes", ROWS);
    float *turned = PyMem_RawCalloc((size_t)inner * ROWS, sizeof(float));
    if (!turned) return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t row = 0; row < rows; row++)
        for (Py_ssize_t k = 0; k < inner; k++) turned[ROWS * k + row] = x[row * inner + k];
    multiply((float *)numbers[0], turned, (const float *)numbers[2], (const float *)numbers[3], rows, inner, outer, block);
    Py_END_ALLOW_THREADS
    PyMem_RawFree(turned);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"linear", (PyCFunction)(void (*)(void))linear, METH_FASTCALL,
     "linear(out, x, weights, bias, rows, inner, outer, block): addresses of float32, and sizes."},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module) {
    return PyModule_AddIntConstant(module, "ROWS", ROWS) || PyModule_AddIntConstant(module, "SUPPORTED", supported());
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_few_rows", .m_doc = "Products of a few rows with weights, compiled.",
    .m_methods = functions, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__few_rows(void) { return PyModuleDef_Init(&definition); }
