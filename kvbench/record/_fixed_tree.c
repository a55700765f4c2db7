/* LightZero's compiled tree seeds the C library's generator from the clock at every traversal, by this function. Loaded
 * with RTLD_GLOBAL before the tree, this one takes its place: ties between actions are then broken by the seed that was
 * set with srand(). LightZero 0.2.0, lzero/mcts/ctree/common_lib (the mangled name of get_time_and_set_rand_seed). */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#ifdef Py_GIL_DISABLED
#error "kvcache does not run on free-threaded Python: see setup.py"
#endif

__attribute__((visibility("default"))) void _Z26get_time_and_set_rand_seedv(void) {}

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_fixed_tree", NULL, -1, NULL};

PyMODINIT_FUNC PyInit__fixed_tree(void) { return PyModule_Create(&module); }
