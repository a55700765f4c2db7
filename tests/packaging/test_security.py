"""SECURITY.md against the code: what is never imported, called or passed in either package."""

import ast
from pathlib import Path

import pytest

import kvbench
import kvcache

FILES = sorted(path for package in (kvcache, kvbench) for path in Path(package.__file__).parent.rglob("*.py"))
ROOT = Path(kvcache.__file__).parents[1]

# Reads objects from bytes, and runs what they say.
UNPICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
NETWORK = {
    "socket", "ssl", "http", "urllib", "ftplib", "smtplib", "poplib", "imaplib", "telnetlib", "xmlrpc", "socketserver",
    "asyncio", "requests", "httpx", "aiohttp", "urllib3", "websockets", "fsspec", "boto3", "webbrowser",
}  # fmt: skip
TEXT_ONLY = "urllib.parse"  # quotes an address, and opens none
CALLS = {
    "eval", "exec", "compile", "__import__", "execfile", "os.system", "os.popen", "torch.load", "torch.jit.load",
    "torch.hub.load", "pd.read_pickle", "pandas.read_pickle", "pd.eval", "np.fromfile", "runpy.run_path",
    "runpy.run_module", "code.interact", "os.execv", "os.execvp", "os.spawnl",
}  # fmt: skip
# The one exception: a LightZero configuration is a Python file, and --config runs it.
RUNS_A_FILE = {("kvbench/record/lightzero_config.py", "runpy.run_path")}
# Whatever they are called on.
METHODS = {"read_pickle", "to_pickle", "from_pickle"}
ALLOWED_PROGRAMS = {"git", "sys.executable", "cc"}


def tree(path):
    return ast.parse(path.read_text(), str(path))


def name_of(path):
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else "/".join(path.parts[-3:])


def imported(node):
    if isinstance(node, ast.Import):
        return [each.name for each in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return []


def calls(path):
    """Each call of a file: the name as it is written, and the call."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def faults_of(text):
    """What a text of Python has that SECURITY.md says is not there."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        found |= {each for each in imported(node) if each.partition(".")[0] in UNPICKLES | NETWORK} - {TEXT_ONLY}
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in CALLS or name.rpartition(".")[2] in METHODS:
            found.add(name)
        for keyword in node.keywords:
            is_off = isinstance(keyword.value, ast.Constant) and not keyword.value.value
            if keyword.arg in ("shell", "allow_pickle") and not is_off:
                found.add(f"{name}({keyword.arg}=...)")
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_is_unpickled_run_as_code_or_fetched(path):
    allowed = {call for file, call in RUNS_A_FILE if name_of(path).endswith(file)}
    assert faults_of(path.read_text()) == allowed


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_git_the_compiler_and_this_python_are_run(path):
    for name, call in calls(path):
        if name in ("subprocess.run", "subprocess.Popen", "subprocess.check_output", "subprocess.call"):
            first = call.args[0]
            if isinstance(first, ast.Name):  # a list, made in the same file, or an argument of a function that runs one
                lists = [
                    node.value for node in ast.walk(tree(path))
                    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == first.id
                ]  # fmt: skip
            else:
                lists = [first]
            for each in lists:
                assert isinstance(each, ast.List), ast.unparse(call)
                program = each.elts[0]
                text = program.value if isinstance(program, ast.Constant) else ast.unparse(program)
                assert text in ALLOWED_PROGRAMS, ast.unparse(call)


def test_files_are_written_in_one_place():
    """Writes that may be cut off are those of logs and journals; all others go through kvbench/files.py."""
    streams = {"kvbench/trace/writer.py", "kvbench/training/run.py", "kvbench/training/worker.py", "kvbench/files.py"}
    streams |= {"kvbench/requests/oracle_general.py", "kvbench/requests/table.py"}  # a file that is whole or absent
    for path in FILES:
        for name, call in calls(path):
            mode = call.args[1] if len(call.args) > 1 else None
            writes = isinstance(mode, ast.Constant) and isinstance(mode.value, str) and set(mode.value) & set("wax+")
            if (name == "open" and writes) or name in ("os.replace", "os.rename", "shutil.move"):
                logs = ("kvbench/record/lightzero_log.py", "kvbench/sweep/local_workers.py")
                is_stream = any(name_of(path).endswith(each) for each in (*streams, *logs))
                assert is_stream, f"{path}: {ast.unparse(call)}"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("import pickle", "pickle"),
        ("from urllib.request import urlopen", "urllib.request"),
        ("eval('1')", "eval"),
        ("torch.load(path)", "torch.load"),
        ("np.load(path, allow_pickle=True)", "np.load(allow_pickle=...)"),
        ("subprocess.run('ls', shell=flag)", "subprocess.run(shell=...)"),
        ("frame.to_pickle(path)", "frame.to_pickle"),
        ("import yaml", "yaml"),
    ],
)
def test_a_fault_would_be_found(text, fault):
    assert faults_of(text) == {fault}


def test_what_is_fine_is_no_fault():
    assert faults_of("import json\nnp.load(path, allow_pickle=False)\nsubprocess.run(['ls'], shell=False)") == set()
