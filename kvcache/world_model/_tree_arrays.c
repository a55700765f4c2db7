/* tree_arrays.py, compiled. The functions are documented there; both versions write the same bits.
 *
 * A path is a few nodes of a few actions: in NumPy nearly all of the time goes into the calls, some twenty a node.
 * Arrays are passed as buffers, so NumPy is not needed to build this.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>

#ifdef Py_GIL_DISABLED
#error "kvcache does not run on free-threaded Python: see setup.py"
#endif

/* A product and a sum are rounded one by one, as NumPy does it, also where one instruction could do both. */
#ifdef __clang__
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

enum { MOST_ARRAYS = 7, MOST_DIMENSIONS = 4 };

typedef struct {
    Py_buffer views[MOST_ARRAYS];
    int held;
    int64_t *visits, *pending, *children, *path, *depths;
    double *sums, *rewards, *priors, *least, *most, *roots;
    Py_ssize_t rows, nodes, actions, deepest;
} Trees;

static void drop(Trees *trees) {
    while (trees->held) PyBuffer_Release(&trees->views[--trees->held]);
}

/* The array's numbers, of type 'q' (int64) or 'd' (float64) and of this shape; NULL with an error set. A size of -1
 * is any, and is filled in. */
static void *array_of(Trees *trees, PyObject *object, char type, int dimensions, Py_ssize_t *shape) {
    Py_buffer *view = &trees->views[trees->held];
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE | PyBUF_FORMAT)) return NULL;
    trees->held++;
    char found = view->format && view->format[0] && !view->format[1] ? view->format[0] : '?';
    int fits = view->itemsize == 8 && (found == type || (type == 'q' && found == 'l')) && view->ndim == dimensions;
    for (int i = 0; fits && i < dimensions; i++) {
        if (shape[i] < 0) shape[i] = view->shape[i];
        fits = shape[i] == view->shape[i];
    }
    if (fits) return view->buf;
    PyErr_Format(PyExc_ValueError, "an array of the trees has another type or shape, '%c' of %d dimensions", found,
                 view->ndim);
    return NULL;
}

/* The first five arguments of both functions. */
static int take(Trees *trees, PyObject *const *args) {
    Py_ssize_t all[MOST_DIMENSIONS] = {3, -1, -1, -1}, of_bounds[] = {3, -1}, of_path[] = {-1, -1, 2};
    if (!(trees->visits = array_of(trees, args[0], 'q', 4, all))) return -1;
    trees->rows = all[1], trees->nodes = all[2], trees->actions = all[3];
    Py_ssize_t block = all[1] * all[2] * all[3];
    trees->pending = trees->visits + block, trees->children = trees->visits + 2 * block;
    of_bounds[1] = of_path[0] = all[1];
    if (!(trees->sums = array_of(trees, args[1], 'd', 4, all)) ||
        !(trees->least = array_of(trees, args[2], 'd', 2, of_bounds)) ||
        !(trees->path = array_of(trees, args[3], 'q', 3, of_path)) ||
        !(trees->depths = array_of(trees, args[4], 'q', 1, of_path))) return -1;
    trees->deepest = of_path[1];
    trees->rewards = trees->sums + block, trees->priors = trees->sums + 2 * block;
    trees->most = trees->least + all[1], trees->roots = trees->least + 2 * all[1];
    return 0;
}

static int is_index(const char *what, int64_t number, Py_ssize_t end) {
    if (number >= 0 && number < end) return 0;
    PyErr_Format(PyExc_IndexError, "%s %lld is not in 0..%zd", what, (long long)number, end - 1);
    return -1;
}

/* The action of the highest score, the first of equals, of the node whose children begin at this place. */
static Py_ssize_t best(const Trees *trees, Py_ssize_t row, Py_ssize_t at, double discount, double base, double init) {
    const int64_t *visits = trees->visits + at, *pending = trees->pending + at;
    double least = trees->least[row], most = trees->most[row], highest = 0;
    int64_t total = 0;
    for (Py_ssize_t i = 0; i < trees->actions; i++) total += visits[i] + pending[i];
    double weight = log(((double)(1 + total) + base) / base) + init, root = sqrt((double)total);
    Py_ssize_t found = 0;
    for (Py_ssize_t i = 0; i < trees->actions; i++) {
        double prior = trees->priors[at + i], value = 0;
        int64_t taken = visits[i] + pending[i];
        if (visits[i] > 0) {
            value = trees->rewards[at + i] + discount * (trees->sums[at + i] / (double)visits[i]);
            if (most > least) value = (value - least) / (most - least);
            value *= (double)visits[i] / (double)taken;
        }
        double score = value + (total > 0 ? weight * prior * root / (double)(1 + taken) : prior);
        if (isnan(score)) return i; /* as argmax has it */
        if (i == 0 || score > highest) highest = score, found = i;
    }
    return found;
}

static PyObject *select_leaves(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    Trees trees = {.held = 0};
    PyObject *result = NULL;
    if (given != 9) return PyErr_Format(PyExc_TypeError, "select takes 9 arguments, got %zd", given);
    double discount = PyFloat_AsDouble(args[6]), base = PyFloat_AsDouble(args[7]), init = PyFloat_AsDouble(args[8]);
    if (PyErr_Occurred() || take(&trees, args)) goto done;
    Py_ssize_t of_ends[] = {trees.rows, 2};
    int64_t *ends = array_of(&trees, args[5], 'q', 2, of_ends);
    if (!ends) goto done;
    for (Py_ssize_t row = 0; row < trees.rows; row++) {
        int64_t node = 0, depth = 0;
        do {
            if (is_index("node", node, trees.nodes) || is_index("depth", depth, trees.deepest)) goto done;
            Py_ssize_t at = (row * trees.nodes + node) * trees.actions;
            Py_ssize_t action = best(&trees, row, at, discount, base, init);
            int64_t *edge = trees.path + (row * trees.deepest + depth++) * 2;
            edge[0] = ends[2 * row] = node, edge[1] = ends[2 * row + 1] = action;
            trees.pending[at + action]++;
            node = trees.children[at + action];
        } while (node);
        trees.depths[row] = depth;
    }
    result = Py_NewRef(Py_None);
done:
    drop(&trees);
    return result;
}

static void see(const Trees *trees, Py_ssize_t row, double mean) {
    if (mean < trees->least[row]) trees->least[row] = mean;
    if (mean > trees->most[row]) trees->most[row] = mean;
}

static PyObject *backup(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    Trees trees = {.held = 0};
    PyObject *result = NULL;
    if (given != 9) return PyErr_Format(PyExc_TypeError, "backup takes 9 arguments, got %zd", given);
    double discount = PyFloat_AsDouble(args[5]), *rewards, *values;
    int64_t new = PyLong_AsLongLong(args[6]);
    if (PyErr_Occurred() || take(&trees, args) || is_index("node", new, trees.nodes) ||
        !(rewards = array_of(&trees, args[7], 'd', 1, &trees.rows)) ||
        !(values = array_of(&trees, args[8], 'd', 1, &trees.rows))) goto done;
    for (Py_ssize_t row = 0; row < trees.rows; row++) {
        double value = values[row];
        int64_t depth = trees.depths[row], visits = 1;
        if (is_index("depth", depth, trees.deepest + 1)) goto done;
        for (int64_t place = depth - 1; place >= 0; place--) {
            const int64_t *edge = trees.path + (row * trees.deepest + place) * 2;
            if (is_index("node", edge[0], trees.nodes) || is_index("action", edge[1], trees.actions)) goto done;
            Py_ssize_t at = (row * trees.nodes + edge[0]) * trees.actions + edge[1];
            if (place == depth - 1 && !trees.children[at]) trees.children[at] = new, trees.rewards[at] = rewards[row];
            trees.visits[at]++;
            trees.pending[at]--;
            trees.sums[at] += value;
            see(&trees, row, trees.sums[at] / (double)trees.visits[at]);
            value = trees.rewards[at] + discount * value;
        }
        for (Py_ssize_t i = 0; i < trees.actions; i++) visits += trees.visits[row * trees.nodes * trees.actions + i];
        trees.roots[row] += value;
        see(&trees, row, trees.roots[row] / (double)visits);
    }
    result = Py_NewRef(Py_None);
done:
    drop(&trees);
    return result;
}

static PyMethodDef functions[] = {
    {"select", (PyCFunction)(void (*)(void))select_leaves, METH_FASTCALL, "As kvcache.world_model.tree_arrays.select."},
    {"backup", (PyCFunction)(void (*)(void))backup, METH_FASTCALL, "As kvcache.world_model.tree_arrays.backup."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_tree_arrays", .m_doc = "Steps through the trees of a search, compiled.",
    .m_methods = functions, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__tree_arrays(void) { return PyModuleDef_Init(&definition); }
