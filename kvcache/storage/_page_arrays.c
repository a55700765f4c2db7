/* page_arrays.py, compiled: what each function does is said there. Both give the same arrays.
 *
 * A step's arrays are small, a few KiB: what NumPy costs here is its calls, some twenty a step, each with the caches
 * cold. Arrays come as buffers of int64, so neither NumPy nor torch is needed to build this.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ZERO_PAGE = 0, NULL_PAGE = 1 }; /* of kvcache/kernels.py; the module tells them, and a test compares */

#define MOST_ARRAYS 8
#define FEW_PAGES 32
#define MOST_SPREAD 16

typedef struct {
    int64_t *at;
    Py_ssize_t rows, columns; /* of a one-dimensional array: its length, and 1 */
} Array;

/* The arrays of one call, released together. */
typedef struct {
    Py_buffer views[MOST_ARRAYS];
    int count;
} Held;

static void drop(Held *held) {
    while (held->count) PyBuffer_Release(&held->views[--held->count]);
}

static int hold(Held *held, PyObject *object, int dimensions, Array *array) {
    Py_buffer *view = &held->views[held->count];
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE | PyBUF_FORMAT)) return -1;
    held->count++;
    char kind = view->format && view->format[0] && !view->format[1] ? view->format[0] : '?';
    if (view->itemsize != sizeof(int64_t) || (kind != 'l' && kind != 'q') || view->ndim != dimensions) {
        PyErr_Format(PyExc_ValueError, "expected %d-dimensional int64, got %d-dimensional '%s'", dimensions,
                     view->ndim, view->format ? view->format : "?");
        return -1;
    }
    array->at = view->buf;
    array->rows = view->shape[0];
    array->columns = dimensions == 2 ? view->shape[1] : 1;
    return 0;
}

static int out_of_range(const char *what, int64_t number, Py_ssize_t end) {
    PyErr_Format(PyExc_IndexError, "%s %lld is not in 0..%zd", what, (long long)number, end - 1);
    return -1;
}

static int is_index(const char *what, int64_t number, Py_ssize_t end) {
    return number >= 0 && number < end ? 0 : out_of_range(what, number, end);
}

/* Item i of a list or tuple of ints: of no other kind, which might not be the same number when it is read again. */
static int item(PyObject *sequence, Py_ssize_t i, int64_t *number) {
    if (i < 0 || i >= PySequence_Fast_GET_SIZE(sequence)) return out_of_range("item", i, PySequence_Fast_GET_SIZE(sequence));
    PyObject *found = PySequence_Fast_GET_ITEM(sequence, i);
    if (!PyLong_CheckExact(found)) {
        PyErr_Format(PyExc_TypeError, "an integer is required, got %R", found);
        return -1;
    }
    *number = PyLong_AsLongLong(found);
    return *number == -1 && PyErr_Occurred() ? -1 : 0;
}

static int has_length(const char *what, PyObject *sequence, Py_ssize_t length) {
    if (!PyList_Check(sequence) && !PyTuple_Check(sequence)) {
        PyErr_Format(PyExc_TypeError, "%s must be a list or tuple", what);
        return -1;
    }
    if (length >= 0 && PySequence_Fast_GET_SIZE(sequence) != length) {
        PyErr_Format(PyExc_ValueError, "%s has %zd items for %zd rows", what, PySequence_Fast_GET_SIZE(sequence), length);
        return -1;
    }
    return 0;
}

static int has_arguments(const char *name, Py_ssize_t given, Py_ssize_t wanted) {
    if (given == wanted) return 0;
    PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, got %zd", name, wanted, given);
    return -1;
}

static PyObject *inherit(PyObject *self, PyObject *const *args, Py_ssize_t count_of_args) {
    Held held = {.count = 0};
    Array tables, references, inherited;
    PyObject *new = NULL;
    if (has_arguments("inherit", count_of_args, 7) || hold(&held, args[0], 2, &tables) ||
        hold(&held, args[1], 1, &references) || hold(&held, args[6], 2, &inherited)) goto failed;
    PyObject *sizes = args[2], *parents = args[3], *first = args[4], *counts = args[5];
    Py_ssize_t rows = inherited.rows, longest = tables.columns - 1;
    if (has_length("sizes", sizes, -1) || has_length("parents", parents, rows) || has_length("first", first, rows) ||
        has_length("counts", counts, rows)) goto failed;
    if (longest < 0 || inherited.columns != tables.columns) {
        PyErr_SetString(PyExc_ValueError, "the inherited tables are not as long as the others");
        goto failed;
    }
    if (!(new = PyList_New(rows))) goto failed;
    memset(inherited.at, 0, (size_t)(rows * inherited.columns) * sizeof(int64_t)); /* ZERO_PAGE is 0 */
    for (Py_ssize_t row = 0; row < rows; row++) {
        int64_t parent, at, count, size;
        if (item(parents, row, &parent) || item(first, row, &at) || item(counts, row, &count) ||
            is_index("parent", parent, tables.rows) || item(sizes, parent, &size) ||
            is_index("count", count, longest + 1)) goto failed;
        int64_t advance = at + count - size, fresh = advance < 0 ? 0 : advance > count ? count : advance;
        int64_t begin = longest - count > -advance ? longest - count : -advance;
        int64_t end = advance > 0 ? longest - advance : longest;
        for (int64_t column = begin; column < end; column++) {
            int64_t page = tables.at[parent * tables.columns + column + advance];
            if (is_index("page", page, references.rows)) goto failed;
            inherited.at[row * inherited.columns + column] = page;
        }
        PyObject *number = PyLong_FromLongLong(fresh);
        if (!number) goto failed;
        PyList_SET_ITEM(new, row, number);
    }
    for (Py_ssize_t place = 0; place < rows * inherited.columns; place++) {
        int64_t page = inherited.at[place];
        if (page != ZERO_PAGE) references.at[page]++;
    }
    drop(&held);
    return new;
failed:
    Py_XDECREF(new);
    drop(&held);
    return NULL;
}

static int descending(const void *a, const void *b) {
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return (left < right) - (left > right);
}

/* Distinct pages, the highest first. What is freed together was mostly taken together: where pages lie close, they are
 * marked and read off in order, which costs a pass over them where sorting costs a comparison a dozen times over. */
static void sort_pages(int64_t *pages, Py_ssize_t count) {
    if (count > FEW_PAGES) {
        int64_t low = pages[0], high = pages[0];
        for (Py_ssize_t i = 1; i < count; i++) {
            if (pages[i] < low) low = pages[i];
            if (pages[i] > high) high = pages[i];
        }
        size_t span = (size_t)(high - low) + 1;
        char *marks = span <= MOST_SPREAD * (size_t)count ? PyMem_Calloc(span, 1) : NULL;
        if (marks != NULL) {
            for (Py_ssize_t i = 0; i < count; i++) marks[pages[i] - low] = 1;
            for (int64_t *next = pages, page = high; page >= low; page--) {
                if (marks[page - low]) *next++ = page;
            }
            PyMem_Free(marks);
            return;
        }
    }
    qsort(pages, (size_t)count, sizeof(int64_t), descending);
}

static PyObject *release(PyObject *self, PyObject *const *args, Py_ssize_t count_of_args) {
    Held held = {.count = 0};
    Array pages, references, owners, charges, free_pages;
    if (has_arguments("release", count_of_args, 6) || hold(&held, args[0], 1, &pages) ||
        hold(&held, args[1], 1, &references) || hold(&held, args[2], 1, &owners) ||
        hold(&held, args[3], 1, &charges) || hold(&held, args[4], 1, &free_pages)) goto failed;
    Py_ssize_t begin = PyLong_AsSsize_t(args[5]);
    if (begin == -1 && PyErr_Occurred()) goto failed;
    if (is_index("free_count", begin, free_pages.rows + 1)) goto failed;
    Py_ssize_t length = references.rows < owners.rows ? references.rows : owners.rows;
    for (Py_ssize_t i = 0; i < pages.rows; i++) {
        if (is_index("page", pages.at[i], length) ||
            (pages.at[i] != ZERO_PAGE && is_index("owner", owners.at[pages.at[i]], charges.rows))) goto failed;
    }
    Py_ssize_t end = begin;
    for (Py_ssize_t i = 0; i < pages.rows; i++) {
        int64_t page = pages.at[i];
        if (page == ZERO_PAGE || --references.at[page]) continue;
        if (end == free_pages.rows) {
            PyErr_SetString(PyExc_IndexError, "more pages are free than there are");
            goto failed;
        }
        free_pages.at[end++] = page;
        charges.at[owners.at[page]]--;
    }
    sort_pages(free_pages.at + begin, end - begin);
    drop(&held);
    return PyLong_FromSsize_t(end);
failed:
    drop(&held);
    return NULL;
}

static PyObject *place(PyObject *self, PyObject *const *args, Py_ssize_t count_of_args) {
    Held held = {.count = 0};
    Array tables, inherited, references, serials, owners, charges, free_pages, targets;
    if (has_arguments("place", count_of_args, 13) || hold(&held, args[0], 2, &tables) ||
        hold(&held, args[1], 2, &inherited) || hold(&held, args[5], 1, &references) ||
        hold(&held, args[6], 1, &serials) || hold(&held, args[7], 1, &owners) || hold(&held, args[8], 1, &charges) ||
        hold(&held, args[9], 1, &free_pages) || hold(&held, args[12], 2, &targets)) goto failed;
    PyObject *entries = args[2], *new = args[3], *owner_of = args[4];
    Py_ssize_t rows = inherited.rows, longest = tables.columns - 1, most = targets.rows;
    Py_ssize_t free_count = PyLong_AsSsize_t(args[10]);
    if (free_count == -1 && PyErr_Occurred()) goto failed;
    int64_t serial = PyLong_AsLongLong(args[11]);
    if (serial == -1 && PyErr_Occurred()) goto failed;
    if (has_length("entries", entries, rows) || has_length("new", new, rows) || has_length("owner_of", owner_of, -1) ||
        is_index("free_count", free_count, free_pages.rows + 1)) goto failed;
    if (inherited.columns != tables.columns || targets.columns != rows || most > longest) {
        PyErr_SetString(PyExc_ValueError, "tables, inherited tables and targets do not fit together");
        goto failed;
    }
    /* All is checked before anything is changed. */
    Py_ssize_t needed = 0;
    for (Py_ssize_t row = 0; row < rows; row++) {
        int64_t entry, fresh, owner;
        if (item(entries, row, &entry) || is_index("entry", entry, tables.rows) || item(new, row, &fresh) ||
            is_index("number of new tokens", fresh, most + 1) || item(owner_of, entry, &owner) ||
            is_index("owner", owner, charges.rows)) goto failed;
        needed += fresh;
    }
    if (needed > free_count) {
        PyErr_Format(PyExc_IndexError, "%zd pages are needed, %zd are free", needed, free_count);
        goto failed;
    }
    Py_ssize_t length = references.rows;
    length = serials.rows < length ? serials.rows : length;
    length = owners.rows < length ? owners.rows : length;
    for (Py_ssize_t i = free_count - needed; i < free_count; i++)
        if (is_index("page", free_pages.at[i], length)) goto failed;

    for (Py_ssize_t line = 0; line < most; line++) {
        for (Py_ssize_t row = 0; row < rows; row++) {
            int64_t fresh, entry, owner, page = NULL_PAGE;
            item(new, row, &fresh);
            if (line >= most - fresh) {
                item(entries, row, &entry);
                item(owner_of, entry, &owner);
                page = free_pages.at[--free_count];
                references.at[page] = 1;
                serials.at[page] = serial++;
                owners.at[page] = owner;
                charges.at[owner]++;
                inherited.at[row * inherited.columns + longest - most + line] = page;
            }
            targets.at[line * rows + row] = page;
        }
    }
    for (Py_ssize_t row = 0; row < rows; row++) {
        int64_t entry;
        item(entries, row, &entry);
        memcpy(tables.at + entry * tables.columns, inherited.at + row * inherited.columns,
               (size_t)tables.columns * sizeof(int64_t));
    }
    drop(&held);
    Py_RETURN_NONE;
failed:
    drop(&held);
    return NULL;
}

static PyObject *find_changed(PyObject *self, PyObject *const *args, Py_ssize_t count_of_args) {
    Held held = {.count = 0};
    Array tables, serials, there, index, changed;
    if (has_arguments("find_changed", count_of_args, 7) || hold(&held, args[0], 2, &tables) ||
        hold(&held, args[1], 1, &serials) || hold(&held, args[4], 2, &there) || hold(&held, args[5], 2, &index) ||
        hold(&held, args[6], 1, &changed)) goto failed;
    PyObject *entries = args[2], *sizes = args[3];
    Py_ssize_t rows = index.columns, last = tables.columns - 1, count = 0;
    if (has_length("entries", entries, rows) || has_length("sizes", sizes, rows)) goto failed;
    if (there.columns != rows || there.rows < index.rows || changed.rows < index.rows * rows) {
        PyErr_SetString(PyExc_ValueError, "what the batch holds and its index do not fit together");
        goto failed;
    }
    for (Py_ssize_t row = 0; row < rows; row++) {
        int64_t entry, size;
        if (item(entries, row, &entry) || is_index("entry", entry, tables.rows) || item(sizes, row, &size) ||
            is_index("size", size, last + 1)) goto failed;
        const int64_t *table = tables.at + entry * tables.columns + last - size;
        for (Py_ssize_t line = 0; line < index.rows; line++) {
            int64_t page = line < size ? table[line] : ZERO_PAGE;
            if (is_index("page", page, serials.rows)) goto failed;
            index.at[line * rows + row] = page;
        }
    }
    for (Py_ssize_t place = 0; place < index.rows * rows; place++) {
        int64_t wanted = serials.at[index.at[place]];
        if (wanted != there.at[place]) {
            changed.at[count++] = place;
            there.at[place] = wanted;
        }
    }
    drop(&held);
    return PyLong_FromSsize_t(count);
failed:
    drop(&held);
    return NULL;
}

static PyMethodDef functions[] = {
    {"find_changed", (PyCFunction)(void (*)(void))find_changed, METH_FASTCALL,
     "As kvcache.storage.page_arrays.find_changed."},
    {"inherit", (PyCFunction)(void (*)(void))inherit, METH_FASTCALL, "As kvcache.storage.page_arrays.inherit."},
    {"release", (PyCFunction)(void (*)(void))release, METH_FASTCALL, "As kvcache.storage.page_arrays.release."},
    {"place", (PyCFunction)(void (*)(void))place, METH_FASTCALL, "As kvcache.storage.page_arrays.place."},
    {NULL, NULL, 0, NULL},
};

static int fill(PyObject *module) {
    if (PyModule_AddIntConstant(module, "ZERO_PAGE", ZERO_PAGE)) return -1;
    return PyModule_AddIntConstant(module, "NULL_PAGE", NULL_PAGE);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_page_arrays",
    .m_doc = "Arithmetic on the arrays of paged storage, compiled.",
    .m_size = 0,
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__page_arrays(void) { return PyModuleDef_Init(&definition); }
