"""One de-identifier at work on the files of a folder, for `bench/deid.py`: run by itself, with the packages of that one.

    python bench/deid_peers.py NAME FILES OUT SECONDS

prints as JSON how many objects were read, de-identified and written, in how many seconds of wall clock and of processor. No file is done
twice: what a tool remembers of an object is of no use for the same one. OUT is empty, and each output a new file, which goes when the
next one is there. With 0 seconds each file is done, and what is printed is the process's own memory after each, in KiB.

    python bench/deid_peers.py NAME FILES answer PORT

is for Hilum beside Orthanc: each HTTP request is answered with the next file of the folder, de-identified, over one connection to
127.0.0.1; nothing is written.
"""

import json
import logging
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable
from mmap import ACCESS_READ, mmap
from pathlib import Path

Work = Callable[[Path, Path], object]
#: Larger files are mapped.
LARGE_BYTES = 2**24


def dicom_anonymizer() -> Work:
    from dicomanonymizer.simpledicomanonymizer import anonymize_dicom_file

    return lambda source, target: anonymize_dicom_file(str(source), str(target))


def dicognito() -> Work:
    import pydicom
    from dicognito.anonymizer import Anonymizer  # type: ignore[import-not-found]  # only with its own packages

    anonymizer = Anonymizer()

    def work(source: Path, target: Path) -> None:
        with pydicom.dcmread(source) as ds:
            anonymizer.anonymize(ds)
            ds.save_as(target)

    return work


def deid() -> Work:
    from deid.config import DeidRecipe  # type: ignore[import-not-found]  # only with its own packages
    from deid.dicom import replace_identifiers  # type: ignore[import-not-found]

    recipe = DeidRecipe()
    return lambda source, target: replace_identifiers(
        dicom_files=[str(source)], deid=recipe, save=True, overwrite=True, output_folder=str(target.parent)
    )


def hilum(policy_name: str, *, second_look: bool) -> Work:
    made = hilum_parts(policy_name, second_look=second_look)

    def work(source: Path, target: Path) -> None:
        parts = made(source)
        out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.writev(out, parts)
        os.close(out)

    return work


def hilum_parts(policy_name: str, *, second_look: bool) -> Callable[[Path], list[bytes | memoryview]]:
    """What reads a file and gives another one, in parts."""
    from hilum.host import spare_the_garbage_collector
    from processors.anonymize.engine import anonymize
    from processors.anonymize.keys import key_of
    from processors.anonymize.policy import policy
    from processors.anonymize.pseudonyms import Pseudonyms
    from processors.anonymize.result import Context
    from processors.anonymize.verify import Scope
    from processors.anonymize.verify import second_look as look

    spare_the_garbage_collector()  # as every process of Hilum does
    context = Context(policy=policy(policy_name), pseudonyms=Pseudonyms(key_of(bytes(range(32))), policy_name))
    scope = Scope.of(context.policy.options)

    def made(source: Path) -> list[bytes | memoryview]:
        file = os.open(source, os.O_RDONLY)
        size = os.fstat(file).st_size
        original = mmap(file, 0, access=ACCESS_READ) if size > LARGE_BYTES else os.read(file, size)
        os.close(file)
        parts = anonymize(original, context).parts
        if second_look and look(original, parts, scope):
            raise SystemExit("a hit on a clean object")
        return parts

    return made


def answer(name: str, files: Path, port: int) -> None:
    """Answer HTTP requests on one connection, each with another file, until it is closed."""
    made = hilum_parts("research" if "research" in name else "basic", second_look=name.endswith("-look"))
    first, *sources = sorted(files.iterdir())
    made(first)
    count, asked = 0, b""
    with socket.create_server(("127.0.0.1", port)) as server:
        print("listening", flush=True)
        client, _ = server.accept()
    with client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        used = time.process_time()
        while more := client.recv(65_536):
            asked += more
            if not asked.endswith(b"\r\n\r\n{}"):
                continue
            parts = made(sources[count])
            length = sum(map(len, parts))
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/dicom\r\nContent-Length: {length}\r\n\r\n"
            _send(client, [memoryview(head.encode()), *(memoryview(part) for part in parts)])
            count, asked = count + 1, b""
        print(json.dumps({"objects": count, "cpu_s": time.process_time() - used}))


def _send(client: socket.socket, left: list[memoryview]) -> None:
    while left:
        sent = client.sendmsg(left)
        while left and sent >= len(left[0]):
            sent -= len(left.pop(0))
        if sent:
            left[0] = left[0][sent:]


TOOLS: dict[str, Callable[[], Work]] = {
    "dicom-anonymizer": dicom_anonymizer,
    "dicognito": dicognito,
    "deid": deid,
    "hilum-basic": lambda: hilum("basic", second_look=False),
    "hilum-research": lambda: hilum("research", second_look=False),
    "hilum-basic-look": lambda: hilum("basic", second_look=True),
    "hilum-research-look": lambda: hilum("research", second_look=True),
}


def own_memory_kib() -> int:
    """Memory that is no file's: a mapped original is not in it."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Anonymous:")))


def main(name: str, files: Path, out: Path, seconds: float) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    work = TOOLS[name]()
    sources = sorted(files.iterdir())
    if not seconds:
        for source in sources:
            work(source, out / source.name)
            print(own_memory_kib())
        return
    work(sources[0], out / "first.dcm")
    count, began, used = 0, time.perf_counter(), time.process_time()
    for source in sources[1:]:
        count += 1
        work(source, out / f"{count}.dcm")
        (out / f"{count - 1}.dcm").unlink(missing_ok=True)  # lest a folder of thousands be what is measured
        if time.perf_counter() - began >= seconds:
            break
    print(json.dumps({"objects": count, "wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - used}))


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # this folder has modules of the same names as packages
    if sys.argv[3] == "answer":
        answer(sys.argv[1], Path(sys.argv[2]), int(sys.argv[4]))
    else:
        main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
