/* What the calls of _tree.c are made of: nodes by key and by slot, and the pairs that lessons are drawn from. */
#include <Python.h>

#include "_tree_nodes.h"

enum { KEY = 0, TOKENS = 2, NEW_TOKENS = 3, PARENT = 4, DEPTH = 5, ENV = 6, ACTIONS = 9, FIELDS = 10 }; /* EntryInfo */
static const Py_ssize_t LONGEST_PATH = 16, LARGEST_BATCH = 65536, KEPT_FREE = 2; /* as in tree.py */
static const long long LARGEST = 1LL << 31; /* depths and actions are counted up to it */

typedef struct {
    PyObject_HEAD
    PyTypeObject *node_type;
    PyObject *lessons, *pairs;    /* `pairs` as in lessons.py's Trial */
    PyObject *nodes, *looked_up;  /* dicts: the nodes of keys */
    PyObject *extended, *envs;
    PyObject *most_children, *follows_recency; /* names of the lessons' attributes */
    Node **at; /* by slot; NULL where none is */
    Orders orders;
    Py_ssize_t size, room; /* `room` in `at` and in the heap: grows to `size` */
    int stores, shares_tokens, busy;
} Tree;

static int begin(Tree *self) {
    if (!self->busy && self->nodes) return !(self->busy = 1);
    PyErr_SetString(PyExc_RuntimeError, "a key called the pool that compared it");
    return -1;
}

static PyObject *ended(Tree *self, int failed) {
    self->busy = 0;
    return failed ? NULL : Py_NewRef(Py_None);
}

/* The node of a key, borrowed; NULL where it has none, or with an error. `is_there`: whether the key is. */
static Node *node_of(Tree *self, PyObject *dict, PyObject *key, int *is_there) {
    PyObject *found = PyDict_GetItemWithError(dict, key);
    if (is_there) *is_there = found != NULL;
    return found && Py_IS_TYPE(found, self->node_type) ? (Node *)found : NULL;
}

/* A whole number up to LARGEST; `missing` for None. -1 with an error. */
static long long whole(PyObject *value, long long missing) {
    if (value == Py_None) return missing;
    PyObject *index = PyNumber_Index(value);
    if (!index) return -1;
    int overflows;
    long long number = PyLong_AsLongLongAndOverflow(index, &overflows);
    Py_DECREF(index);
    if (overflows) number = overflows * LARGEST;
    return number > LARGEST ? LARGEST : number < 0 ? 0 : number;
}

/* 1 or 0, or -1 with an error. */
static int is_useful(Tree *self, Node *node) {
    if (!node->is_whole) return 0;
    long long most = node->actions;
    if (!most) {
        PyObject *learned = PyObject_GetAttr(self->lessons, self->most_children);
        if (!learned) return -1;
        int knows = learned != Py_None;
        most = whole(learned, 0);
        Py_DECREF(learned);
        if (most < 0) return -1;
        if (!knows) return 1;
    }
    return node->lookups < most * node->stores;
}

static Node *occupied(Tree *self, PyObject *slot) {
    Py_ssize_t number = PyLong_AsSsize_t(slot);
    if (number == -1 && PyErr_Occurred()) return NULL;
    if (number >= 0 && number < self->room && self->at[number]) return self->at[number];
    PyErr_Format(PyExc_KeyError, "%zd", number);
    return NULL;
}

static int make_room(Tree *self, Py_ssize_t slot) {
    if (slot < 0 || slot >= self->size) {
        PyErr_Format(PyExc_IndexError, "there are %zd slots, got %zd", self->size, slot);
        return -1;
    }
    if (slot < self->room) return 0;
    Py_ssize_t room = slot + 1 > 2 * self->room ? slot + 1 : 2 * self->room;
    if (room > self->size) room = self->size;
    Node **at = PyMem_Realloc(self->at, room * sizeof(Node *));
    if (at) self->at = at;
    Node **heap = PyMem_Realloc(self->orders.heap, room * sizeof(Node *));
    if (heap) self->orders.heap = heap;
    if (!at || !heap) return PyErr_NoMemory(), -1;
    for (; self->room < room; self->room++) self->at[self->room] = NULL;
    return 0;
}

/* Pairs that were nominated (see lessons.py). */

/* Drop a key's pair. Returns the result, 0 where it has none, or -2 with an error. */
static int drop(Tree *self, PyObject *key) {
    PyObject *pair = PyDict_GetItemWithError(self->pairs, key);
    if (!pair) return PyErr_Occurred() ? -2 : 0;
    Py_INCREF(pair);
    int failed = PyODict_DelItem(self->pairs, key);
    if (!failed && PyODict_DelItem(self->pairs, PyTuple_GET_ITEM(pair, 0))) {
        failed = !PyErr_ExceptionMatches(PyExc_KeyError); /* an error left half of the pair: see nominate */
        if (!failed) PyErr_Clear();
    }
    int result = failed ? -2 : (int)PyLong_AsLong(PyTuple_GET_ITEM(pair, 1));
    Py_DECREF(pair);
    return result;
}

static PyObject *first_of(PyObject *dict) {
    PyObject *keys = PyObject_GetIter(dict), *key = keys ? PyIter_Next(keys) : NULL;
    Py_XDECREF(keys);
    return key;
}

static int add_pair(Tree *self, PyObject *key, PyObject *rival, int result) {
    PyObject *pair = Py_BuildValue("(Oi)", rival, result);
    int failed = !pair || PyODict_SetItem(self->pairs, key, pair);
    Py_XDECREF(pair);
    return failed;
}

static int nominate(Tree *self, PyObject *by_recency, PyObject *by_depth) {
    int same = PyObject_RichCompareBool(by_recency, by_depth, Py_EQ);
    if (same) return same < 0;
    if (drop(self, by_recency) == -2 || drop(self, by_depth) == -2) return -1;
    if (add_pair(self, by_recency, by_depth, -1) || add_pair(self, by_depth, by_recency, 1)) return -1;
    if (PyDict_GET_SIZE(self->pairs) / 2 <= self->size) return 0;
    PyObject *oldest = first_of(self->pairs);
    int failed = !oldest || drop(self, oldest) == -2;
    Py_XDECREF(oldest);
    return failed;
}
