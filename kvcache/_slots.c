/* slots.py, compiled, for FIFO, LRU and PRIORITY. Both do the same; slots.py has the documentation.
 *
 * _slots_order.h has the order of eviction. Whatever may run Python code (a key's __eq__, a priority's __lt__) runs while
 * `busy` is set.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <structmember.h>

#include "_slots_order.h"

#ifdef Py_GIL_DISABLED
#error "kvcache does not run on free-threaded Python: see setup.py"
#endif

/* The slot of a key; NONE where it has none. */
static Py_ssize_t slot_of(Slots *self, PyObject *key) {
    PyObject *numbers = Py_NewRef(self->numbers); /* a key's __eq__ may clear the pool */
    PyObject *number = PyDict_GetItemWithError(numbers, key);
    Py_ssize_t slot = number ? PyLong_AsSsize_t(number) : PyErr_Occurred() ? FAILED : NONE;
    Py_DECREF(numbers);
    return slot;
}

static PyObject *answer(Py_ssize_t slot) {
    if (slot == FAILED) return NULL;
    return slot == NONE ? Py_NewRef(Py_None) : PyLong_FromSsize_t(slot);
}

static int begin(Slots *self) {
    if (!self->busy) return !(self->busy = 1);
    PyErr_SetString(PyExc_RuntimeError, "a key or priority called the pool that compared it");
    return -1;
}

static PyObject *peek(Slots *self, PyObject *key) { return answer(slot_of(self, key)); }

static PyObject *find(Slots *self, PyObject *key) {
    if (begin(self)) return NULL;
    Py_ssize_t slot = slot_of(self, key);
    self->busy = 0;
    if (slot >= 0) touch(self, slot);
    return answer(slot);
}

/* Take the slot that is evicted next from its key, but not from the order. Returns it; NONE with an error. */
static Py_ssize_t take_victim(Slots *self) {
    if (!self->count) {
        PyErr_SetString(PyExc_IndexError, "no slot is occupied");
        return NONE;
    }
    Py_ssize_t slot = self->kind == PRIORITY ? self->heap[0] : self->first;
    Py_XSETREF(self->evicted, Py_NewRef(self->at[slot].key));
    return PyDict_DelItem(self->numbers, self->evicted) ? NONE : slot;
}

static PyObject *claim(Slots *self, PyObject *const *args, Py_ssize_t given) {
    if (given != 2 && given != 3) return PyErr_Format(PyExc_TypeError, "claim takes a key, a priority and an entry");
    PyObject *key = args[0], *priority = args[1], *number = NULL;
    if (begin(self)) return NULL;
    int evicts = 0;
    Py_ssize_t slot = slot_of(self, key);
    if (slot >= 0) {
        touch(self, slot);
        if (self->kind == PRIORITY && priority != Py_None && set_priority(self, slot, priority)) slot = FAILED;
        number = answer(slot);
    } else if (slot == NONE) {
        if (self->free_count) slot = self->free[--self->free_count];
        else if (self->unused < self->size) {
            if (!self->unused) Py_CLEAR(self->former);
            slot = self->unused++;
        } else {
            evicts = 1;
            slot = take_victim(self);
        }
        if (slot >= 0) {
            Py_XSETREF(self->at[slot].key, Py_NewRef(key));
            number = PyLong_FromSsize_t(slot);
            if (!number || PyDict_SetItem(self->numbers, key, number) || insert(self, slot, priority, evicts))
                Py_CLEAR(number);
        }
    }
    self->busy = 0;
    if (number && evicts) Py_SETREF(number, PyLong_FromSsize_t(~slot));
    return number;
}

static PyObject *evict(Slots *self, PyObject *const *incoming, Py_ssize_t given) {
    if (begin(self)) return NULL;
    Py_ssize_t slot = take_victim(self);
    int failed = slot == NONE || remove_slot(self, slot);
    self->busy = 0;
    if (failed) return NULL;
    self->free[self->free_count++] = slot;
    return PyLong_FromSsize_t(slot);
}

static PyObject *clear(Slots *self, PyObject *unused) {
    if (!self->unused) Py_RETURN_NONE;
    PyObject *numbers = PyDict_New();
    if (!numbers || begin(self)) {
        Py_XDECREF(numbers);
        return NULL;
    }
    PyObject *former = self->former;
    self->former = self->numbers;
    self->numbers = numbers;
    self->unused = self->free_count = self->count = 0;
    self->first = self->last = NONE;
    self->busy = 0;
    Py_XDECREF(former);
    Py_RETURN_NONE;
}

static PyObject *occupied(Slots *self, PyObject *unused) {
    if (begin(self)) return NULL; /* memory that is asked for may run the collector, and that whatever it frees */
    PyObject *found = PyList_New(0);
    for (Py_ssize_t i = 0, slot = self->first; found && i < self->count; i++) {
        if (self->kind == PRIORITY) slot = self->heap[i];
        Slot *each = &self->at[slot];
        PyObject *priority = self->kind == PRIORITY ? each->priority : Py_None;
        PyObject *one = Py_BuildValue("(KOnO)", (unsigned long long)each->age, each->key, slot, priority);
        if (!one || PyList_Append(found, one)) Py_CLEAR(found);
        Py_XDECREF(one);
        slot = each->after;
    }
    self->busy = 0;
    return found;
}

static PyObject *free_slots(Slots *self, PyObject *unused) {
    if (begin(self)) return NULL;
    PyObject *found = PyList_New(self->free_count);
    for (Py_ssize_t i = 0; found && i < self->free_count; i++)
        PyList_SET_ITEM(found, i, PyLong_FromSsize_t(self->free[i]));
    self->busy = 0;
    return found;
}

static PyObject *keys(Slots *self, PyObject *unused) { return PyDict_Keys(self->numbers); }

static PyObject *unused_slots(Slots *self, void *closure) { return PyLong_FromSsize_t(self->size - self->unused); }

/* Says that a fresh slot is given: it is none, or was given before. */
static int take_fresh(Slots *self, Py_ssize_t slot) {
    if (slot >= 0 && slot < self->unused && !self->at[slot].key && !self->at[slot].after)
        return self->at[slot].after = NONE, 0;
    PyErr_Format(PyExc_ValueError, "%zd is no slot, or is given twice", slot);
    return -1;
}

/* Of fresh slots: as `occupied`, which must be in the order of age, `free_slots` and `unused_slots` of others were. */
static PyObject *restore(Slots *self, PyObject *args) {
    PyObject *occupied, *free, *key, *priority;
    Py_ssize_t unused, slot;
    unsigned long long age;
    if (!PyArg_ParseTuple(args, "O!O!n", &PyList_Type, &occupied, &PyList_Type, &free, &unused)) return NULL;
    if (self->unused || unused < 0 || PyList_GET_SIZE(occupied) + PyList_GET_SIZE(free) + unused != self->size)
        return PyErr_Format(PyExc_ValueError, "these are not all of %zd fresh slots", self->size);
    if (begin(self)) return NULL;
    self->unused = self->size - unused;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(free) && !PyErr_Occurred(); i++) {
        slot = PyLong_AsSsize_t(PyList_GET_ITEM(free, i));
        if (!PyErr_Occurred() && !take_fresh(self, slot)) self->free[self->free_count++] = slot;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(occupied) && !PyErr_Occurred(); i++) {
        PyObject *each = PyList_GET_ITEM(occupied, i);
        if (!PyTuple_Check(each)) PyErr_SetString(PyExc_TypeError, "an occupied slot is a tuple");
        else PyArg_ParseTuple(each, "KOnO", &age, &key, &slot, &priority);
        if (PyErr_Occurred()) break;
        if (take_fresh(self, slot)) break;
        self->at[slot].key = Py_NewRef(key);
        PyObject *number = PyLong_FromSsize_t(slot);
        if (number && !PyDict_SetItem(self->numbers, key, number)) insert(self, slot, priority, 0);
        Py_XDECREF(number);
    }
    self->busy = 0;
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static Py_ssize_t length(Slots *self) { return self->count; }

static int visit_all(Slots *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->numbers);
    Py_VISIT(self->former);
    Py_VISIT(self->evicted);
    for (Py_ssize_t slot = 0; self->at && slot < self->size; slot++) {
        Py_VISIT(self->at[slot].key);
        Py_VISIT(self->at[slot].priority);
    }
    return 0;
}

static int drop_all(Slots *self) {
    Py_CLEAR(self->numbers);
    Py_CLEAR(self->former);
    Py_CLEAR(self->evicted);
    for (Py_ssize_t slot = 0; self->at && slot < self->size; slot++) {
        Py_CLEAR(self->at[slot].key);
        Py_CLEAR(self->at[slot].priority);
    }
    return 0;
}

static void destroy(Slots *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    drop_all(self);
    PyMem_Free(self->at);
    PyMem_Free(self->free);
    PyMem_Free(self->heap);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *make(PyTypeObject *type, PyObject *args, PyObject *named) {
    int kind;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "in", &kind, &size)) return NULL;
    if (kind < 0 || kind >= KINDS || size <= 0)
        return PyErr_Format(PyExc_ValueError, "there are no slots of kind %d and size %zd", kind, size);
    Slots *self = (Slots *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->kind = kind;
    self->size = size;
    self->first = self->last = NONE;
    self->numbers = PyDict_New();
    self->evicted = Py_NewRef(Py_None);
    self->at = PyMem_Calloc(size, sizeof(Slot));
    self->free = PyMem_Calloc(size, sizeof(Py_ssize_t));
    self->heap = PyMem_Calloc(kind == PRIORITY ? size : 1, sizeof(Py_ssize_t));
    if (self->numbers && self->at && self->free && self->heap) return (PyObject *)self;
    Py_DECREF(self);
    return PyErr_NoMemory();
}

#define METHOD(name, how) {#name, (PyCFunction)(void (*)(void))name, how, "As in kvcache.slots.PolicySlots."}

static PyMethodDef methods[] = {
    METHOD(find, METH_O), METHOD(peek, METH_O), METHOD(claim, METH_FASTCALL), METHOD(evict, METH_FASTCALL),
    METHOD(clear, METH_NOARGS), METHOD(keys, METH_NOARGS), METHOD(occupied, METH_NOARGS),
    METHOD(free_slots, METH_NOARGS), METHOD(restore, METH_VARARGS), {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"evicted", T_OBJECT, offsetof(Slots, evicted), READONLY, NULL},
    {"kind", T_INT, offsetof(Slots, kind), READONLY, NULL},
    {"size", T_PYSSIZET, offsetof(Slots, size), READONLY, NULL}, {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef attributes[] = {{"unused", (getter)unused_slots, NULL, NULL, NULL}, {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot parts[] = {
    {Py_tp_new, make}, {Py_tp_dealloc, destroy}, {Py_tp_traverse, visit_all}, {Py_tp_clear, drop_all},
    {Py_tp_methods, methods}, {Py_tp_members, members}, {Py_tp_getset, attributes}, {Py_mp_length, length}, {0, NULL},
};

static PyType_Spec spec = {
    .name = "kvcache._slots.Slots", .basicsize = sizeof(Slots), .slots = parts,
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
};

static int fill(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    int failed = !type || PyModule_AddObjectRef(module, "Slots", type);
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_slots", .m_doc = "Keys, slots and the order of eviction, compiled.",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__slots(void) { return PyModuleDef_Init(&definition); }
