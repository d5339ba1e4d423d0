"""The wide ward's devices: ECG patch, nurse call, DICOM modality and archive, HL7 v2 over MLLP, network management.

Real protocols (MQTT by paho, DICOM by pynetdicom, MLLP framing with acknowledgements, SNMPv2c), invented content:
every name and identity field is empty. Source: DICOM PS3.7 and PS3.8; HL7 v2.5 chapter 2 and MLLP release 1;
RFC 3416 and RFC 3417 (SNMPv2c).
"""

import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from converter.testbed import actions
from converter.testbed.device_kit import (
    MQTT311,
    STOP,
    Options,
    broker,
    http_call,
    nap,
    payload,
    serve,
)

MLLP_PORT = 2575
_VERIFICATION = "1.2.840.10008.1.1"
_VT, _END = b"\x0b", b"\x1c\r"


def ecg(o: Options, rng: random.Random) -> None:
    """ECG patch: samples in small binary blocks at QoS 0; out of reach now and then, then all that it kept."""
    c = broker(o, rng, keep_alive=15, version=MQTT311)
    block_s, leads = rng.choice((0.2, 0.5, 1.0)), rng.choice((1, 3))
    patch, n, kept = rng.randrange(1, 40), 0, 0
    while nap(block_s):
        n += 1
        if kept or rng.random() < 0.002:
            kept += 1
            if kept * block_s < rng.uniform(5, 20):
                continue
        for _ in range(kept + 1):
            c.publish(f"ward/ecg{patch}/raw", rng.randbytes(int(500 * block_s) * leads), qos=0)
        kept = 0
        if n % max(1, int(30 / block_s)) == 0:
            c.publish(f"ward/ecg{patch}/battery", payload(rng, 20), qos=1, retain=True)
    c.disconnect()


def call(o: Options, rng: random.Random) -> None:
    """Nurse call: silent; a press is told at QoS 2, again until somebody comes, and then taken back."""
    c = broker(o, rng, keep_alive=rng.choice((10, 30)))
    room = rng.randrange(1, 60)
    c.subscribe(f"ward/call/{room}/ack", qos=1)
    while nap(rng.expovariate(1 / 35) + 2):
        for _ in range(rng.randint(1, 4)):
            c.publish(f"ward/call/{room}", payload(rng, 15), qos=2, retain=True)
            http_call(o, "POST", "/api/call", payload(rng, 20))
            if not nap(rng.uniform(2, 5)):
                break
        c.publish(f"ward/call/{room}", b"", qos=2, retain=True)
    c.disconnect()


def _image(rng: random.Random) -> Any:
    """A generated slice of noise; every field that could name somebody is there and empty."""
    from pydicom.dataset import Dataset, FileMetaDataset  # noqa: PLC0415  slow to load; two devices want it
    from pydicom.uid import (  # noqa: PLC0415
        ImplicitVRLittleEndian,
        SecondaryCaptureImageStorage,
        generate_uid,
    )

    side = rng.choice((96, 128, 192, 256))
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    d.SOPClassUID = SecondaryCaptureImageStorage
    for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(d, name, generate_uid(entropy_srcs=[name, str(rng.random())]))
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID"):
        setattr(d, name, "")
    d.Modality, d.SamplesPerPixel, d.PhotometricInterpretation = "OT", 1, "MONOCHROME2"
    d.Rows = d.Columns = side
    d.BitsAllocated = d.BitsStored = 16
    d.HighBit, d.PixelRepresentation = 15, 0
    d.add_new(0x7FE00010, "OW", rng.randbytes(2 * side * side))
    return d


def modality(o: Options, rng: random.Random) -> None:
    """DICOM modality: C-ECHO to the archive now and then, a study of a few images on one association."""
    from pydicom.uid import SecondaryCaptureImageStorage  # noqa: PLC0415
    from pynetdicom import AE  # noqa: PLC0415

    ae = AE(ae_title=f"MOD{rng.randrange(100)}")
    ae.add_requested_context(_VERIFICATION)
    ae.add_requested_context(SecondaryCaptureImageStorage)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = 5
    while nap(rng.expovariate(1 / 18) + 3):
        association = ae.associate(o["archive"], o["dicom_port"], ae_title="ARCHIVE")
        if not association.is_established:
            continue
        with suppress(RuntimeError, ValueError):
            association.send_c_echo()
            for _ in range(rng.choice((0, 0, 3, 6, 12))):
                association.send_c_store(_image(rng))
                if not nap(rng.uniform(0.05, 0.8)):
                    break
        association.release()


def pacs(o: Options, rng: random.Random) -> None:
    """The image archive: takes what comes, keeps nothing."""
    del rng
    from pydicom.uid import SecondaryCaptureImageStorage  # noqa: PLC0415
    from pynetdicom import AE, evt  # noqa: PLC0415

    ae = AE(ae_title="ARCHIVE")
    ae.add_supported_context(_VERIFICATION)
    ae.add_supported_context(SecondaryCaptureImageStorage)
    server = ae.start_server(
        ("", o["dicom_port"]), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0x0000)]
    )
    STOP.wait()
    if server is not None:
        server.shutdown()


def _stamp() -> str:
    return time.strftime("%Y%m%d%H%M%S", time.gmtime())


def _observation(rng: random.Random, number: int) -> bytes:
    """An ORU^R01 with a few results; PID is there, as it must be, and empty."""
    now = _stamp()
    lines = [
        f"MSH|^~\\&|DEVICE|WARD|EHR|HOSPITAL|{now}||ORU^R01^ORU_R01|{number}|P|2.5",
        "PID|1",
        f"OBR|1||{number}|SET^Readings^L|||{now}",
    ]
    for i in range(rng.randint(2, 14)):
        code = rng.choice(("8867-4^Heart rate^LN", "9279-1^Breaths^LN", "59408-5^SpO2^LN"))
        lines.append(f"OBX|{i + 1}|NM|{code}||{rng.randrange(40, 180)}|1|||||F|||{now}")
    return ("\r".join(lines) + "\r").encode()


def _frames(s: socket.socket) -> Iterator[bytes]:
    """Whole messages from an MLLP stream, until the other side ends it."""
    kept = b""
    while data := s.recv(8192):
        kept += data
        while _END in kept:
            message, kept = kept.split(_END, 1)
            yield message.lstrip(_VT)


def mllp(o: Options, rng: random.Random) -> None:
    """HL7 v2 sender: one lasting connection or one a batch; the next message waits for the acknowledgement."""
    lasting, number = rng.random() < 0.5, rng.randrange(10**6)
    while nap(rng.uniform(1, 6)):
        with suppress(OSError), socket.create_connection((o["web"], MLLP_PORT), 5) as s:
            answers = _frames(s)
            for _ in range(10**9 if lasting else rng.randint(1, 5)):
                number += 1
                s.sendall(_VT + _observation(rng, number) + _END)
                if next(answers, b"") == b"" or not nap(rng.expovariate(1 / 2) + 0.2):
                    break


def mllpserver(o: Options, rng: random.Random) -> None:
    """The interface engine: acknowledges each message by its control id."""
    del o, rng
    serve(MLLP_PORT, _acknowledge)


def _acknowledge(s: socket.socket) -> None:
    with s, suppress(OSError):
        s.settimeout(60)
        for message in _frames(s):
            fields = message.split(b"\r", 1)[0].split(b"|")
            control = fields[9] if len(fields) > 9 else b""
            head = f"MSH|^~\\&|EHR|HOSPITAL|DEVICE|WARD|{_stamp()}||ACK^R01^ACK|A".encode()
            s.sendall(_VT + head + control + b"|P|2.5\rMSA|AA|" + control + b"\r" + _END)


def _ber(tag: int, body: bytes) -> bytes:
    """A BER element of fewer than 128 bytes."""
    return bytes((tag, len(body))) + body


_OIDS = (b"\x2b\x06\x01\x02\x01\x01\x03\x00", b"\x2b\x06\x01\x02\x01\x02\x01\x00")
"""sysUpTime.0 and ifNumber.0 of MIB-2."""


def snmp_get(number: int, oids: tuple[bytes, ...] = _OIDS, *, answer: int | None = None) -> bytes:
    """An SNMPv2c GetRequest; with `answer`, the response that carries it."""
    value = b"\x05\x00" if answer is None else _ber(2, struct.pack("!I", answer))
    bindings = b"".join(_ber(0x30, _ber(6, oid) + value) for oid in oids)
    pdu = _ber(2, struct.pack("!I", number & 0x7FFFFFFF)) + b"\x02\x01\x00\x02\x01\x00"
    kind = 0xA0 if answer is None else 0xA2
    return _ber(0x30, b"\x02\x01\x01" + _ber(4, b"public") + _ber(kind, pdu + _ber(0x30, bindings)))


def snmp_agent() -> None:
    """Answer management's questions on UDP 161, by the number that they carry."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("", 161))
        while True:
            data, peer = s.recvfrom(2048)
            if len(data) > 21 and data[:2] == snmp_get(0)[:2]:
                (number,) = struct.unpack("!I", data[17:21])
                s.sendto(snmp_get(number, answer=number & 0xFFFFFF), peer)


def snmp_poll(address: str, number: int) -> None:
    """Ask one host, twice if it does not answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        s.connect((address, 161))
        for _ in range(2):
            with suppress(OSError):
                s.send(snmp_get(number))
                s.recv(2048)
                return


def manager(o: Options, rng: random.Random) -> None:
    """Network management: echo to each known host in turn, SNMP to those that speak it, TCP checks of servers."""
    order: list[str] = []
    while nap(rng.uniform(1, 5)):
        order = order or rng.sample(o["hosts"], len(o["hosts"]))
        actions.echo(order.pop(), 1)
        if o["agents"] and rng.random() < 0.5:
            snmp_poll(rng.choice(o["agents"]), rng.randrange(2**31))
        if rng.random() < 0.1:
            with suppress(OSError), socket.create_connection((o["broker"], o["port"]), 2):
                pass
        if rng.random() < 0.1:
            http_call(o, "GET", "/")


PROFILES: tuple[Callable[[Options, random.Random], None], ...] = (
    ecg,
    call,
    modality,
    pacs,
    mllp,
    mllpserver,
    manager,
)
"""What `Host.profile` may say besides `devices.py`'s own."""
