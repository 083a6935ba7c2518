"""The runner behind tools/bench: see there. One round visits every job with every contender, in turn.

Each round has a directory of its own, and unlink comes after all rounds: ext4 passes over each inode that was deleted
in the last minutes when it looks for a free one, so a create after many unlinks would measure that.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from figures import spread

N = 1000
HERE = Path(__file__).parent
VOLGATE = str(Path(sys.executable).with_name("volgate"))
BLOCK, LARGE = b"x" * 4096, b"x" * (1 << 20)


def contenders(base, peers):
    """Return name -> (directory to use, command that serves it or None)."""
    found = {"ext4": (base / "ext4", None)}
    commands = {
        "bindfs": ["bindfs", "-f", "{source}", "{mount}"],
        "mergerfs": ["mergerfs", "-f", "-o", "allow_other,cache.attr=60,cache.entry=60", "{source}", "{mount}"],
        "pyfuse3": [sys.executable, str(HERE / "passthrough.py"), "{source}", "{mount}"],
        "pyfuse3 woken": [sys.executable, str(HERE / "passthrough.py"), "{source}", "{mount}", "--wake-up"],
        "volgate": [VOLGATE, "mount", "{source}", "{mount}", "--quota", "100GiB"],
        **{name: command.split() for name, command in (peer.split("=", 1) for peer in peers)},
    }
    for name, command in commands.items():
        source, mount = base / f"{name}.data", base / name
        source.mkdir()
        found[name] = (mount, [part.format(source=source, mount=mount) for part in command])
    for directory, _ in found.values():
        directory.mkdir()
    return found


def serve(found):
    processes = {}
    for name, (directory, command) in found.items():
        if command is None:
            continue
        processes[name] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            if os.path.ismount(directory):
                break
            time.sleep(0.05)
        else:
            raise SystemExit(f"bench: {name} did not mount: {' '.join(command)}")
    return processes


def place(processes, placement):
    """Put the daemons on the client's processor, or all on another: which it is decides more than who serves."""
    os.sched_setaffinity(0, {0})
    for process in processes.values():
        for task in os.listdir(f"/proc/{process.pid}/task"):
            os.sched_setaffinity(int(task), {0 if placement == "together" else 1})


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def each(d, call):
    for n in range(N):
        call(f"{d}/f{n}")
    return N


def create(path):
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.write(fd, BLOCK)
    os.close(fd)


def read(path):
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, 4096)
    os.close(fd)


def missing(path):
    return os.path.exists(path + "-missing")


def write_blocks(d, block, count):
    fd = os.open(f"{d}/big", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for _ in range(count):
        os.write(fd, block)
    os.close(fd)
    return count


def read_blocks(d, size):
    fd = os.open(f"{d}/big", os.O_RDONLY)
    count = 0
    while os.read(fd, size):
        count += 1
    os.close(fd)
    return count


def listing(d):
    os.makedirs(f"{d}/many", exist_ok=True)
    if not os.path.exists(f"{d}/many/f4999"):
        for n in range(5000):
            os.close(os.open(f"{d}/many/f{n}", os.O_CREAT))
        return None
    return sum(1 for entry in os.scandir(f"{d}/many") if entry.stat())


def drop_caches():
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def jobs(archive):
    def untar(d):
        os.mkdir(f"{d}/tree")
        subprocess.run(["tar", "-C", f"{d}/tree", "-xf", archive], check=True)
        return 1

    def git_status(d):
        tree = f"{d}/tree"
        if not os.path.isdir(f"{tree}/.git"):
            identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
            subprocess.run(["git", "init", "-q", tree], check=True)
            subprocess.run(["git", "-C", tree, "add", "."], check=True)
            subprocess.run(["git", *identity, "-C", tree, "commit", "-qm", "x"], check=True)
            return None
        subprocess.run(["git", "-C", tree, "status", "--porcelain"], check=True, stdout=subprocess.DEVNULL)
        return 1

    return [
        ("create+4K+close", lambda d: each(d, create)),
        ("open+read+close warm", lambda d: each(d, read)),
        ("stat first", lambda d: each(d, os.stat)),
        ("stat warm", lambda d: each(d, os.stat)),
        ("negative stat first", lambda d: each(d, missing)),
        ("negative stat warm", lambda d: each(d, missing)),
        (None, drop_caches),
        ("stat cold", lambda d: each(d, os.stat)),
        (None, drop_caches),
        ("open+read+close cold", lambda d: each(d, read)),
        ("write 4K", lambda d: write_blocks(d, BLOCK, N)),
        ("read 4K warm", lambda d: read_blocks(d, 4096)),
        ("write 1M", lambda d: write_blocks(d, LARGE, 200)),
        ("read 1M warm", lambda d: read_blocks(d, 1 << 20)),
        (None, drop_caches),
        ("read 1M cold", lambda d: read_blocks(d, 1 << 20)),
        ("prepare listing", listing),
        (None, drop_caches),
        ("readdir+stat 5000 cold", listing),
        ("rename", lambda d: each(d, lambda p: os.rename(p, p + "r"))),
        ("untar 2000 files", untar),
        ("prepare git", git_status),
        ("git status warm", git_status),
        (None, drop_caches),
        ("git status cold", git_status),
    ]


LAST_JOBS = [("unlink", lambda d: each(d, lambda p: os.unlink(p + "r")))]


def make_archive(base):
    path = base / "tree.tar"
    with tarfile.open(path, "w") as archive:
        for n in range(2000):
            file = base / "member"
            file.write_bytes(os.urandom(1000 + n))
            archive.add(file, f"d{n % 50}/f{n}")
    return str(path)


def compare(arguments):
    base = Path(tempfile.mkdtemp(prefix="volgate-bench-", dir="/var/tmp"))
    found = contenders(base, arguments.peer)
    archive = make_archive(base)
    processes = serve(found)
    if arguments.placement:
        place(processes, arguments.placement)
    times, cpus = {}, {}
    order = list(found)

    def visit(job, run, number):
        if job is None:
            run()
            return
        order.append(order.pop(0))
        for name in order:
            directory = found[name][0] / f"round-{number}"
            directory.mkdir(exist_ok=True)
            before = cpu_s(processes[name].pid) if name in processes else 0
            start = time.perf_counter()
            count = run(directory)
            if not count:
                continue
            times.setdefault(job, {}).setdefault(name, []).append((time.perf_counter() - start) / count * 1e6)
            if name in processes:
                used = (cpu_s(processes[name].pid) - before) / count * 1e6
                cpus.setdefault(job, {}).setdefault(name, []).append(used)

    try:
        for number in range(arguments.rounds):
            for job, run in jobs(archive):
                visit(job, run, number)
        for number in range(arguments.rounds):
            for job, run in LAST_JOBS:
                visit(job, run, number)
        memory = {name: rss_bytes(process.pid) for name, process in processes.items()}
    finally:
        for name, process in processes.items():
            subprocess.run(["umount", "-l", str(found[name][0])], check=False)
            process.wait(30)
        shutil.rmtree(base, ignore_errors=True)
    report(times, cpus, memory)


def report(times, cpus, memory):
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    commit = head.stdout
    for job, by_name in times.items():
        line = [f"{job:24}"]
        for name, values in by_name.items():
            middle = statistics.median(values)
            ratio = middle / statistics.median(by_name["ext4"])
            line.append(f"{name} {spread(values, 1)} x{ratio:.2f}")
            row = {
                "name": f"{job}/{name}",
                "value": middle,
                "unit": "us",
                "n": len(values),
                "min": min(values),
                "max": max(values),
                "cpu_us": statistics.median(cpus.get(job, {}).get(name, [0])),
                "rss_bytes": memory.get(name, 0),
                "commit": commit.strip(),
                "date": time.strftime("%F"),
            }
            print(json.dumps(row))
        if "bindfs" in by_name and "volgate" in by_name:
            against = statistics.median(by_name["volgate"]) / statistics.median(by_name["bindfs"])
            line.append(f"| volgate/bindfs {against:.2f}")
        print("  ".join(line), file=sys.stderr)
    print("resident: " + ", ".join(f"{n} {v >> 20} MiB" for n, v in memory.items()), file=sys.stderr)


def stat_many(path, count):
    for _ in range(count):
        os.stat(path)


def cpu_per_request(arguments):
    """Daemon CPU of a getattr: a no-op handler against volgate, timeouts 0, 1 and 4 clients, interleaved."""
    base = Path(tempfile.mkdtemp(prefix="volgate-bench-", dir="/var/tmp"))
    (base / "data").mkdir()
    (base / "mnt").mkdir()
    commands = {
        "noop": [sys.executable, str(HERE / "passthrough.py"), "-", str(base / "mnt"), "--noop"],
        "volgate": [VOLGATE, "mount", str(base / "data"), str(base / "mnt"), "--attr-timeout", "0"],
    }
    results = {}
    for _ in range(arguments.rounds):
        for name, command in commands.items():
            process = serve({name: (base / "mnt", command)})[name]
            for clients in (1, 4):
                before = cpu_s(process.pid)
                loads = [
                    multiprocessing.Process(target=stat_many, args=(base / "mnt", 50_000 // clients))
                    for _ in range(clients)
                ]
                for load in loads:
                    load.start()
                for load in loads:
                    load.join()
                results.setdefault((name, clients), []).append((cpu_s(process.pid) - before) / 50_000 * 1e6)
            subprocess.run(["umount", str(base / "mnt")], check=True)
            process.wait(30)
    for (name, clients), values in results.items():
        row = {"name": f"getattr/{name}/{clients} clients", "value": statistics.median(values), "unit": "us CPU",
               "n": len(values), "min": min(values), "max": max(values)}  # fmt: skip
        print(json.dumps(row))
    shutil.rmtree(base)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="tools/bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--cpu-per-request", action="store_true")
    parser.add_argument("--placement", choices=["together", "apart"])
    chosen = parser.parse_args()
    (cpu_per_request if chosen.cpu_per_request else compare)(chosen)
