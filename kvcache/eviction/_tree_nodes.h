/* Entries of a pool of a search tree, and the orders in which they are evicted: two linked lists and a heap.
 *
 * Included by _tree.c. Nothing here runs Python code or asks for memory but `make_node` and `make_room`.
 */
#include <Python.h>

enum { OUT, USELESS, USEFUL }; /* where a node is: in no order, in the first list, or in the second and in the heap */

/* As tree.py's _Node. */
typedef struct Node {
    PyObject_HEAD
    PyObject *key, *parent;
    struct Node *before, *after; /* in the list that it is in */
    Py_ssize_t slot, place;      /* `place` in the heap */
    long long depth, actions, stores, lookups;
    unsigned long long placed; /* when it was put into its order */
    int is_whole, where;
} Node;

typedef struct {
    Node *first, *last;
} List;

typedef struct {
    List lists[3]; /* by `where`: the first is not used */
    Node **heap;   /* the deepest first, and of these the newest */
    Py_ssize_t count;
    unsigned long long now;
} Orders;

static void unlink_node(Orders *self, Node *node) {
    List *list = &self->lists[node->where];
    *(node->before ? &node->before->after : &list->first) = node->after;
    *(node->after ? &node->after->before : &list->last) = node->before;
}

static void link_last(Orders *self, Node *node) {
    List *list = &self->lists[node->where];
    node->before = list->last;
    node->after = NULL;
    *(list->last ? &list->last->after : &list->first) = node;
    list->last = node;
}

static void set_place(Orders *self, Py_ssize_t place, Node *node) {
    self->heap[place] = node;
    node->place = place;
}

static int is_deeper(const Node *a, const Node *b) {
    return a->depth != b->depth ? a->depth > b->depth : a->placed > b->placed;
}

static void sift(Orders *self, Node *node) {
    Py_ssize_t place = node->place, below;
    while (place && is_deeper(node, self->heap[(place - 1) / 2])) {
        set_place(self, place, self->heap[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    while ((below = 2 * place + 1) < self->count) {
        if (below + 1 < self->count && is_deeper(self->heap[below + 1], self->heap[below])) below++;
        if (!is_deeper(self->heap[below], node)) break;
        set_place(self, place, self->heap[below]);
        place = below;
    }
    set_place(self, place, node);
}

/* Put a node into its order; there is room for it. */
static void put_in(Orders *self, Node *node, int is_useful) {
    node->where = is_useful ? USEFUL : USELESS;
    node->placed = self->now++;
    link_last(self, node);
    if (!is_useful) return;
    node->place = self->count++;
    sift(self, node);
}

static void take_out(Orders *self, Node *node) {
    if (node->where == OUT) return;
    unlink_node(self, node);
    if (node->where == USEFUL) {
        Node *moved = self->heap[--self->count];
        if (moved != node) {
            moved->place = node->place;
            sift(self, moved);
        }
    }
    node->where = OUT;
}

static int visit_node(Node *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->key);
    Py_VISIT(self->parent);
    return 0;
}

static int clear_node(Node *self) {
    Py_CLEAR(self->key);
    Py_CLEAR(self->parent);
    return 0;
}

static void destroy_node(Node *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    clear_node(self);
    type->tp_free(self);
    Py_DECREF(type);
}

#define MEMBER(name, kind) {#name, kind, offsetof(Node, name), READONLY, NULL}

static PyMemberDef node_members[] = {
    MEMBER(key, T_OBJECT), MEMBER(parent, T_OBJECT), MEMBER(slot, T_PYSSIZET), MEMBER(depth, T_LONGLONG),
    MEMBER(actions, T_LONGLONG), MEMBER(stores, T_LONGLONG), MEMBER(lookups, T_LONGLONG), MEMBER(placed, T_ULONGLONG),
    MEMBER(is_whole, T_INT), MEMBER(where, T_INT), {NULL, 0, 0, 0, NULL},
};

static PyType_Slot node_parts[] = {
    {Py_tp_dealloc, destroy_node}, {Py_tp_traverse, visit_node}, {Py_tp_clear, clear_node},
    {Py_tp_members, node_members}, {0, NULL},
};

static PyType_Spec node_spec = {
    .name = "kvcache.eviction._tree.Node", .basicsize = sizeof(Node), .slots = node_parts,
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
};
