/* The calls of TreePolicy, in C. Included by _tree.c. */
#include <Python.h>

#include "_tree_parts.h"

static int call(PyObject *lessons, const char *method, long long number) {
    PyObject *done = PyObject_CallMethod(lessons, method, "L", number);
    Py_XDECREF(done);
    return done == NULL;
}

/* As TreePolicy._note; `node` is Py_None where the key was missed. */
static int note(Tree *self, PyObject *key, PyObject *node) {
    if (self->stores || PyDict_GET_SIZE(self->looked_up) == LARGEST_BATCH) {
        PyObject *fresh = PyDict_New();
        if (!fresh) return -1;
        Py_SETREF(self->looked_up, fresh);
        self->stores = 0;
    }
    if (PyDict_SetItem(self->looked_up, key, node)) return -1;
    int result = drop(self, key);
    return result == -2 || (result && call(self->lessons, "judged", result));
}

/* As TreePolicy._grown. */
static int grown(Tree *self, PyObject *info, long long *depth, int *is_whole) {
    if (!PyTuple_Check(info) || PyTuple_GET_SIZE(info) != FIELDS)
        return PyErr_SetString(PyExc_TypeError, "what is known of an entry is an EntryInfo"), -1;
    PyObject *tokens = PyTuple_GET_ITEM(info, TOKENS), *new_tokens = PyTuple_GET_ITEM(info, NEW_TOKENS);
    PyObject *parent = PyTuple_GET_ITEM(info, PARENT);
    self->stores = 1;
    if (PySet_Add(self->envs, PyTuple_GET_ITEM(info, ENV))) return -1;
    if (tokens != Py_None && new_tokens != Py_None && !self->shares_tokens) {
        int less = PyObject_RichCompareBool(new_tokens, tokens, Py_LT);
        if (less < 0) return -1;
        self->shares_tokens = less;
    }
    int was_looked_up;
    Node *seen = node_of(self, self->looked_up, parent, &was_looked_up), *above = seen;
    if (!above && !PyErr_Occurred()) above = node_of(self, self->nodes, parent, NULL);
    if (PyErr_Occurred()) return -1;
    *depth = whole(PyTuple_GET_ITEM(info, DEPTH), above && above->depth < LARGEST ? above->depth + 1 : 1);
    if (above && above->depth == LARGEST && PyTuple_GET_ITEM(info, DEPTH) == Py_None) *depth = LARGEST;
    *is_whole = !was_looked_up || (seen && seen->is_whole);
    return *depth < 0;
}

static PyObject *new_node(Tree *self, Py_ssize_t slot, PyObject *key, PyObject *parent) {
    Node *node = (Node *)self->node_type->tp_alloc(self->node_type, 0);
    if (!node) return NULL;
    node->slot = slot;
    node->key = Py_NewRef(key);
    node->parent = Py_NewRef(parent);
    node->stores = 1;
    return (PyObject *)node;
}

/* Give a node its slot; it is in no order and in no dict yet. */
static int settle(Tree *self, Node *node) {
    if (make_room(self, node->slot)) return -1;
    if (self->at[node->slot]) return PyErr_Format(PyExc_ValueError, "slot %zd is occupied", node->slot), -1;
    int useful = is_useful(self, node);
    if (useful < 0 || PyDict_SetItem(self->nodes, node->key, (PyObject *)node)) return -1;
    self->at[node->slot] = (Node *)Py_NewRef(node);
    put_in(&self->orders, node, useful);
    return 0;
}

static PyObject *insert(Tree *self, PyObject *const *args, Py_ssize_t given) {
    if (given != 2) return PyErr_Format(PyExc_TypeError, "insert takes a slot and an entry");
    Py_ssize_t slot = PyLong_AsSsize_t(args[0]);
    if ((slot == -1 && PyErr_Occurred()) || begin(self)) return NULL;
    PyObject *info = args[1];
    long long depth, actions = 0;
    int is_whole, failed = grown(self, info, &depth, &is_whole);
    Node *node = NULL;
    if (!failed) failed = (actions = whole(PyTuple_GET_ITEM(info, ACTIONS), 0)) < 0;
    if (!failed)
        node = (Node *)new_node(self, slot, PyTuple_GET_ITEM(info, KEY), PyTuple_GET_ITEM(info, PARENT));
    if (node) {
        node->depth = depth;
        node->is_whole = is_whole;
        node->actions = actions;
    }
    failed = !node || settle(self, node);
    Py_XDECREF(node);
    return ended(self, failed);
}

static PyObject *update(Tree *self, PyObject *const *args, Py_ssize_t given) {
    if (given != 2) return PyErr_Format(PyExc_TypeError, "update takes a slot and an entry");
    Node *node = occupied(self, args[0]);
    if (!node || begin(self)) return NULL;
    long long depth;
    int is_whole, useful = -1;
    if (!grown(self, args[1], &depth, &is_whole)) {
        take_out(&self->orders, node);
        node->stores++;
        node->depth = depth;
        node->is_whole = is_whole;
        Py_SETREF(node->parent, Py_NewRef(PyTuple_GET_ITEM(args[1], PARENT)));
        useful = is_useful(self, node);
        put_in(&self->orders, node, useful > 0);
    }
    return ended(self, useful < 0);
}

static void use(Orders *orders, Node *node) {
    if (node->where != USEFUL || !node->after) return;
    unlink_node(orders, node);
    link_last(orders, node);
}

/* As TreePolicy._use_path. */
static int use_path(Tree *self, Node *node) {
    Py_ssize_t length = LONGEST_PATH;
    if (!self->shares_tokens) {
        Py_ssize_t envs = PySet_GET_SIZE(self->envs);
        Py_ssize_t most = PyDict_GET_SIZE(self->nodes) / (envs ? envs : 1) - KEPT_FREE;
        if (most < length) length = most < 1 ? 1 : most;
    }
    while (node && length--) {
        use(&self->orders, node);
        node = node_of(self, self->nodes, node->parent, NULL);
    }
    return PyErr_Occurred() != NULL;
}

static int touched(Tree *self, Node *node) {
    if (note(self, node->key, (PyObject *)node)) return -1;
    node->lookups++;
    if (node->lookups % node->stores == 0 && call(self->lessons, "extended", node->lookups / node->stores)) return -1;
    int useful = is_useful(self, node);
    if (useful < 0) return -1;
    if (!useful && node->where == USEFUL) {
        take_out(&self->orders, node);
        put_in(&self->orders, node, 0);
    }
    return use_path(self, node);
}

static PyObject *touch(Tree *self, PyObject *slot) {
    Node *node = occupied(self, slot);
    return !node || begin(self) ? NULL : ended(self, touched(self, node));
}

static PyObject *miss(Tree *self, PyObject *key) {
    if (begin(self)) return NULL;
    int failed = note(self, key, Py_None), is_there = failed ? -1 : PyDict_Contains(self->extended, key);
    if (is_there > 0) {
        PyObject *done = PyODict_DelItem(self->extended, key)
                             ? NULL
                             : PyObject_CallMethod(self->lessons, "asked_again", NULL);
        is_there = done ? 1 : -1;
        Py_XDECREF(done);
    }
    return ended(self, is_there < 0);
}

/* Forget a node that is in no order any more. */
static int forget(Tree *self, Node *node) {
    Node *named = node_of(self, self->nodes, node->key, NULL);
    if (PyErr_Occurred() || (named == node && PyDict_DelItem(self->nodes, node->key))) return -1;
    int useful = is_useful(self, node);
    if (useful || !node->is_whole) return useful < 0;
    if (PyODict_SetItem(self->extended, node->key, Py_None)) return -1;
    if (PyDict_GET_SIZE(self->extended) <= self->size) return 0;
    PyObject *oldest = first_of(self->extended);
    int failed = !oldest || PyODict_DelItem(self->extended, oldest);
    Py_XDECREF(oldest);
    return failed;
}

static PyObject *remove_slot(Tree *self, PyObject *slot) {
    Node *node = occupied(self, slot);
    if (!node || begin(self)) return NULL;
    take_out(&self->orders, node);
    self->at[node->slot] = NULL;
    int failed = forget(self, node);
    Py_DECREF(node);
    return ended(self, failed);
}

static PyObject *victim(Tree *self, PyObject *incoming) {
    Node *node = self->orders.lists[USELESS].first;
    if (node) return PyLong_FromSsize_t(node->slot);
    if (!self->orders.count) return PyErr_Format(PyExc_IndexError, "no slot is occupied");
    if (begin(self)) return NULL;
    Node *by_recency = self->orders.lists[USEFUL].first, *by_depth = self->orders.heap[0];
    PyObject *follows = NULL;
    if (!nominate(self, by_recency->key, by_depth->key))
        follows = PyObject_GetAttr(self->lessons, self->follows_recency);
    int recent = follows ? PyObject_IsTrue(follows) : -1;
    Py_XDECREF(follows);
    self->busy = 0;
    return recent < 0 ? NULL : PyLong_FromSsize_t((recent ? by_recency : by_depth)->slot);
}
