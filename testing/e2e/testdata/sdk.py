"""What programs do with Docker's SDK for Python, at the daemon that DOCKER_HOST names. Each step says what it saw."""

import io
import socket
import sys
import tarfile
import threading
import time

import docker
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound
from docker.types import EndpointConfig, IPAMConfig, IPAMPool, Mount


def check(what, got, want):
    if got != want:
        raise AssertionError(f"{what}: {got!r}, want {want!r}")


def refused(what, kind, text, call):
    try:
        call()
    except kind as e:
        if text not in str(e):
            raise AssertionError(f"{what}: {e}, want {text!r}") from e
        return
    raise AssertionError(f"{what}: no error")


def check_exec(what, call, want):
    """A check with a few tries: the SDK drops output that comes in one piece with the answer's header, from any daemon."""
    for _ in range(20):
        got = call()
        if got == want:
            return
    check(what, got, want)


def system(client):
    check("ping", client.ping(), True)
    check("os", client.version()["Os"], "linux")
    info = client.info()
    check("OSType", info["OSType"], "linux")
    check("df", sorted(client.df()), ["BuildCache", "Containers", "Images", "LayersSize", "Volumes"])


def run(client):
    check("run", client.containers.run("busybox", "echo hello", remove=True), b"hello\n")
    both = client.containers.run("busybox", ["sh", "-c", "echo out; echo err >&2"], stdout=True, stderr=True, remove=True)
    check("run, both streams", sorted(both.splitlines()), [b"err", b"out"])
    try:
        client.containers.run("busybox", ["sh", "-c", "echo no >&2; exit 4"], remove=True)
    except ContainerError as e:
        check("exit code", (e.exit_status, e.stderr), (4, b"no\n"))
    else:
        raise AssertionError("a failing run raised nothing")
    refused("no such container", NotFound, "No such container: nope", lambda: client.containers.get("nope"))
    refused("no such command", APIError, "executable file not found",
            lambda: client.containers.run("busybox", ["nope"], name="unborn"))
    client.containers.get("unborn").remove()


def life(client):
    c = client.containers.run("busybox", ["sh", "-c", "trap 'exit 7' TERM; echo up; while :; do usleep 20000; done"],
                              name="box", detach=True, labels={"tier": "front", "empty": ""}, environment={"A": "b c"},
                              hostname="boxhost", tmpfs={"/scratch": "size=1m"}, mem_limit="32m", cap_drop=["NET_RAW"],
                              restart_policy={"Name": "on-failure", "MaximumRetryCount": 2}, init=True)
    for line in c.logs(stream=True, follow=True):  # a generator that ends by being closed
        check("followed log", line, b"up\n")
        break
    refused("a name twice", APIError, "Conflict. The container name \"/box\" is already in use",
            lambda: client.containers.create("busybox", name="box"))
    for filters in ({"label": "tier=front"}, {"label": ["tier", "empty="]}, {"name": "box", "status": "running"}, {"id": c.id}):
        check(f"list {filters}", [x.name for x in client.containers.list(filters=filters)], ["box"])
    check("list nothing", client.containers.list(filters={"label": "tier=back"}), [])
    refused("an unknown filter", APIError, "invalid filter", lambda: client.containers.list(filters={"colour": "red"}))
    c.reload()
    check("status", (c.status, c.attrs["Config"]["Hostname"], c.attrs["HostConfig"]["Memory"]), ("running", "boxhost", 32 << 20))
    check("top", c.top()["Titles"][:2], ["UID", "PID"])
    check("stats", c.stats(stream=False)["memory_stats"]["limit"], 32 << 20)
    sample = next(c.stats(stream=True, decode=True))
    check("streamed stats", sample["name"], "/box")
    c.update(mem_limit="48m", memswap_limit="48m")
    c.pause()
    c.reload()
    check("paused", c.status, "paused")
    c.unpause()
    c.rename("case")
    check("renamed", client.containers.get("case").id, c.id)
    waiting = {}
    waiter = threading.Thread(target=lambda: waiting.update(c.wait()))
    waiter.start()
    c.stop(timeout=10)
    waiter.join()
    check("wait", waiting["StatusCode"], 7)
    check("logs", c.logs(), b"up\n")
    check("logs, one stream", c.logs(stdout=False, stderr=True), b"")
    check("logs, tail", c.logs(tail=0), b"")
    c.start()
    seen = b""
    for chunk in c.logs(stream=True, follow=True):  # a pid 1 that is not ready ignores what it has no handler for
        seen += chunk
        if seen == b"up\nup\n":
            break
    c.kill(signal="SIGTERM")
    check("killed", c.wait()["StatusCode"], 7)
    c.restart(timeout=0)
    c.remove(force=True, v=True)
    refused("removed", NotFound, "No such container", c.reload)


def exec_streams(client):
    c = client.containers.run("busybox", "sleep 600", name="talk", detach=True)
    check_exec("exec", lambda: tuple(c.exec_run(["sh", "-c", "echo out; echo err >&2; exit 3"], demux=True)), (3, (b"out\n", b"err\n")))
    check_exec("exec as somebody", lambda: c.exec_run("id -u", user="9").output, b"9\n")
    check_exec("exec's environment", lambda: c.exec_run(["sh", "-c", "echo $A; pwd"], environment={"A": "x"}, workdir="/tmp").output, b"x\n/tmp\n")
    check_exec("exec, streamed", lambda: b"".join(c.exec_run("seq 1 1000", stream=True).output), "".join(f"{i}\n" for i in range(1, 1001)).encode())
    check_exec("exec with a terminal", lambda: c.exec_run("tty", tty=True).output[:9], b"/dev/pts/")
    _, sock = c.exec_run("cat", stdin=True, socket=True)
    raw = getattr(sock, "_sock", sock)
    raw.sendall(b"in and out\n")
    raw.shutdown(socket.SHUT_WR)
    got = b""
    while chunk := raw.recv(4096):
        got += chunk
    check("exec's socket", got, b"\x01\0\0\0\0\0\0\x0bin and out\n")
    sock.close()
    api = client.api
    exec_id = api.exec_create(c.id, "true")["Id"]
    api.exec_start(exec_id, detach=True)
    refused("exec of nothing", APIError, "No exec command specified", lambda: api.exec_create(c.id, ""))
    c.remove(force=True)


def attach(client):
    c = client.containers.create("busybox", "cat", stdin_open=True, name="echo")
    sock = c.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    c.start()
    raw = getattr(sock, "_sock", sock)
    raw.sendall(b"hi\n")
    raw.shutdown(socket.SHUT_WR)
    got = b""
    while chunk := raw.recv(4096):
        got += chunk
    check("attach", got, b"\x01\0\0\0\0\0\0\x03hi\n")
    check("the end of stdin ends it", c.wait()["StatusCode"], 0)
    c.remove()


def files(client):
    c = client.containers.create("busybox", "cat /in/a", name="files")
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as t:
        entry = tarfile.TarInfo("in/a")
        entry.size = 5
        t.addfile(entry, io.BytesIO(b"given"))
    check("put_archive", c.put_archive("/", tar.getvalue()), True)
    chunks, stat = c.get_archive("/in/a")
    check("stat", (stat["name"], stat["size"]), ("a", 5))
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as t:
        check("get_archive", t.extractfile("a").read(), b"given")
    refused("no such path", NotFound, "Could not find the file /nope in container", lambda: c.get_archive("/nope"))
    c.start()
    c.wait()
    check("what was put", c.logs(), b"given")
    check("diff", {"Path": "/in/a", "Kind": 1} in c.diff(), True)
    with tarfile.open(fileobj=io.BytesIO(b"".join(c.export()))) as t:
        check("export", t.extractfile("in/a").read(), b"given")
    image = c.commit("made", "1")
    check("commit", client.containers.run("made:1", "cat /in/a", remove=True), b"given")
    client.images.remove(image.id, force=True)
    c.remove()


def networks(client):
    pool = IPAMPool(subnet="10.99.0.0/24", gateway="10.99.0.254")
    n = client.networks.create("back", driver="bridge", ipam=IPAMConfig(pool_configs=[pool]), labels={"tier": "back"})
    check("networks by label", [x.name for x in client.networks.list(filters={"label": ["tier=back"]})], ["back"])
    check("networks by name", [x.id for x in client.networks.list(names=["back"])], [n.id])
    refused("a name twice", APIError, "network with name back already exists", lambda: client.networks.create("back"))
    one = client.containers.run("busybox", "sleep 600", name="one", detach=True, network="back")
    two = client.containers.create("busybox", "ping -c 1 uno", name="two")
    n.connect(two, ipv4_address="10.99.0.9", aliases=["zwei"])
    n.disconnect(one)
    n.connect(one, aliases=["uno"])
    n.reload()
    check("who is on it", [c.name for c in n.containers], ["one"])
    two.start()
    check("ping by alias", two.wait()["StatusCode"], 0)
    two.reload()
    check("the address", two.attrs["NetworkSettings"]["Networks"]["back"]["IPAMConfig"]["IPv4Address"], "10.99.0.9")
    refused("remove while used", APIError, "active endpoints", n.remove)
    for c in (one, two):
        c.remove(force=True)
    n.remove()
    refused("gone", NotFound, "network back not found", lambda: client.networks.get("back"))


def volumes(client):
    v = client.volumes.create("data", labels={"a": "b"})
    check("volumes", [x.name for x in client.volumes.list(filters={"label": "a=b"})], ["data"])
    client.containers.run("busybox", ["sh", "-c", "echo kept > /d/f"], volumes={"data": {"bind": "/d", "mode": "rw"}}, remove=True)
    out = client.containers.run("busybox", "cat /m/f", mounts=[Mount("/m", "data", read_only=True)], remove=True)
    check("the volume's content", out, b"kept\n")
    check("prune keeps what has a name", client.volumes.prune()["VolumesDeleted"] or [], [])
    v.remove()
    refused("no such volume", NotFound, "no such volume", lambda: client.volumes.get("data"))


def images(client):
    img = client.images.get("busybox")
    check("tag", img.tag("mine/box", "2"), True)
    check("list by name", [i.id for i in client.images.list(name="mine/box")], [img.id])
    check("tags", "mine/box:2" in client.images.get(img.id).tags, True)
    img.reload()
    saved = b"".join(img.save(named="mine/box:2"))
    client.images.remove("mine/box:2")
    check("load", [i.tags for i in client.images.load(saved)][0].count("mine/box:2"), 1)
    check("history", len(img.history()) > 0, True)
    refused("no such image", ImageNotFound, "No such image: nope", lambda: client.images.get("nope"))
    client.images.remove("mine/box:2")
    check("prune", client.images.prune()["SpaceReclaimed"], 0)


def events(client):
    seen, ready = [], threading.Event()
    stream = client.events(decode=True, filters={"type": "container", "event": ["create", "destroy"]})

    def listen():
        ready.set()
        for e in stream:
            seen.append((e["Action"], e["status"], e["Actor"]["Attributes"]["name"]))
            if e["Action"] == "destroy":
                return

    listener = threading.Thread(target=listen)
    listener.start()
    ready.wait()
    client.containers.create("busybox", name="seen").remove()
    listener.join()
    stream.close()
    check("events", seen, [("create", "create", "seen"), ("destroy", "destroy", "seen")])
    past = [e["Action"] for e in client.events(since=0, until=int(time.time()), decode=True, filters={"container": "seen"})]
    check("past events", past, ["create", "destroy"])


def main():
    client = docker.from_env(timeout=120)
    before = {i.id for i in client.images.list()}
    for step in (system, run, life, exec_streams, attach, files, networks, volumes, images, events):
        print(step.__name__, flush=True)
        step(client)
    check("containers left", client.containers.list(all=True), [])
    check("images left", {i.id for i in client.images.list()}, before)
    client.close()


if __name__ == "__main__":
    sys.exit(main())
