"""Reading callgrind's counts by stack: what is a frame, and whose a count is."""

from kvbench.measure.callgrind_stacks import read_stacks

# As callgrind 3.19 writes it: names once, then by number; behind "calls=" stands what the callee executed.
DUMP = """# callgrind format
version: 1
desc: Trigger: Client Request: store
positions: line
events: Ir
summary: 171

ob=(1) /usr/lib/libpython3.11.so.1.0
fl=(1) ceval.c
fn=(1) _PyEval_EvalFrameDefault'python_function_1'evaluate'_PyEval_EvalFrameDefault'python_function_0
0 100
cob=(2) /tmp/side/kvcache/storage/_page_arrays.cpython-311-x86_64-linux-gnu.so
cfn=(2) move'_PyEval_EvalFrameDefault'python_function_1'evaluate'_PyEval_EvalFrameDefault'python_function_0
calls=1 0
0 63
+0 5

ob=(2)
fn=(2)
0 40

ob=(3) /torch/lib/libtorch_cpu.so
fn=(3) copy(at::Tensor)'at::_ops::copy_::call(at::Tensor&)'move'python_function_1'2'evaluate'python_function_0
0 23

fn=(4) _PyEval_EvalFrameDefault'python_function_77'evaluate'python_function_0
0 3
totals: 171
"""
HARNESS = "Counter.count (kvbench/measure/instructions.py)"
STORE = "Pool.store (kvcache/pool.py)"


def test_python_c_functions_of_the_library_and_operators_are_frames(tmp_path):
    path = tmp_path / "callgrind.out.7.1"
    path.write_text(DUMP)
    assert read_stacks(path, [HARNESS, STORE]) == {
        (STORE,): 105,
        (STORE, "move (kvcache/storage/_page_arrays.c)"): 40,
        (STORE, "move (kvcache/storage/_page_arrays.c)", "aten::copy_"): 23,
        ("other Python functions",): 3,
    }
