"""The ward's servers, all real: mosquitto, nginx, dnsmasq, and tcpdump on the bridge. Configurations and starts.

In: a `Namespaces` that is up. Out: running processes; `stop_capture` gives tcpdump's own counts.
Raises `TestbedError` where a server does not come up.
"""

import datetime as dt
import ipaddress
import re
import subprocess
import time
from pathlib import Path
from random import Random

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from converter.testbed.namespaces import Namespaces, TestbedError


def start_broker(ns: Namespaces) -> "subprocess.Popen[bytes]":
    """Start mosquitto with a plain listener, one that wants a password, and TLS where the ward has it."""
    ward, folder = ns.ward, ns.folder
    conf = folder / "mosquitto.conf"
    if not conf.exists():
        password = folder / "passwords"
        subprocess.run(
            ["mosquitto_passwd", "-b", "-c", str(password), "ward", "not-guessed"],
            check=True,
            capture_output=True,
        )
        password.chmod(0o600)
        lines = ["per_listener_settings true", "persistence false", "log_type error", "user root"]
        lines += [f"listener {ward.mqtt_port}", "allow_anonymous true", "max_connections -1"]
        lines += [
            f"listener {ward.auth_port}",
            "allow_anonymous false",
            f"password_file {password}",
        ]
        if ward.tls_port:
            _certificates(folder, ward.named("broker").ip)
            lines += [f"listener {ward.tls_port}", "allow_anonymous true"]
            lines += [
                f"cafile {folder}/ca.pem",
                f"certfile {folder}/broker.pem",
                f"keyfile {folder}/broker.key",
            ]
        conf.write_text("\n".join(lines) + "\n", encoding="ascii")
    process = ns.start("broker", ["mosquitto", "-c", str(conf)])
    _wait_listening("broker", ward.mqtt_port, process)
    return process


def start_web(ns: Namespaces, rng: Random) -> None:
    """Start nginx with a few pages, two firmware images, and an API that takes what it is given."""
    folder = ns.folder / "www"
    folder.mkdir()
    pages = {
        "index.html": 900,
        "beds.html": 2400,
        "trend.json": 6000,
        "style.css": 1500,
        "app.js": 9000,
        "limits.json": 300,
        "firmware-small.bin": 400_000,
        "firmware.bin": 2_500_000,
    }
    for name, size in pages.items():
        (folder / name).write_bytes(rng.randbytes(size))
    temporary = "\n".join(
        f"{w}_temp_path {ns.folder}/{w}_temp;"
        for w in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    conf = ns.folder / "nginx.conf"
    conf.write_text(
        f"daemon off; master_process off; user root; pid {ns.folder}/nginx.pid; error_log {ns.folder}/nginx.err;\n"
        f"events {{ worker_connections 512; }}\nhttp {{ access_log off; {temporary}\n"
        f"server {{ listen {ns.ward.web_port}; root {folder}; location /api {{ return 204; }} }} }}\n",
        encoding="ascii",
    )
    process = ns.start("web", ["nginx", "-e", f"{ns.folder}/nginx.err", "-c", str(conf)])
    _wait_listening("web", ns.ward.web_port, process)


def start_dns(ns: Namespaces) -> "subprocess.Popen[bytes]":
    """Start dnsmasq on the gateway: the ward's names, and addresses by DHCP for who asks."""
    ward = ns.ward
    argv = [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
    ]
    argv += [
        "--interface=br0",
        "--bind-interfaces",
        f"--pid-file={ns.folder}/dnsmasq.pid",
        "--local=/test/",
        "--no-ping",
    ]
    argv += [
        f"--dhcp-leasefile={ns.folder}/leases",
        f"--dhcp-range={ward.subnet}.100,{ward.subnet}.250,1h",
    ]
    if ward.version > 1:
        argv += ["--dhcp-authoritative", f"--dhcp-hostsfile={_reserve(ns, {})}"]
    for h in ward.hosts:
        addresses = f"{h.ip},{h.ip6}" if h.ip6 else h.ip
        argv.append(f"--host-record={h.name}.ward.test,{addresses}")
    process = ns.start("gw", argv)
    _wait_listening("gw", 53, process)
    return process


def move_lease(ns: Namespaces, dns: "subprocess.Popen[bytes]", moved: dict[str, str]) -> None:
    """Tell the DHCP server which addresses hosts have from now on (`moved`: MAC to address)."""
    _reserve(ns, moved)
    ns.tell(dns, "HUP")


def _reserve(ns: Namespaces, moved: dict[str, str]) -> Path:
    """The server's file of who has which address: each host its own, when it asks or renews."""
    path = ns.folder / "reservations"
    lines = [
        f"{h.mac},{moved.get(h.mac, h.ip)}\n"
        for h in ns.ward.hosts
        if not h.routed and h.role not in {"attacker", "gateway"}
    ]
    path.write_text("".join(lines), encoding="ascii")
    return path


def start_capture(ns: Namespaces, path: Path) -> "subprocess.Popen[bytes]":
    """Start tcpdump on the bridge, from when it says that it listens."""
    log = (ns.folder / "tcpdump.log").open("wb")
    with log:
        argv = [
            "tcpdump",
            "-i",
            "br0",
            "-n",
            "-B",
            "65536",
            "-s",
            "262144",
            "-Z",
            "root",
            "-w",
            str(path),
        ]
        process = ns.start("gw", argv, log=log)
    for _ in range(100):
        if "listening on" in (ns.folder / "tcpdump.log").read_text(encoding="ascii"):
            return process
        time.sleep(0.05)
    raise TestbedError(
        "tcpdump does not start: " + (ns.folder / "tcpdump.log").read_text(encoding="ascii")
    )


def stop_capture(ns: Namespaces, process: "subprocess.Popen[bytes]") -> dict[str, int]:
    """End tcpdump; its counts by `captured`, `received`, `dropped`."""
    time.sleep(1.2)  # its read timeout is 1 s: what is in the ring must reach the file
    ns.end(process, stop="INT", wait_s=10)
    text = (ns.folder / "tcpdump.log").read_text(encoding="ascii")
    words = {
        "captured": r"(\d+) packets? captured",
        "received": r"(\d+) packets? received by filter",
        "dropped": r"(\d+) packets? dropped by kernel",
    }
    found = {k: re.search(p, text) for k, p in words.items()}
    if not all(found.values()):
        raise TestbedError(f"tcpdump gave no counts: {text.strip()!r}")
    return {k: int(m[1]) for k, m in found.items() if m}


def _wait_listening(host: str, port: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until a TCP port listens, by the namespace's own table: no frame is sent for it."""
    wanted = f":{port:04X} "
    for _ in range(100):
        if process.poll() is not None:
            break
        tables = "".join(
            p.read_text(encoding="ascii")
            for name in ("tcp", "tcp6")
            if (p := Path(f"/proc/{process.pid}/net/{name}")).exists()
        )
        if any(wanted in line and " 0A " in line for line in tables.splitlines()):
            return
        time.sleep(0.05)
    raise TestbedError(f"{host}: its server does not listen on port {port}")


def _certificates(folder: Path, address: str) -> None:
    """A CA and a certificate for the broker, for this run only."""
    now = dt.datetime.now(dt.UTC)

    def issue(
        name: str, issuer: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
    ) -> x509.Certificate:
        ca = name == issuer
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        names: list[x509.GeneralName] = [
            x509.DNSName("broker.ward.test"),
            x509.IPAddress(ipaddress.ip_address(address)),
        ]
        builder = (
            builder
            if ca
            else builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        return builder.sign(signer, hashes.SHA256())

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(issue("ward CA", "ward CA", ca_key, ca_key).public_bytes(pem))
    (folder / "broker.pem").write_bytes(issue("broker", "ward CA", key, ca_key).public_bytes(pem))
    secret = key.private_bytes(
        pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    (folder / "broker.key").write_bytes(secret)
