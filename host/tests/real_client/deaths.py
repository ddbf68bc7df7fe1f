"""Every way in which a kernel can end or hang: what the notebook says, what is left, and that it goes on.

Linux; what needs a control group that can be written says so when there is none.
"""
import glob
import os
import signal

from support import LIMIT, folder, ran, start, until, value

# How a process is found that has left the kernel's group and session: by this in its environment.
MARK = f"runtimed-deaths-{os.getpid()}"
NEXT = "; outputs are kept, variables are gone, and running a cell starts a new kernel."
KILLED = "was ended by signal 9 (SIGKILL: somebody killed it, or the system for lack of memory)"
GROUP = "/sys/fs/cgroup/memory"


async def opened(client):
    """A notebook whose kernel runs."""
    notebook = await client.create_notebook()
    assert value(await ran(notebook, "1 + 1")) == "2"
    return notebook


async def by_itself(client):
    notebook = await opened(client)
    await dies(notebook, "os._exit(3)", "exited with code 3")
    await dies(notebook, "os.kill(os.getpid(), signal.SIGKILL)", KILLED)
    await dies(notebook, "ctypes.string_at(0)", "was ended by signal 11 (SIGSEGV: native code read or wrote where it must not)")
    await dies(notebook, "os.abort()", "was ended by signal 6 (SIGABRT: native code gave up)")


async def killed(client):
    notebook = await opened(client)
    await killed_from_outside(notebook)
    await killed_with_its_shim(notebook)
    await killed_while_idle(notebook)


async def begin(notebook, source):
    """A running cell that has said its process id and goes on from there, one that waits behind it, and that id."""
    go = os.path.join(folder(), "go")
    before = "import ctypes, os, resource, signal, subprocess, sys, time\n"
    before += f"os.environ['RUNTIMED_TEST_MARK'] = {MARK!r}\nprint(os.getpid())\n"
    # What ipykernel has not handed to the system dies with it.
    before += f"while not os.path.exists({go!r}): time.sleep(0.01)\n"
    cell = await notebook.cells.create(before + source)
    waiting = await notebook.cells.create("never = 1")
    execution, behind = await cell.execute(), await waiting.execute()
    await until(lambda: cell.outputs and cell.outputs[0].text, "the kernel says who it is")
    pid = int(cell.outputs[0].text)
    open(go, "w").close()
    return cell, execution, behind, pid


async def dies(notebook, source, how):
    """A cell that ends its kernel."""
    _, execution, behind, pid = await begin(notebook, source + "\ntime.sleep(600)")
    return await over(notebook, execution, behind, pid, how)


async def over(notebook, execution, behind, pid, how):
    """Everything that has to be true once a kernel is gone."""
    result = await execution.result(LIMIT)
    sentence = f"The kernel {how}{NEXT}"
    assert execution.status == "error" and not result.success
    errors = [output for output in result.outputs if output.output_type == "error"]
    assert [(error.ename, error.evalue) for error in errors] == [("KernelError", sentence)], errors
    assert result.stdout == f"{pid}\n", "what it printed before is there"
    await behind.result(LIMIT)
    assert behind.status == "cancelled", behind.status
    await until(lambda: notebook.runtime.kernel.lifecycle == "Error", "the kernel is shown as gone")
    details = notebook.runtime.kernel.error_details
    assert details.startswith(sentence), details
    await gone(pid)
    await usable(notebook, pid)
    return result


async def usable(notebook, old):
    """The next cell has another kernel, at once."""
    new = int(value(await ran(notebook, "import os\nos.getpid()")))
    assert new != old


async def gone(pid):
    """Neither the process is there nor its group nor anything it started."""
    await until(lambda: not family(pid), f"nothing is left of {pid}")


def family(pid):
    """Processes that are `pid`, of its group or session, or marked as started by a cell; zombies do not count."""
    found = []
    for path in glob.glob("/proc/[0-9]*"):
        try:
            with open(path + "/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            with open(path + "/environ", "rb") as file:
                marked = MARK.encode() in file.read()
        except OSError:
            continue
        number = int(path.removeprefix("/proc/"))
        if fields[0] != "Z" and (marked or pid in (number, int(fields[2]), int(fields[3]))):
            found.append(number)
    return found


async def killed_from_outside(notebook):
    _, execution, behind, pid = await begin(notebook, "time.sleep(600)")
    os.kill(pid, signal.SIGKILL)
    await over(notebook, execution, behind, pid, KILLED)


async def killed_with_its_shim(notebook):
    _, execution, behind, pid = await begin(notebook, "time.sleep(600)")
    with open(f"/proc/{pid}/stat") as file:
        shim = int(file.read().rsplit(")", 1)[1].split()[1])
    os.kill(shim, signal.SIGKILL)
    await over(notebook, execution, behind, pid, "was lost with the process that kept it")
    assert not family(shim)


async def killed_while_idle(notebook):
    pid = int(value(await ran(notebook, "os.getpid()")))
    os.kill(pid, signal.SIGTERM)
    await until(lambda: notebook.runtime.kernel.lifecycle == "Error", "the kernel is shown as gone")
    assert "(SIGTERM:" in notebook.runtime.kernel.error_details, notebook.runtime.kernel.error_details
    await gone(pid)
    await usable(notebook, pid)


async def out_of_memory(client):
    notebook = await opened(client)
    # A limit on addresses is an exception, and the kernel lives on.
    limited = (
        "import resource\nlimits = resource.getrlimit(resource.RLIMIT_AS)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, limits[1]))\n"
        "try:\n    x = bytearray(1 << 40)\nfinally:\n    resource.setrlimit(resource.RLIMIT_AS, limits)"
    )
    result = await ran(notebook, limited)
    assert result.error.ename == "MemoryError", result.outputs
    # A limit on memory that is used is a kill. A kernel can put itself under one if it may.
    group = f"{GROUP}/runtimed-deaths-{os.getpid()}"
    try:
        os.mkdir(group)
        with open(group + "/memory.limit_in_bytes", "w") as file:
            file.write(str(256 << 20))
    except OSError as error:
        print(f"skipped: no kernel can be put under a limit of memory here ({error})")
        return
    try:
        eats = f"open({group!r} + '/cgroup.procs', 'w').write(str(os.getpid()))\nx = b'x' * (1 << 30)"
        await dies(notebook, eats, "ran out of memory and was killed by the system")
    finally:
        os.rmdir(group)


async def hangs(client):
    """In C, with every signal held back that a process can hold back."""
    notebook = await opened(client)
    source = "signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))\nctypes.PyDLL(None).sleep(600)"
    cell, execution, behind, pid = await begin(notebook, source)
    await notebook.interrupt()
    result = await execution.result(LIMIT)
    assert not result.success and execution.status == "error", "the interrupt is answered, whatever the kernel does"
    await behind.result(LIMIT)
    assert behind.status == "cancelled"
    # It is not idle: what comes next waits for it, and goes when it does.
    later = await (await notebook.cells.create("'later'")).execute()
    await notebook.restart()
    # The client's `result` is content with a kernel that is shut down; the end of the execution may follow.
    await later.result(LIMIT)
    await until(lambda: later.status in ("cancelled", "done", "error"), "what waited has ended")
    assert later.status == "cancelled", later.status
    await gone(pid)
    await usable(notebook, pid)
    # The same without an interrupt, and ended for good.
    _, execution, behind, pid = await begin(notebook, source)
    await notebook.stop_runtime()
    await execution.result(LIMIT)
    await behind.result(LIMIT)
    assert (execution.status, behind.status) == ("error", "cancelled")
    assert notebook.runtime.kernel.lifecycle == "Shutdown"
    await gone(pid)
    await usable(notebook, pid)


async def closes_its_sockets(client):
    notebook = await opened(client)
    how = "had closed its connections and was ended"
    one = "kernel = get_ipython().kernel\nkernel.iopub_thread.schedule(kernel.iopub_thread.socket.close)\ntime.sleep(600)"
    # Before the thread can say what comes next.
    await dies(notebook, one, how)
    every = (
        "for fd in os.listdir('/proc/self/fd'):\n"
        "    try:\n"
        "        if os.readlink('/proc/self/fd/' + fd).startswith('socket:'): os.close(int(fd))\n"
        "    except OSError: pass\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)"
    )
    await dies(notebook, every, how)


async def leaves_children(client):
    """One in the group, one in a session of its own, and one that has lost its parent, too."""
    notebook = await opened(client)
    family_of_three = (
        "subprocess.Popen(['sleep', '600'])\n"
        "subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "subprocess.run(['sh', '-c', 'setsid sleep 600 > /dev/null 2>&1 &'])\n"
    )
    _, execution, behind, pid = await begin(notebook, family_of_three + "os._exit(0)")
    await until(lambda: notebook.runtime.kernel.lifecycle == "Error", "the kernel is shown as gone")
    assert family(pid) == [], "they are gone before it is told"
    await over(notebook, execution, behind, pid, "exited with code 0")
    _, execution, _, pid = await begin(notebook, family_of_three + "print('ready', flush=True)\ntime.sleep(600)")
    await until(lambda: len(family(pid)) >= 4, "all of them run")
    await notebook.stop_runtime()
    await execution.result(LIMIT)
    assert family(pid) == [], "an orderly end ends them before it is told"
    await usable(notebook, pid)


async def asks(client):
    """Nobody can answer a question, so it is an error instead of a wait."""
    notebook = await opened(client)
    for question in ("input('? ')", "import getpass\ngetpass.getpass()"):
        result = await ran(notebook, question)
        assert result.error.ename == "StdinNotImplementedError", result.outputs
    result = await ran(notebook, "import sys\nsys.__stdin__.read()")
    assert value(result) == "''"


async def is_stopped_while_it_runs(client):
    """A restart and an end in the middle of a flood; what it said is there by id when everything else is gone."""
    notebook = await opened(client)
    flooded = os.path.join(folder(), "flooded")
    flood = f"for i in range(1 << 60):\n    print('x' * 100)\n    if i == 10_000: os.mkdir({flooded!r})"
    _, execution, behind, pid = await begin(notebook, flood)
    await until(lambda: os.path.exists(flooded), "the flood is there")
    os.rmdir(flooded)
    await notebook.restart()
    await execution.result(LIMIT)
    await behind.result(LIMIT)
    assert (execution.status, behind.status) == ("error", "cancelled")
    await gone(pid)
    await usable(notebook, pid)
    cell, execution, _, pid = await begin(notebook, flood)
    await until(lambda: os.path.exists(flooded), "the flood is there")
    await notebook.stop_runtime()
    await execution.result(LIMIT)
    await gone(pid)
    await cell.delete()
    await until(lambda: cell.id not in notebook.cells, "the cell is gone")
    await notebook.disconnect()
    record = await client.get_execution_result(execution.execution_id)
    assert not record.success and record.stdout.startswith(f"{pid}\n"), record


start(by_itself, killed, out_of_memory, hangs, closes_its_sockets, leaves_children, asks, is_stopped_while_it_runs)
