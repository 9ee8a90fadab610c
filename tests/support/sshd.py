"""Real hosts for fleet tests: sshd processes on loopback ports, and network namespaces with an sshd each.

Every "host" has a home of its own (``HOME`` in its sessions), a directory for its toolkit (``FAKE_HOST_ROOT``),
and a host key of its own in one known_hosts file. All keys are thrown away; every process is ended by its pid.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from smallq_deploy.fleet.hosts import Host

_CONFIG = """\
Port {port}
ListenAddress {listen}
HostKey {directory}/host_key
PidFile none
AuthorizedKeysFile {authorized}
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
MaxStartups 300:30:600
MaxSessions 100
LoginGraceTime 20
PrintMotd no
UseDNS no
Subsystem sftp internal-sftp -d {home}
SetEnv {environment}
"""


def sshd_path() -> str:
    """The absolute path sshd wants to be started by; '' without one."""
    return shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin") or ""


@dataclass
class Server:
    """One "host": how it is reached, where its home and its toolkit's root are, and its sshd."""

    host: Host
    home: Path
    root: Path
    directory: Path
    pid: int = 0
    namespace: str = ""

    @property
    def name(self) -> str:
        return self.host.name


@dataclass
class Farm:
    """Hosts that answer; ``known_hosts`` names their keys, ``key`` lets us in."""

    directory: Path
    known_hosts: Path
    key: Path
    servers: list[Server] = field(default_factory=list)

    @property
    def hosts(self) -> list[Host]:
        return [server.host for server in self.servers]

    def __getitem__(self, number: int) -> Server:
        return self.servers[number]


def make_key(path: Path) -> Path:
    """A new ed25519 key without a passphrase."""
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)
    return path


def free_ports(count: int) -> list[int]:
    """TCP ports nobody listens on at 127.0.0.1 right now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def new_farm(directory: Path) -> Farm:
    """No host yet; a key pair and an empty known_hosts."""
    directory.mkdir(parents=True, exist_ok=True)
    key = make_key(directory / "id_test")
    shutil.copy(f"{key}.pub", directory / "authorized_keys")
    known = directory / "known_hosts"
    known.touch()
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # where root's sshd separates its privileges
    return Farm(directory, known, key)


def add_server(
    farm: Farm,
    name: str,
    address: str,
    port: int,
    *,
    listen: str = "",
    prefix: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    user: str = "",
    home: Path | None = None,
    set_home: bool = True,
    host_key: Path | None = None,
) -> Server:
    """Start the sshd of one more host; :func:`wait_for` says when it answers.

    ``prefix`` stands before sshd's command line (``ip netns exec ...``); ``environment`` is set in its sessions besides
    HOME and FAKE_HOST_ROOT; without ``set_home`` HOME is the user's own. ``host_key`` is used instead of a new one.
    """
    directory = farm.directory / name
    own_home, root = home or directory / "home", directory / "root"
    for each in (directory, own_home, root):
        each.mkdir(parents=True, exist_ok=True)
    if host_key is None:
        make_key(directory / "host_key")
    else:
        shutil.copy(host_key, directory / "host_key")
        shutil.copy(f"{host_key}.pub", directory / "host_key.pub")
    shown = {**({"HOME": str(own_home)} if set_home else {}), "FAKE_HOST_ROOT": str(root), **(environment or {})}
    config = _CONFIG.format(
        port=port,
        listen=listen or address,
        home=own_home,
        directory=directory,
        authorized=farm.directory / "authorized_keys",
        environment=" ".join(f'"{key}={value}"' for key, value in shown.items()),
    )
    (directory / "sshd_config").write_text(config)
    kind, public = (directory / "host_key.pub").read_text().split()[:2]
    shown_name = address if port == 22 else f"[{address}]:{port}"
    with open(farm.known_hosts, "a") as stream:
        stream.write(f"{shown_name} {kind} {public}\n")
    argv = [*prefix, sshd_path(), "-D", "-e", "-f", str(directory / "sshd_config")]
    with open(directory / "log", "ab") as log:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    host = Host(
        name=name,
        address=address,
        port=port,
        user=user or getpass.getuser(),
        key=str(farm.key),
        known_hosts=str(farm.known_hosts),
        timeout=60.0,
    )
    server = Server(host, own_home, root, directory, child.pid)
    _children[child.pid] = child
    farm.servers.append(server)
    return server


_children: dict[int, subprocess.Popen[bytes]] = {}


def wait_for(servers: Sequence[Server], seconds: float = 15.0) -> None:
    """Until every server's port answers; raises RuntimeError with sshd's log where one does not."""
    until = time.monotonic() + seconds
    for server in servers:
        while True:
            try:
                socket.create_connection((server.host.address, server.host.port or 22), 0.5).close()
                break
            except OSError as error:
                if time.monotonic() > until or _children[server.pid].poll() is not None:
                    log = (server.directory / "log").read_text(errors="replace")
                    raise RuntimeError(f"{server.name}: no sshd ({error}): {log[-2000:]}") from None
                time.sleep(0.02)


def stop_server(server: Server) -> None:
    """End its sshd; sessions it has go on until :func:`stop`, as with a real one."""
    child = _children.pop(server.pid, None)
    if child is not None:
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def stop(farm: Farm) -> None:
    """End all servers, and what their sessions still run: it carries this farm's directory in its environment."""
    for server in farm.servers:
        stop_server(server)
    for pid in session_pids(farm.directory):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def session_pids(directory: Path) -> list[int]:
    """Processes of sessions on hosts below ``directory``."""
    needle = f"FAKE_HOST_ROOT={directory}/".encode()
    found = []
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdigit() and needle in Path("/proc", name, "environ").read_bytes():
                found.append(int(name))
    return found


@contextmanager
def loopback(directory: Path, count: int = 20, *, environment: Mapping[str, str] | None = None) -> Iterator[Farm]:
    """``count`` hosts ``n01`` ... on ports of 127.0.0.1, each with its own home and root."""
    farm = new_farm(directory)
    try:
        for number, port in enumerate(free_ports(count), 1):
            add_server(farm, f"n{number:02d}", "127.0.0.1", port, environment=environment)
        wait_for(farm.servers)
        yield farm
    finally:
        stop(farm)


def why_no_namespaces() -> str:
    """'' where network namespaces can be made, else why not."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need ip(8): iproute2"
    name = f"sqprobe{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if done.returncode != 0:
        return f"no network namespace can be made here: {done.stderr.strip()}"
    bridge = f"sqb{os.getpid() % 100000}p"
    made = subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], capture_output=True, text=True)
    subprocess.run(["ip", "link", "del", bridge], capture_output=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return "" if made.returncode == 0 else f"no bridge can be made here: {made.stderr.strip()}"


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def link(server: Server, state: str) -> None:
    """Set the network link of a host in a namespace ``up`` or ``down``."""
    _ip("-n", server.namespace, "link", "set", "eth0", state)


@contextmanager
def namespaces(directory: Path, count: int = 5, *, environment: Mapping[str, str] | None = None) -> Iterator[Farm]:
    """``count`` hosts ``x1`` ... in network namespaces of their own behind one bridge, each with an sshd on port 22.

    The addresses are of a range made for this process, which nothing else here may use.
    """
    farm, own = new_farm(directory), os.getpid()
    bridge, net = f"sqb{own % 1000000}", f"10.{200 + own % 50}.{own // 50 % 250}"
    names: list[str] = []
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("addr", "add", f"{net}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for number in range(1, count + 1):
            name, outer, address = f"sq{own}x{number}", f"sqv{own % 1000000}x{number}", f"{net}.{number + 10}"
            _ip("netns", "add", name)
            names.append(name)
            _ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", outer, "master", bridge)
            _ip("link", "set", outer, "up")
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", "eth0", "up")
            prefix = ["ip", "netns", "exec", name]
            server = add_server(
                farm, f"x{number}", address, 22, listen="0.0.0.0", prefix=prefix, environment=environment
            )
            server.namespace = name
        wait_for(farm.servers)
        yield farm
    finally:
        stop(farm)
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)  # its end of the veth goes with it
        subprocess.run(["ip", "link", "del", bridge], capture_output=True)
