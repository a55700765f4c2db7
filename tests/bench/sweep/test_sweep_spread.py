"""Cells on workers that die, differ or lack something: a scheduler of our own stands for Dask's."""

import itertools

import pytest
from sweep_plans import cells_in

from kvbench.sweep import spread
from kvbench.sweep.cells import trace_files
from kvbench.sweep.folder import SweepFolder
from kvbench.sweep.handed import Handed
from kvbench.sweep.local_workers import SweepError
from kvbench.sweep.measure import failed_row
from kvbench.sweep.plan import read_plan
from kvbench.sweep.spread import MOST_DEATHS, Spread
from kvbench.sweep.worker import Introduction, Software, Task


class FakeFuture:
    def __init__(self, key):
        self.key, self.status, self.value, self.callback = key, "pending", None, None

    def add_done_callback(self, callback):
        self.callback = callback

    def end(self, value, status="finished"):
        self.value, self.status = value, status
        self.callback(self)

    def result(self):
        return self.value

    def exception(self):
        return self.value

    def release(self):
        self.callback = None


class FakeClient:
    """Workers by their addresses; each call of ``scheduler_info`` lets every worker end what it runs.

    ``run`` computes a cell's row, or is None for a cell that kills its worker. A worker that died is there again under
    another address.
    """

    status = "running"

    def __init__(self, workers, run=None, software=None, sees=True):
        self.workers, self.run, self.sees = workers, run or self.done, sees
        self.software = software or (lambda address: Software.here())
        self.pending, self.sent, self.together = {}, [], []
        self.numbers = itertools.count()

    @staticmethod
    def done(cell, address):
        return {"status": "done", "cell": cell.id, "worker": address, "hit": 1}

    def scheduler_info(self, n_workers):
        for address, (future, argument) in list(self.pending.items()):
            del self.pending[address]
            if not isinstance(argument, Task):
                seen = frozenset(each.sha256 for each in argument) if self.sees else frozenset()
                future.end(Introduction(self.software(address), seen, self.sees))
            elif (row := self.run(argument.cell, address)) is None:
                self.workers[f"{address.partition('-')[0]}-{next(self.numbers)}"] = self.workers.pop(address)
            else:
                future.end(*row) if isinstance(row, tuple) else future.end(row)
        return {"workers": dict(self.workers)}

    def submit(self, function, argument, *others, workers, allow_other_workers, pure, resources=None):
        (address,) = workers
        assert address not in self.pending, "two tasks at once"
        assert not allow_other_workers
        future = FakeFuture(f"task {next(self.numbers)}")
        self.pending[address] = future, argument
        if isinstance(argument, Task):
            self.sent.append((argument, address, resources))
            running = [(each, task.cell) for each, (_, task) in self.pending.items() if isinstance(task, Task)]
            self.together.append(running)
        return future


def host(name="a", **resources):
    return {"host": name, "resources": resources}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(spread, "_TICK", 0.001)
    monkeypatch.setattr(spread, "_PATIENCE", 0.05)
    monkeypatch.setattr(spread, "_ALONE", 0)


class Rows(dict):
    """What was stored, by cell."""

    def __call__(self, cell, row, is_written):
        assert cell.id not in self
        self[cell.id] = row | {"is_written": is_written}


def spread_over(place, client, said=None, wheels=()):
    plan = read_plan(place / "plan.toml")
    handed = Handed(SweepFolder(place / "out"), list(trace_files(plan)), wheels)
    return Spread(client, handed, (said if said is not None else []).append)


def test_all_cells_run_once_on_all_workers(place):
    cells, rows = cells_in(place), Rows()
    client = FakeClient({"w1": host(), "w2": host()})
    spread_over(place, client).compute(cells, rows)
    assert rows.keys() == {each.id for each in cells}
    assert {each["worker"] for each in rows.values()} == {"w1", "w2"}
    assert all(each["is_written"] for each in rows.values())
    assert len(client.sent) == len(cells)


def test_a_cell_that_kills_workers_is_set_aside_after_three_and_no_other_is(place):
    cells, rows, said = cells_in(place), Rows(), []
    poison = {cells[1].id, cells[4].id}
    client = FakeClient(
        {"w1": host(), "w2": host()}, lambda cell, at: None if cell.id in poison else client.done(cell, at)
    )
    spread_over(place, client, said).compute(cells, rows)
    assert rows.keys() == {each.id for each in cells}
    assert {name for name, row in rows.items() if row["status"] == "failed"} == poison
    for cell in (cells[1], cells[4]):
        assert rows[cell.id]["reason"] == f"set aside: {MOST_DEATHS} workers died while they ran it"
        assert [task.attempt for task, _, _ in client.sent if task.cell == cell] == [1, 2, 3]
    assert len(said) == len(poison) * (MOST_DEATHS - 1)


def test_a_worker_that_dies_once_costs_nothing_but_time(place):
    cells, rows, deaths = cells_in(place), Rows(), []

    def run(cell, address):
        if cell == cells[3] and not deaths:
            deaths.append(address)
            return None
        return FakeClient.done(cell, address)

    spread_over(place, FakeClient({"w1": host(), "w2": host()}, run)).compute(cells, rows)
    assert {each["status"] for each in rows.values()} == {"done"}
    assert rows[cells[3].id]["worker"] not in deaths


def test_a_task_that_dask_gives_up_is_a_row(place):
    cells, rows = cells_in(place)[:2], Rows()
    broken = ValueError("cannot be\nunpacked"), "error"
    client = FakeClient({"w1": host()}, lambda cell, at: broken if cell == cells[0] else client.done(cell, at))
    spread_over(place, client).compute(cells, rows)
    assert rows[cells[0].id]["reason"] == "ValueError: cannot be"
    assert not rows[cells[0].id]["is_written"]
    assert rows[cells[1].id]["status"] == "done"


def test_times_are_taken_alone_on_a_machine_and_last(place):
    text = 'trace = "tiny.parquet"\nbackend = ["legacy", "new"]\ncapacity = [3, 4, 5, 6]\nrepetitions = 1'
    cells, rows = cells_in(place, text), Rows()
    workers = {"a1": host("a", timing=1), "a2": host("a"), "b1": host("b", timing=1), "b2": host("b", timing=1)}
    client = FakeClient(workers)
    spread_over(place, client).compute(cells, rows)
    assert len(rows) == len(cells)
    for running in client.together:
        for machine in "ab":
            beside = [cell for address, cell in running if address[0] == machine]
            assert len(beside) == 1 or not any(each.is_timed for each in beside)
    timed = [(task.cell, address, resources) for task, address, resources in client.sent if task.cell.is_timed]
    assert [each[0] for each in timed] == [task.cell for task, _, _ in client.sent[-len(timed) :]]
    assert {address for _, address, _ in timed} <= workers.keys() - {"a2"}
    assert {address[0] for _, address, _ in timed} == {"a", "b"}
    assert all(resources == {"timing": 1} for _, _, resources in timed)


def test_without_the_resource_the_others_are_done_first_and_the_line_says_what_to_start(place):
    cells, rows = cells_in(place, 'trace = "tiny.parquet"\ncapacity = [3, 4]\nrepetitions = 1'), Rows()
    with pytest.raises(SweepError, match=r"no worker for 2 cells: start one with --resources 'timing=1'"):
        spread_over(place, FakeClient({"w1": host()})).compute(cells, rows)
    assert rows.keys() == {each.id for each in cells if not each.is_timed}


def test_a_worker_with_another_library_is_not_used(place):
    cells, rows, said = cells_in(place), Rows(), []
    other = Software("source 1", True, "1", "1.0", "3.9")
    client = FakeClient({"w1": host(), "w2": host()}, software=lambda at: other if at == "w1" else Software.here())
    spread_over(place, client, said).compute(cells, rows)
    assert {each["worker"] for each in rows.values()} == {"w2"}
    assert [each for each in said if "the worker at w1 is not used: kvcache is source 1 and not" in each]
    client = FakeClient({"w1": host()}, software=lambda at: other)
    with pytest.raises(SweepError, match="no worker can be used: that at w1: kvcache is source 1"):
        spread_over(place, client).compute(cells, Rows())


def test_workers_that_come_late_are_used_and_waited_for(place):
    cells, rows, said = cells_in(place), Rows(), []
    client = FakeClient({})
    looks = itertools.count()
    real = client.scheduler_info

    def look(n_workers):
        number = next(looks)
        if number == 5:
            client.workers["w1"] = host()
        if number == 9:
            client.workers["w2"] = host()
        return real(n_workers)

    client.scheduler_info = look
    spread_over(place, client, said).compute(cells, rows)
    assert {each["worker"] for each in rows.values()} == {"w1", "w2"}
    assert said == ["no worker is there: waiting for one"]


def test_a_scheduler_that_is_gone_ends_it(place):
    client, cells = FakeClient({"w1": host()}), cells_in(place)
    client.status = "closed"
    with pytest.raises(SweepError, match="the scheduler is gone: start it again, and run the same command"):
        spread_over(place, client).compute(cells, Rows())


def test_what_a_worker_does_not_see_is_sent_to_it_once(place):
    cells, rows = cells_in(place), Rows()
    client = FakeClient({"w1": host(), "w2": host()}, sees=False)
    spread_over(place, client).compute(cells, rows)
    content = (place / "tiny.parquet").read_bytes()
    for address in ("w1", "w2"):
        tasks = [task for task, at, _ in client.sent if at == address]
        assert [task.trace for task in tasks] == [content, *[None] * (len(tasks) - 1)]
        assert {task.folder for task in tasks} == {None}
    assert not any(each["is_written"] for each in rows.values())


class TestAgain:
    def test_each_runs_on_another_worker(self, place):
        cells, rows = cells_in(place), Rows()
        client = FakeClient({"w1": host(), "w2": host(), "w3": host()})
        again = {cell: ("w1", "w2")[number % 2] for number, cell in enumerate(cells)}
        assert spread_over(place, client).compute_again(again, rows) == 0
        assert all(row["worker"] != again[cell] for cell in cells for row in [rows[cell.id]])
        assert {task.folder for task, _, _ in client.sent} == {None}

    def test_with_one_worker_nothing_can_be_compared(self, place):
        cells, rows = cells_in(place), Rows()
        assert spread_over(place, FakeClient({"w1": host()})).compute_again(dict.fromkeys(cells, "w1"), rows) == len(
            cells
        )
        assert not rows


def test_a_failed_row_has_what_the_plan_decided(place):
    cell = cells_in(place, 'trace = "tiny.parquet"\nbackend = "new"\nstorage = "slab"\ncapacity = "recur=1/2"')[0]
    row = failed_row(cell, "a reason\nof two lines")
    assert (row["backend"], row["storage"], row["capacity"], row["recur_slots"]) == ("new", "slab", "recur=1/2", 6)
    assert "\n" not in row["reason"]
