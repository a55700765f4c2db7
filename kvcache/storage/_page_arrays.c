/* page_arrays.py, compiled. The functions are documented there; both versions write the same arrays.
 *
 * A step's arrays are small, a few KiB. In NumPy most of the time goes into some twenty calls a step, each with cold
 * caches. Arrays are passed as buffers of int64, so neither NumPy nor torch is needed to build this.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef Py_GIL_DISABLED
#error "kvcache does not run on free-threaded Python: see setup.py"
#endif

enum { ZERO_PAGE = 0, NULL_PAGE = 1 }; /* as in kvcache/kernels/base.py; a test compares them */

enum { MOST_ARRAYS = 8, FEW_PAGES = 32, MOST_SPREAD = 16 };

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

static int fail(PyObject *error, const char *format, ...) {
    va_list values;
    va_start(values, format);
    PyErr_FormatV(error, format, values);
    va_end(values);
    return -1;
}

static int hold(Held *held, PyObject *object, int dimensions, Array *array) {
    Py_buffer *view = &held->views[held->count];
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE | PyBUF_FORMAT)) return -1;
    held->count++;
    char kind = view->format && view->format[0] && !view->format[1] ? view->format[0] : '?';
    if (view->itemsize != sizeof(int64_t) || (kind != 'l' && kind != 'q') || view->ndim != dimensions)
        return fail(PyExc_ValueError, "expected %d-dimensional int64, got %d-dimensional '%s'", dimensions, view->ndim,
                    view->format ? view->format : "?");
    *array = (Array){view->buf, view->shape[0], dimensions == 2 ? view->shape[1] : 1};
    return 0;
}

static int is_index(const char *what, int64_t number, Py_ssize_t end) {
    if (number >= 0 && number < end) return 0;
    return fail(PyExc_IndexError, "%s %lld is not in 0..%zd", what, (long long)number, end - 1);
}

static int to_number(PyObject *object, int64_t *number) {
    *number = PyLong_AsLongLong(object);
    return *number == -1 && PyErr_Occurred() ? -1 : 0;
}

/* Item i of a list or tuple. Only plain ints: another object may be a different number when it is read again. */
static int item(PyObject *sequence, Py_ssize_t i, int64_t *number) {
    if (is_index("item", i, PySequence_Fast_GET_SIZE(sequence))) return -1;
    PyObject *found = PySequence_Fast_GET_ITEM(sequence, i);
    if (!PyLong_CheckExact(found)) return fail(PyExc_TypeError, "an integer is required, got %R", found);
    return to_number(found, number);
}

/* The columns' own numbers are the caller's too: one that overflows wraps, as in NumPy. */
static void add(int64_t *number, int64_t by) { *number = (int64_t)((uint64_t)*number + (uint64_t)by); }

static int has_length(const char *what, PyObject *sequence, Py_ssize_t length) {
    if (!PyList_Check(sequence) && !PyTuple_Check(sequence))
        return fail(PyExc_TypeError, "%s must be a list or tuple", what);
    Py_ssize_t items = PySequence_Fast_GET_SIZE(sequence);
    if (length < 0 || items == length) return 0;
    return fail(PyExc_ValueError, "%s has %zd items for %zd rows", what, items, length);
}

/* Reads the arguments of one call. Each has a kind: '1' or '2' is an array with so many dimensions (Array *), 'n' a
 * number (int64_t *), 'o' an object as it is (PyObject **). */
static int parse(Held *held, const char *name, PyObject *const *args, Py_ssize_t given, const char *kinds, ...) {
    Py_ssize_t wanted = (Py_ssize_t)strlen(kinds);
    if (given != wanted) return fail(PyExc_TypeError, "%s takes %zd arguments, got %zd", name, wanted, given);
    int failed = 0;
    va_list targets;
    va_start(targets, kinds);
    for (Py_ssize_t i = 0; i < wanted && !failed; i++) {
        if (kinds[i] == 'o') *va_arg(targets, PyObject **) = args[i];
        else if (kinds[i] == 'n') failed = to_number(args[i], va_arg(targets, int64_t *));
        else failed = hold(held, args[i], kinds[i] - '0', va_arg(targets, Array *));
    }
    va_end(targets);
    return failed;
}

static PyObject *inherit(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    Held held = {.count = 0};
    Array tables, references, inherited;
    PyObject *new = NULL, *result = NULL, *sizes, *parents, *first, *counts;
    if (parse(&held, "inherit", args, given, "21oooo2", &tables, &references, &sizes, &parents, &first, &counts,
              &inherited)) goto done;
    Py_ssize_t rows = inherited.rows, longest = tables.columns - 1;
    if (has_length("sizes", sizes, -1) || has_length("parents", parents, rows) || has_length("first", first, rows) ||
        has_length("counts", counts, rows)) goto done;
    if ((longest < 0 || inherited.columns != tables.columns) &&
        fail(PyExc_ValueError, "the inherited tables are not as long as the others")) goto done;
    if (!(new = PyList_New(rows))) goto done;
    memset(inherited.at, 0, (size_t)(rows * inherited.columns) * sizeof(int64_t)); /* ZERO_PAGE is 0 */
    for (Py_ssize_t row = 0; row < rows; row++) {
        int64_t parent, at, count, size;
        if (item(parents, row, &parent) || item(first, row, &at) || item(counts, row, &count) ||
            is_index("parent", parent, tables.rows) || item(sizes, parent, &size) ||
            is_index("first", at, longest + 1) || is_index("count", count, longest + 1) ||
            is_index("size", size, longest + 1)) goto done;
        int64_t advance = at + count - size, fresh = advance < 0 ? 0 : advance > count ? count : advance;
        int64_t begin = longest - count > -advance ? longest - count : -advance;
        int64_t end = advance > 0 ? longest - advance : longest;
        for (int64_t column = begin; column < end; column++) {
            int64_t page = tables.at[parent * tables.columns + column + advance];
            if (is_index("page", page, references.rows)) goto done;
            inherited.at[row * inherited.columns + column] = page;
        }
        PyObject *number = PyLong_FromLongLong(fresh);
        if (!number) goto done;
        PyList_SET_ITEM(new, row, number);
    }
    for (Py_ssize_t place = 0; place < rows * inherited.columns; place++)
        if (inherited.at[place] != ZERO_PAGE) add(&references.at[inherited.at[place]], 1);
    result = Py_NewRef(new);
done:
    Py_XDECREF(new);
    drop(&held);
    return result;
}

static int descending(const void *a, const void *b) {
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return (left < right) - (left > right);
}

/* Sorts distinct pages, the highest first. Pages that are freed together were mostly taken together and lie close.
 * Then each is marked in an array that is read in order: one pass, where sorting compares each page a dozen times. */
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
            for (int64_t *next = pages, page = high; page >= low; page--)
                if (marks[page - low]) *next++ = page;
            PyMem_Free(marks);
            return;
        }
    }
    qsort(pages, (size_t)count, sizeof(int64_t), descending);
}

static PyObject *release(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    Held held = {.count = 0};
    Array pages, references, owners, charges, free_pages;
    PyObject *result = NULL;
    int64_t begin;
    if (parse(&held, "release", args, given, "11111n", &pages, &references, &owners, &charges, &free_pages, &begin) ||
        is_index("free_count", begin, free_pages.rows + 1)) goto done;
    Py_ssize_t length = references.rows < owners.rows ? references.rows : owners.rows;
    for (Py_ssize_t i = 0; i < pages.rows; i++) {
        if (is_index("page", pages.at[i], length) ||
            (pages.at[i] != ZERO_PAGE && is_index("owner", owners.at[pages.at[i]], charges.rows))) goto done;
    }
    Py_ssize_t end = begin;
    for (Py_ssize_t i = 0; i < pages.rows; i++) {
        int64_t page = pages.at[i];
        if (page == ZERO_PAGE) continue;
        add(&references.at[page], -1);
        if (references.at[page]) continue;
        if (end == free_pages.rows && fail(PyExc_IndexError, "more pages are free than there are")) goto done;
        free_pages.at[end++] = page;
        add(&charges.at[owners.at[page]], -1);
    }
    sort_pages(free_pages.at + begin, end - begin);
    result = PyLong_FromSsize_t(end);
done:
    drop(&held);
    return result;
}

static PyObject *place(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    Held held = {.count = 0};
    Array tables, inherited, references, serials, owners, charges, free_pages, targets;
    PyObject *result = NULL, *entries, *new, *owner_of;
    int64_t free_count, serial;
    if (parse(&held, "place", args, given, "22ooo11111nn2", &tables, &inherited, &entries, &new, &owner_of, &references,
              &serials, &owners, &charges, &free_pages, &free_count, &serial, &targets)) goto done;
    Py_ssize_t rows = inherited.rows, longest = tables.columns - 1, most = targets.rows;
    if (has_length("entries", entries, rows) || has_length("new", new, rows) || has_length("owner_of", owner_of, -1) ||
        is_index("free_count", free_count, free_pages.rows + 1)) goto done;
    if ((inherited.columns != tables.columns || targets.columns != rows || most > longest) &&
        fail(PyExc_ValueError, "tables, inherited tables and targets do not fit together")) goto done;
    /* Everything is checked before anything is changed. */
    Py_ssize_t needed = 0;
    for (Py_ssize_t row = 0; row < rows; row++) {
        int64_t entry, fresh, owner;
        if (item(entries, row, &entry) || is_index("entry", entry, tables.rows) || item(new, row, &fresh) ||
            is_index("number of new tokens", fresh, most + 1) || item(owner_of, entry, &owner) ||
            is_index("owner", owner, charges.rows)) goto done;
        needed += fresh;
    }
    if (needed > free_count && fail(PyExc_IndexError, "%zd pages are needed, %zd are free", needed,
                                    (Py_ssize_t)free_count)) goto done;
    if (is_index("serial", serial, INT64_MAX - needed)) goto done;
    Py_ssize_t length = references.rows;
    length = serials.rows < length ? serials.rows : length;
    length = owners.rows < length ? owners.rows : length;
    for (Py_ssize_t i = free_count - needed; i < free_count; i++)
        if (is_index("page", free_pages.at[i], length)) goto done;

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
                add(&charges.at[owner], 1);
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
    result = Py_NewRef(Py_None);
done:
    drop(&held);
    return result;
}

static PyObject *find_changed(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    Held held = {.count = 0};
    Array tables, serials, there, index, changed;
    PyObject *result = NULL, *entries, *sizes;
    if (parse(&held, "find_changed", args, given, "21oo221", &tables, &serials, &entries, &sizes, &there, &index,
              &changed)) goto done;
    Py_ssize_t rows = index.columns, last = tables.columns - 1, count = 0;
    if (has_length("entries", entries, rows) || has_length("sizes", sizes, rows)) goto done;
    if ((there.columns != rows || there.rows < index.rows || changed.rows < index.rows * rows) &&
        fail(PyExc_ValueError, "the batch's serial numbers and its index do not fit together")) goto done;
    for (Py_ssize_t row = 0; row < rows; row++) {
        int64_t entry, size;
        if (item(entries, row, &entry) || is_index("entry", entry, tables.rows) || item(sizes, row, &size) ||
            is_index("size", size, last + 1)) goto done;
        const int64_t *table = tables.at + entry * tables.columns + last - size;
        for (Py_ssize_t line = 0; line < index.rows; line++) {
            int64_t page = line < size ? table[line] : ZERO_PAGE;
            if (is_index("page", page, serials.rows)) goto done;
            index.at[line * rows + row] = page;
        }
    }
    for (Py_ssize_t row = 0; row < rows; row++) {
        for (Py_ssize_t place = row; place < index.rows * rows; place += rows) {
            int64_t wanted = serials.at[index.at[place]];
            if (wanted != there.at[place]) changed.at[count++] = place;
            there.at[place] = wanted;
        }
    }
    result = PyLong_FromSsize_t(count);
done:
    drop(&held);
    return result;
}

#define FUNCTION(name) \
    {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, "As kvcache.storage.page_arrays." #name "."}

static PyMethodDef functions[] = {
    FUNCTION(inherit), FUNCTION(release), FUNCTION(place), FUNCTION(find_changed), {NULL, NULL, 0, NULL},
};

static int fill(PyObject *module) {
    return PyModule_AddIntConstant(module, "ZERO_PAGE", ZERO_PAGE) ||
           PyModule_AddIntConstant(module, "NULL_PAGE", NULL_PAGE) ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_page_arrays", .m_doc = "Arithmetic on the arrays of paged storage, compiled.",
    .m_methods = functions, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__page_arrays(void) { return PyModuleDef_Init(&definition); }
