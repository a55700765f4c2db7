/* The order of eviction: FIFO and LRU link the slots, PRIORITY has them in a binary heap, where each knows its place.
 *
 * Included by _slots.c, which knows the keys.
 */
#include <Python.h>
#include <stdint.h>

enum { FIFO, LRU, PRIORITY, KINDS };
enum { NONE = -1, FAILED = -2 }; /* instead of a slot */
static const long long MOST_EXACT = 1LL << 53; /* integers up to it are doubles */

typedef struct {
    PyObject *key, *priority; /* NULL until first used */
    double number;            /* the priority, where it is one exactly */
    int is_exact;
    uint64_t age;
    Py_ssize_t before, after; /* neighbours in the order of FIFO and LRU; `before` is the place in PRIORITY's heap */
} Slot;

typedef struct {
    PyObject_HEAD
    PyObject *numbers; /* dict: the slot of each key */
    PyObject *former;  /* the dict before the last clear: freed by the next claim, since clearing it takes a while */
    PyObject *evicted; /* the key that was evicted last */
    Slot *at;
    Py_ssize_t *free, *heap; /* stacks of free slots and of PRIORITY's heap */
    Py_ssize_t size, unused, free_count, count, first, last;
    uint64_t next_age;
    int kind, busy;
} Slots;

static void swap_in(Slots *self, Py_ssize_t place, Py_ssize_t slot) {
    self->heap[place] = slot;
    self->at[slot].before = place;
}

/* Whether slot a is evicted before b; -1 with an error. */
static int is_before(Slots *self, Py_ssize_t a, Py_ssize_t b) {
    Slot *left = &self->at[a], *right = &self->at[b];
    if (left->is_exact && right->is_exact) {
        if (left->number != right->number) return left->number < right->number;
    } else {
        int differs = PyObject_RichCompareBool(left->priority, right->priority, Py_NE);
        if (differs) return differs < 0 ? -1 : PyObject_RichCompareBool(left->priority, right->priority, Py_LT);
    }
    return left->age < right->age;
}

/* Move a slot of the heap to where it belongs. By swaps: where a comparison fails all slots are still there. */
static int sift(Slots *self, Py_ssize_t place) {
    Py_ssize_t slot = self->heap[place];
    int less = 0;
    while (place) {
        Py_ssize_t above = (place - 1) / 2;
        if ((less = is_before(self, slot, self->heap[above])) <= 0) break;
        swap_in(self, place, self->heap[above]);
        swap_in(self, place = above, slot);
    }
    for (Py_ssize_t below; less >= 0 && (below = 2 * place + 1) < self->count; ) {
        if (below + 1 < self->count && (less = is_before(self, self->heap[below + 1], self->heap[below])) > 0) below++;
        if (less < 0 || (less = is_before(self, self->heap[below], slot)) <= 0) break;
        swap_in(self, place, self->heap[below]);
        swap_in(self, place = below, slot);
    }
    return less < 0 ? -1 : 0;
}

static void unlink_slot(Slots *self, Py_ssize_t slot) {
    Slot *each = &self->at[slot];
    *(each->before == NONE ? &self->first : &self->at[each->before].after) = each->after;
    *(each->after == NONE ? &self->last : &self->at[each->after].before) = each->before;
}

static void link_last(Slots *self, Py_ssize_t slot) {
    self->at[slot].before = self->last;
    self->at[slot].after = NONE;
    *(self->last == NONE ? &self->first : &self->at[self->last].after) = slot;
    self->last = slot;
}

static int set_priority(Slots *self, Py_ssize_t slot, PyObject *priority) {
    Slot *each = &self->at[slot];
    int overflows = 0;
    each->is_exact = PyFloat_CheckExact(priority);
    if (each->is_exact) each->number = PyFloat_AS_DOUBLE(priority);
    else if (PyLong_CheckExact(priority)) {
        long long whole = PyLong_AsLongLongAndOverflow(priority, &overflows);
        each->is_exact = !overflows && -MOST_EXACT <= whole && whole <= MOST_EXACT;
        each->number = (double)whole;
    }
    Py_XSETREF(each->priority, Py_NewRef(priority));
    return sift(self, each->before);
}

/* The youngest key has this slot. `had_place`: an older one had it, whose place in the order is there still. */
static int insert(Slots *self, Py_ssize_t slot, PyObject *priority, int had_place) {
    self->at[slot].age = self->next_age++;
    if (self->kind != PRIORITY) {
        if (had_place) unlink_slot(self, slot);
        else self->count++;
        link_last(self, slot);
        return 0;
    }
    if (!had_place) swap_in(self, self->count++, slot); /* below all others, until its priority is known */
    PyObject *given = priority == Py_None ? PyFloat_FromDouble(0.0) : Py_NewRef(priority); /* DEFAULT_PRIORITY */
    int failed = given == NULL || set_priority(self, slot, given);
    Py_XDECREF(given);
    return failed ? -1 : 0;
}

static int remove_slot(Slots *self, Py_ssize_t slot) {
    self->count--;
    if (self->kind != PRIORITY) {
        unlink_slot(self, slot);
        return 0;
    }
    Py_ssize_t place = self->at[slot].before, moved = self->heap[self->count];
    if (moved == slot) return 0;
    swap_in(self, place, moved);
    return sift(self, place);
}

/* A key is looked up or stored again. */
static void touch(Slots *self, Py_ssize_t slot) {
    if (self->kind != LRU || slot == self->last) return;
    unlink_slot(self, slot);
    link_last(self, slot);
    self->at[slot].age = self->next_age++;
}
