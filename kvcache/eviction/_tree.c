/* tree.py's TreePolicy, compiled. Both do the same; tree.py has the documentation.
 *
 * _tree_nodes.h has the orders, _tree_parts.h the rest of what the calls in _tree_calls.h are made of. Whatever may run
 * Python code (a key's __eq__, the lessons) runs while `busy` is set.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <structmember.h>

#include "_tree_calls.h"

#ifdef Py_GIL_DISABLED
#error "kvcache does not run on free-threaded Python: see setup.py"
#endif

/* Copies: see compiled.py. */

static PyObject *ordered(Tree *self, PyObject *unused) {
    if (begin(self)) return NULL; /* memory that is asked for may run the collector, and that whatever it frees */
    PyObject *found = PyList_New(0);
    for (int where = USELESS; where <= USEFUL; where++)
        for (Node *node = self->orders.lists[where].first; found && node; node = node->after)
            if (PyList_Append(found, (PyObject *)node)) Py_CLEAR(found);
    self->busy = 0;
    return found;
}

/* A node in no order, for `settle` or for `looked_up`. */
static PyObject *lone_node(Tree *self, PyObject *args) {
    Py_ssize_t slot;
    PyObject *key, *parent, *actions;
    long long depth, stores, lookups;
    int is_whole;
    if (!PyArg_ParseTuple(args, "nOOLpOLL", &slot, &key, &parent, &depth, &is_whole, &actions, &stores, &lookups))
        return NULL;
    long long most = whole(actions, 0);
    if (stores < 1) return PyErr_Format(PyExc_ValueError, "an entry is stored once or more");
    Node *node = most < 0 ? NULL : (Node *)new_node(self, slot, key, parent);
    if (!node) return NULL;
    node->depth = depth;
    node->is_whole = is_whole;
    node->actions = most;
    node->stores = stores;
    node->lookups = lookups;
    return (PyObject *)node;
}

static PyObject *place_node(Tree *self, PyObject *args) {
    Node *node;
    int is_useful;
    if (!PyArg_ParseTuple(args, "O!p", self->node_type, &node, &is_useful) || begin(self)) return NULL;
    int failed = make_room(self, node->slot);
    if (!failed && (self->at[node->slot] || node->where != OUT))
        failed = PyErr_Format(PyExc_ValueError, "slot %zd is occupied", node->slot) == NULL;
    if (!failed) {
        self->at[node->slot] = (Node *)Py_NewRef(node);
        put_in(&self->orders, node, is_useful);
    }
    return ended(self, failed);
}

/* Make a slot the one that was used last. */
static PyObject *renew(Tree *self, PyObject *slot) {
    Node *node = occupied(self, slot);
    if (!node || begin(self)) return NULL;
    use(&self->orders, node);
    return ended(self, 0);
}

static int visit_all(Tree *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->node_type);
    Py_VISIT(self->lessons);
    Py_VISIT(self->pairs);
    Py_VISIT(self->nodes);
    Py_VISIT(self->looked_up);
    Py_VISIT(self->extended);
    Py_VISIT(self->envs);
    for (Py_ssize_t slot = 0; slot < self->room; slot++) Py_VISIT(self->at[slot]);
    return 0;
}

static int drop_all(Tree *self) {
    Py_ssize_t room = self->room;
    self->room = self->orders.count = 0;
    memset(self->orders.lists, 0, sizeof self->orders.lists);
    Py_CLEAR(self->nodes);
    Py_CLEAR(self->looked_up);
    Py_CLEAR(self->lessons);
    Py_CLEAR(self->pairs);
    Py_CLEAR(self->extended);
    Py_CLEAR(self->envs);
    for (Py_ssize_t slot = 0; slot < room; slot++) Py_CLEAR(self->at[slot]);
    return 0;
}

static void destroy(Tree *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    drop_all(self);
    Py_CLEAR(self->node_type);
    Py_CLEAR(self->most_children);
    Py_CLEAR(self->follows_recency);
    PyMem_Free(self->at);
    PyMem_Free(self->orders.heap);
    type->tp_free(self);
    Py_DECREF(type);
}

static struct PyModuleDef definition;

static PyObject *make(PyTypeObject *type, PyObject *args, PyObject *named) {
    Py_ssize_t size;
    PyObject *lessons;
    if (!PyArg_ParseTuple(args, "nO", &size, &lessons)) return NULL;
    if (size <= 0) return PyErr_Format(PyExc_ValueError, "there is no pool of %zd slots", size);
    PyObject *module = PyType_GetModuleByDef(type, &definition);
    PyObject *node_type = module ? PyObject_GetAttrString(module, "Node") : NULL;
    Tree *self = node_type ? (Tree *)type->tp_alloc(type, 0) : NULL;
    if (!self) {
        Py_XDECREF(node_type);
        return NULL;
    }
    self->node_type = (PyTypeObject *)node_type;
    self->size = size;
    self->lessons = Py_NewRef(lessons);
    self->pairs = PyODict_New();
    self->extended = PyODict_New();
    self->nodes = PyDict_New();
    self->looked_up = PyDict_New();
    self->envs = PySet_New(NULL);
    self->most_children = PyUnicode_InternFromString("most_children");
    self->follows_recency = PyUnicode_InternFromString("follows_recency");
    if (!self->most_children || !self->follows_recency) return Py_DECREF(self), NULL;
    if (self->pairs && self->extended && self->nodes && self->looked_up && self->envs) return (PyObject *)self;
    Py_DECREF(self);
    return NULL;
}

#define METHOD(name, function, how) \
    {name, (PyCFunction)(void (*)(void))function, how, "As in kvcache.eviction.tree.TreePolicy, or in compiled.py."}

static PyMethodDef methods[] = {
    METHOD("insert", insert, METH_FASTCALL), METHOD("update", update, METH_FASTCALL), METHOD("touch", touch, METH_O),
    METHOD("miss", miss, METH_O), METHOD("remove", remove_slot, METH_O), METHOD("victim", victim, METH_O),
    METHOD("ordered", ordered, METH_NOARGS), METHOD("lone_node", lone_node, METH_VARARGS),
    METHOD("place_node", place_node, METH_VARARGS), METHOD("renew", renew, METH_O), {NULL, NULL, 0, NULL},
};

#define HELD(name) {#name, T_OBJECT_EX, offsetof(Tree, name), READONLY, NULL}

static PyMemberDef members[] = {
    HELD(lessons), HELD(pairs), HELD(nodes), HELD(looked_up), HELD(extended), HELD(envs),
    {"stores", T_INT, offsetof(Tree, stores), 0, NULL}, {"shares_tokens", T_INT, offsetof(Tree, shares_tokens), 0, NULL},
    {"size", T_PYSSIZET, offsetof(Tree, size), READONLY, NULL}, {NULL, 0, 0, 0, NULL},
};

static PyType_Slot parts[] = {
    {Py_tp_new, make}, {Py_tp_dealloc, destroy}, {Py_tp_traverse, visit_all}, {Py_tp_clear, drop_all},
    {Py_tp_methods, methods}, {Py_tp_members, members}, {0, NULL},
};

static PyType_Spec spec = {
    .name = "kvcache.eviction._tree.Tree", .basicsize = sizeof(Tree), .slots = parts,
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
};

static int add_type(PyObject *module, const char *name, PyType_Spec *of) {
    PyObject *type = PyType_FromModuleAndSpec(module, of, NULL);
    int failed = !type || PyModule_AddObjectRef(module, name, type);
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static int fill(PyObject *module) {
    return add_type(module, "Node", &node_spec) || add_type(module, "Tree", &spec) ? -1 : 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_tree", .m_doc = "The policy for search trees, compiled.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__tree(void) { return PyModuleDef_Init(&definition); }
