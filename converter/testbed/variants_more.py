"""The second part of the table of variants (`variants.VARIANTS` holds both): other tools, rates, targets, IPv6, TLS.

Which of them train the model and which are held out is said by the plans; `docs/testbed.md` has the table.
"""

# ruff: noqa: E501 - a row of the table is a line

from converter.testbed import attacks as a
from converter.testbed import attacks_broker as b
from converter.testbed import attacks_flood as f
from converter.testbed import attacks_recon as r
from converter.testbed import attacks_spoof as s
from converter.testbed import attacks_web as w
from converter.testbed.attacks import Variant

_ANY_SYN = [2 | x for x in (0, 1, 8, 32, 64, 128, 192, 9, 40, 41)]
_ANY = [0, 1, 4, 8, 16, 17, 18, 20, 24, 25, 32, 41, 48, 56, 63]
_NPING = "nping -q -N --rate {rate} -c {count}"
_ARPING = "sh -c i=0; while [ $i -lt {last} ]; do i=$((i+1)); arping -q -c 1 -W {gap_s} -w 1 -i eth0 {base}.$i; done"
_NC = "sh -c for p in $(seq {first} {last}); do nc -z -w 1 {dst} $p; done"
_HPING_OS = (
    "sh -c for k in 1 2 3; do for f in -S '-S -F -P -U' '' '-F -P -U' -A '-S -X -Y'; do for p in {open} {shut}; do "
    "hping3 -q -n -c 1 -i u1000 $f -p $p -w 1024 {dst}; done; done; hping3 -q -n -1 -c 1 -C 13 {dst}; "
    "hping3 -q -n -1 -c 1 -K 9 {dst}; hping3 -q -n -2 -c 1 -p {shut} -d 300 {dst}; done"
)
_NPING_OS = (
    "sh -c for f in syn none syn,fin,psh,urg ack fin,psh,urg syn,ecn,cwr; do "
    "nping -q -N -c 2 --delay 100ms --tcp --flags $f --win 1024 -p {open},{shut} {dst}; done; "
    "nping -q -N -c 1 --icmp --icmp-type 13 {dst}; nping -q -N -c 1 --icmp --icmp-type 8 --icmp-code 9 {dst}; "
    "nping -q -N -c 1 --udp -p {shut} --data-length 300 {dst}"
)
_ARP_NPING = (
    "nping -q -N --arp --arp-type ARP-reply --dest-mac {a_mac} --arp-sender-mac {mine} --arp-sender-ip {b} "
    "--arp-target-mac {a_mac} --arp-target-ip {a} --rate 2 -c 30 {a}"
)
_ARPING_CLAIM = "arping -q -i eth0 -A -S {b} -s {mine} -t {a_mac} -P -c 30 -w 1 {b}"

FLOODS: tuple[Variant, ...] = (
    Variant("tcp_syn_flood", "nping-syn", "nping", f.tool_flood(f"{_NPING} --tcp --flags syn -p {{port}} {{dst}}")),
    Variant("tcp_syn_flood", "hping-syn-low", "hping3", f.tool_flood("hping3 -q -n -S -i u{gap_us} -c {count} -p {port} {dst}", low=True)),
    Variant("tcp_syn_flood", "own-syn-flags", "own", f.raw("tcp", flags=_ANY_SYN)),
    Variant("tcp_syn_flood", "own-syn-v6", "own", f.raw("tcp", flags=[2], v6=True), needs="ipv6"),
    Variant("tcp_syn_flood", "own-syn-subnet", "own", f.raw("tcp", flags=[2], spoof="subnet")),
    Variant("tcp_syn_flood", "own-syn-ports", "own", f.raw("tcp", flags=[2], ports=False)),
    Variant("tcp_syn_flood", "own-syn-v6-spoofed", "own", f.raw("tcp", flags=[2], v6=True, spoof="public"), needs="ipv6"),
    Variant("tcp_syn_flood", "t50-syn", "t50", f.tool_flood("t50 {dst} -s {mine} --protocol TCP -S --dport {port} --threshold {count}", most=3_000, seconds=2)),
    Variant("tcp_flood", "nping-ack", "nping", f.tool_flood(f"{_NPING} --tcp --flags ack -p {{port}} --data-length {{size}} {{dst}}")),
    Variant("tcp_flood", "hping-ack-low", "hping3", f.tool_flood("hping3 -q -n -A -i u{gap_us} -c {count} -d {size} -p {port} {dst}", low=True)),
    Variant("tcp_flood", "own-flags", "own", f.raw("tcp", flags=_ANY, sizes=[0, 40])),
    Variant("tcp_flood", "own-ack-v6", "own", f.raw("tcp", flags=[16, 24], v6=True, sizes=[0, 100]), needs="ipv6"),
    Variant("tcp_flood", "own-reflected-synack", "own", f.raw("tcp", flags=[18], spoof="60", sport=443, ports=False)),
    Variant("tcp_flood", "own-tcp-data", "own", f.tcp_data),
    Variant("tcp_flood", "own-xmas", "own", f.raw("tcp", flags=[41], ports=False)),
    Variant("tcp_flood", "t50-ack", "t50", f.tool_flood("t50 {dst} -s {mine} --protocol TCP -A -P --dport {port} --threshold {count}", most=3_000, seconds=2)),
    Variant("udp_flood", "nping-udp", "nping", f.tool_flood(f"{_NPING} --udp -p {{port}} --data-length {{size}} {{dst}}")),
    Variant("udp_flood", "hping-udp-low", "hping3", f.tool_flood("hping3 -q -n --udp -i u{gap_us} -c {count} -d {size} -p {port} {dst}", low=True)),
    Variant("udp_flood", "own-udp-v6", "own", f.raw("udp", v6=True, sizes=[16, 200, 900]), needs="ipv6"),
    Variant("udp_flood", "own-udp-ports", "own", f.raw("udp", ports=False, sizes=[0, 32, 500])),
    Variant("udp_flood", "own-reflected-dns", "own", f.reflected("dns", 53)),
    Variant("udp_flood", "own-reflected-ntp", "own", f.reflected("ntp", 123)),
    Variant("udp_flood", "own-reflected-ssdp", "own", f.reflected("ssdp", 1900)),
    Variant("udp_flood", "own-udp-fragments", "own", f.big_datagrams),
    Variant("udp_flood", "t50-udp", "t50", f.tool_flood("t50 {dst} -s {mine} --protocol UDP --dport {port} --threshold {count}", most=3_000, seconds=2)),
    Variant("icmp_flood", "nping-icmp", "nping", f.tool_flood(f"{_NPING} --icmp --data-length {{size}} {{dst}}", port=False)),
    Variant("icmp_flood", "fping-flood", "fping", f.tool_flood("fping -q -p 2 -i 1 -b {size} -c {count} {dst}", port=False, most=3_000)),
    Variant("icmp_flood", "hping-icmp-low", "hping3", f.tool_flood("hping3 -q -n --icmp -i u{gap_us} -c {count} -d {size} {dst}", low=True, port=False)),
    Variant("icmp_flood", "hping-icmp-spoofed-two", "hping3", a.hping("--icmp", spoofed=True, port=False, sizes=(56, 200)), 2),
    Variant("icmp_flood", "own-icmp-types", "own", f.raw("icmp", types=[(8, 0), (13, 0), (17, 0), (0, 0), (3, 3), (11, 0)], sizes=[4, 60])),
    Variant("icmp_flood", "own-icmp-v6", "own", f.raw("icmp", v6=True, types=[(128, 0)], sizes=[24, 56, 400]), needs="ipv6"),
    Variant("icmp_flood", "own-reflected-echo", "own", f.raw("icmp", types=[(0, 0)], spoof="100", sizes=[56])),
    Variant("icmp_flood", "ping-v6-flood", "ping", f.v6_ping, needs="ipv6"),
    Variant("icmp_flood", "t50-icmp", "t50", f.tool_flood("t50 {dst} -s {mine} --protocol ICMP --threshold {count}", port=False, most=3_000, seconds=2)),
)  # fmt: skip

RECON: tuple[Variant, ...] = (
    Variant("port_scan", "nping-ports", "nping", r.scan("nping -q -N --tcp --flags syn --rate {rate} -c 1 -p {first}-{last} {dst}", counts=(150, 400), rates=(40, 100, 200))),
    Variant("port_scan", "masscan-ports", "masscan", r.scan("masscan -e eth0 --rate {rate} --wait 1 -p {first}-{last} {dst}/32", counts=(200, 600), rates=(50, 150, 500), seconds=4)),
    Variant("port_scan", "nmap-syn-v6", "nmap", r.scan("nmap -6 -n -Pn -sS -T4 --max-rate {rate} -p {first}-{last} {dst}", counts=(100, 400), rates=(40, 150, 400), v6=True), needs="ipv6"),
    Variant("port_scan", "nmap-window", "nmap", r.scan("nmap -n -Pn -sW --max-rate {rate} --max-retries 1 -p {first}-{last} {dst}", counts=(100, 300), rates=(30, 100, 300))),
    Variant("port_scan", "nmap-probe-5s", "nmap", r.scan("nmap -n -Pn -sS --scan-delay {gap_ms}ms --max-retries 0 -p {first}-{last} {dst}", counts=(9,), rates=(0.2,))),
    Variant("port_scan", "own-udp-scan", "own", r.own_scan(0, counts=(60, 150, 300), rates=(10, 30, 100))),
    Variant("port_scan", "own-syn-slow", "own", r.own_scan(2, counts=(20, 30), rates=(0.7, 1.0, 2.0))),
    Variant("port_scan", "own-fin-v6", "own", r.own_scan(1, counts=(100, 250), rates=(30, 100), v6=True), needs="ipv6"),
    Variant("port_scan", "hping-scan", "hping3", r.scan("hping3 -q -n -S -i u10000 --scan {first}-{last} {dst}", counts=(100, 400), rates=(80,))),
    Variant("port_scan", "nc-ports", "nc", r.scan(_NC, counts=(100, 250), rates=(60,))),
    Variant("port_scan", "nmap-maimon", "nmap", r.scan("nmap -n -Pn -sM --max-rate {rate} --max-retries 1 -p {first}-{last} {dst}", counts=(100, 300), rates=(30, 100, 300))),
    Variant("port_scan", "own-syn-7s", "own", r.own_scan(2, counts=(8,), rates=(0.15,))),
    Variant("ping_sweep", "fping-sweep", "fping", r.sweep("fping -q -r 0 -i {gap_ms} -g {net}", rates=(15, 50, 100))),
    Variant("ping_sweep", "fping-routed", "fping", r.sweep("fping -q -r 0 -i {gap_ms} -g {net}", rates=(15, 40, 100), routed=True)),
    Variant("ping_sweep", "fping-slow", "fping", r.sweep("fping -q -r 0 -i {gap_ms} -g {net}", rates=(1, 2), size=27)),
    Variant("ping_sweep", "arp-scan", "arp-scan", r.sweep("arp-scan -q -I eth0 -r 1 -i {gap_ms} {net}", rates=(20, 100, 300))),
    Variant("ping_sweep", "nping-tcp-local", "nping", r.sweep("nping -q -N --tcp --flags syn -p {port} -c 1 --rate {rate} {net}", rates=(20, 60), size=25)),
    Variant("ping_sweep", "nping-tcp-far", "nping", r.sweep("nping -q -N --tcp --flags syn -p {port} -c 1 --rate {rate} {net}", rates=(20, 60), routed=True)),
    Variant("ping_sweep", "masscan-tcp-far", "masscan", r.sweep("masscan -e eth0 --rate {rate} --wait 1 -p {port} {net}", rates=(20, 60, 200), routed=True, margin_s=4)),
    Variant("ping_sweep", "nmap-udp-far", "nmap", r.sweep("nmap -n -sn -PU{port} --max-rate {rate} {net}", rates=(25, 60, 150), routed=True, size=25, margin_s=5)),
    Variant("ping_sweep", "nmap-ack-far", "nmap", r.sweep("nmap -n -sn -PA{port},3389 --max-rate {rate} {net}", rates=(40, 100), routed=True, size=25, margin_s=6)),
    Variant("ping_sweep", "own-connect-sweep", "own", r.own_sweep("connect", rates=(20, 60, 200))),
    Variant("ping_sweep", "own-udp-sweep", "own", r.own_sweep("udp", rates=(20, 60, 200))),
    Variant("ping_sweep", "own-echo-v6", "own", r.own_sweep("echo", rates=(15, 40, 100), routed=False, v6=True), needs="ipv6"),
    Variant("ping_sweep", "own-multicast-echo", "own", r.multicast_echo, needs="ipv6"),
    Variant("ping_sweep", "netdiscover", "netdiscover", r.sweep("netdiscover -i eth0 -P -N -s {gap_ms} -r {net}", rates=(50, 200), margin_s=3)),
    Variant("ping_sweep", "arping-sweep", "arping", r.sweep(_ARPING, rates=(5,), size=25)),
    Variant("ping_sweep", "nping-echo-far", "nping", r.sweep("nping -q -N --icmp -c 1 --rate {rate} {net}", rates=(20, 60, 150), routed=True)),
    Variant("ping_sweep", "own-connect-v6", "own", r.own_sweep("connect", rates=(15, 40), routed=False, v6=True), needs="ipv6"),
    Variant("os_scan", "nmap-os-ports", "nmap", r.os_tool("nmap -n -Pn -O --osscan-guess --max-os-tries 2 -p {open},{shut} {dst}", seconds=6)),
    Variant("os_scan", "nmap-os-slow", "nmap", r.os_tool("nmap -n -Pn -O --scan-delay 250ms --max-os-tries 1 -p {open},{shut},22,443 {dst}", seconds=14)),
    Variant("os_scan", "nmap-os-hosts", "nmap", r.os_tool("nmap -n -Pn -O -T4 --max-os-tries 1 -p 22,80,443,1883,{open},{shut} {dst}", seconds=9, hosts=3)),
    Variant("os_scan", "nmap-os-v6", "nmap", r.os_tool("nmap -6 -n -Pn -O --max-os-tries 2 -p {open},{shut},80 {dst}", seconds=8, v6=True), needs="ipv6"),
    Variant("os_scan", "own-os-probes", "own", r.own_os(icmp=False, rates=(2, 5, 10))),
    Variant("os_scan", "own-os-icmp", "own", r.own_os(icmp=True, rates=(2, 5, 10))),
    Variant("os_scan", "hping-os", "hping3", r.os_tool(_HPING_OS, seconds=12)),
    Variant("os_scan", "nping-os", "nping", r.os_tool(_NPING_OS, seconds=6)),
    Variant("os_scan", "nmap-os-decoys", "nmap", r.os_tool("nmap -n -Pn -O -D RND:3 --max-os-tries 1 -p {open},{shut},22,80 {dst}", seconds=8)),
    Variant("os_scan", "own-os-slow", "own", r.own_os(icmp=False, rates=(0.7, 1.0))),
    Variant("vulnerability_scan", "whatweb", "whatweb", w.web_scanner("whatweb -q --no-errors -a 4 -t 4 {url}", seconds=(16, 20))),
    Variant("vulnerability_scan", "wapiti", "wapiti", w.web_scanner("wapiti -u {url} --flush-session --no-bugreport -l 2 -t 3 -m buster,backup,methods,shellshock,file,exec", seconds=(14, 20))),
    Variant("vulnerability_scan", "dirb", "dirb", w.web_scanner("dirb {url} {words} -S -r -w -z {pace}", seconds=(9, 14), paces=("1", "20", "60"))),
    Variant("vulnerability_scan", "gobuster", "gobuster", w.web_scanner("gobuster dir -q -u {url} -w {words} {pace}", seconds=(9, 14), paces=("-t 1 --delay 5ms", "-t 2 --delay 20ms", "-t 3"))),
    Variant("vulnerability_scan", "gobuster-slow", "gobuster", w.web_scanner("gobuster dir -q -u {url} -w {words} -t 1 --delay {pace}", seconds=(16, 24), paces=("120ms", "250ms", "500ms"))),
    Variant("vulnerability_scan", "sqlmap", "sqlmap", w.web_scanner("sqlmap --delay 0.01 --batch --flush-session --level 3 --risk 2 --threads 2 --ignore-code=404 -u {url}api?id={seed}", seconds=(17, 22))),
    Variant("vulnerability_scan", "nmap-versions-all", "nmap", w.web_scanner("nmap -n -Pn -T4 -sV --version-all -p 22,80,443,1883,8080,2575 --host-timeout 20s {host}", seconds=(14, 20))),
    Variant("vulnerability_scan", "own-banners", "own", w.banners((1.0, 4.0, 15.0))),
    Variant("vulnerability_scan", "ffuf", "ffuf", w.web_scanner("ffuf -s -t 1 -p {pace} -w {words} -u {url}FUZZ", seconds=(9, 14), paces=("0.01", "0.03", "0.1"))),
    Variant("vulnerability_scan", "wfuzz", "wfuzz", w.web_scanner("wfuzz -t 2 -s {pace} -w {words} {url}FUZZ", seconds=(10, 14), paces=("0.05", "0.15"))),
    Variant("vulnerability_scan", "nmap-http-scripts", "nmap", w.web_scanner("nmap -n -Pn -T4 -p 80,8080 --script http-enum,http-sql-injection,http-vuln* {host}", seconds=(14, 20))),
)  # fmt: skip

OTHERS: tuple[Variant, ...] = (
    Variant("arp_spoofing", "own-arp-requests", "own", s.claims("request", rates=(0.5, 1.0, 3.0), seconds=(9, 15))),
    Variant("arp_spoofing", "own-arp-gratuitous", "own", s.claims("gratuitous", rates=(0.5, 1.0, 2.0), seconds=(9, 15))),
    Variant("arp_spoofing", "own-arp-slow", "own", s.claims("reply", rates=(0.15, 0.25), seconds=(26, 36))),
    Variant("arp_spoofing", "own-arp-many", "own", s.claims("reply", rates=(0.5, 1.0, 2.0), seconds=(8, 14), many=5)),
    Variant("arp_spoofing", "ettercap-one-way", "ettercap", s.tool("ettercap -T -q -i eth0 -M arp:oneway /{a}// /{b}//", forward=False, seconds=(10, 15))),
    Variant("arp_spoofing", "own-nd-advertise", "own", s.nd_claims("advertise", rates=(0.5, 1.0, 3.0), seconds=(10, 16)), needs="ipv6"),
    Variant("arp_spoofing", "nping-arp", "nping", s.tool(_ARP_NPING, forward=True, seconds=(9, 15))),
    Variant("arp_spoofing", "arpspoof-all", "arpspoof", s.tool("arpspoof -i eth0 {b}", forward=True, seconds=(10, 16))),
    Variant("arp_spoofing", "own-nd-solicit", "own", s.nd_claims("solicit", rates=(0.5, 1.0, 2.0), seconds=(10, 16)), needs="ipv6"),
    Variant("arp_spoofing", "own-arp-requests-slow", "own", s.claims("request", rates=(0.15, 0.3), seconds=(26, 36))),
    Variant("mqtt_connect_flood", "own-connects-v6", "own", b.connects(rates=(30, 100, 300), seconds=(5, 10), v6=True), needs="ipv6"),
    Variant("mqtt_connect_flood", "own-brute-force-40", "own", b.connects(rates=(0.667,), seconds=(40, 50), guess=True)),
    Variant("mqtt_connect_flood", "own-connects-tls-slow", "own", b.connects(rates=(3, 6, 10), seconds=(12, 18), tls=True), needs="tls"),
    Variant("mqtt_connect_flood", "own-slowite", "own", b.own_tool("mqtt_slow", rates=(2, 4, 8), seconds=(14, 20), hold_s=4, cut=(0.0, 0.3), keep_alive=65535)),
    Variant("mqtt_connect_flood", "paho-connects", "paho", b.own_tool("paho_connects", rates=(8, 15), seconds=(9, 13), user="")),
    Variant("mqtt_connect_flood", "own-drip", "own", b.own_tool("mqtt_drip", rates=(4, 10, 25), seconds=(9, 14), most=300, hold_s=3, drip_s=2)),
    Variant("mqtt_connect_flood", "own-tls-hellos", "own", b.own_tool("tls_hellos", rates=(15, 40), seconds=(6, 10), tls=True), needs="tls"),
    Variant("mqtt_connect_flood", "sub-brute-force", "mosquitto_sub", b.client_loop("mosquitto_sub -h {dst} -p {port} -u ward -P g$i -t ward/x -C 1 -W 1; sleep 0.2", counts=(30, 60), each_s=0.25, auth=True)),
    Variant("mqtt_connect_flood", "ncrack-mqtt", "ncrack", b.ncrack),
    Variant("mqtt_publish_flood", "own-qos2", "own", b.messages(rates=(150, 300, 600), qos=2)),
    Variant("mqtt_publish_flood", "own-publish-tls", "own", b.messages(rates=(200, 400, 800), tls=True), needs="tls"),
    Variant("mqtt_publish_flood", "own-publish-v6", "own", b.messages(rates=(200, 400, 800), v6=True, qos=(0, 1)), needs="ipv6"),
    Variant("mqtt_publish_flood", "own-publish-low", "own", b.messages(rates=(40, 60, 90), seconds=(9, 14), connections=(1, 2))),
    Variant("mqtt_publish_flood", "own-topics", "own", b.messages(rates=(200, 500), topics=400, retain=True)),
    Variant("mqtt_publish_flood", "own-huge", "own", b.messages(rates=(20, 40), size=(9_000, 25_000), connections=(1, 2), most=250)),
    Variant("mqtt_publish_flood", "pub-lines", "mosquitto_pub", b.lines),
    Variant("mqtt_publish_flood", "own-empty-two", "own", b.messages(rates=(300, 700), size=0), 2),
    Variant("mqtt_publish_flood", "own-qos2-unreleased", "own", b.messages(rates=(150, 400), qos=2, release=False, size=(100, 300))),
    Variant("mqtt_malformed", "own-acks", "own", b.broken("acks", "server", rates=(3, 10, 30))),
    Variant("mqtt_malformed", "own-subscribes", "own", b.broken("filters", "filter_options", rates=(3, 10, 30))),
    Variant("mqtt_malformed", "own-broken-slow", "own", b.broken("mutated", "filters", "acks", rates=(0.7, 1.5), seconds=(16, 22))),
    Variant("mqtt_malformed", "own-broken-v6", "own", b.broken("mutated", "filters", "properties", "server", rates=(5, 20), v6=True), needs="ipv6"),
    Variant("mqtt_malformed", "own-broken-tls", "own", b.broken("mutated", "acks", rates=(5, 20), tls=True), needs="tls"),
    Variant("mqtt_malformed", "own-trains", "own", b.broken("acks", "filters", "server", rates=(3, 10), train=4)),
    Variant("mqtt_malformed", "own-properties", "own", b.broken("properties", rates=(4, 15, 40))),
    Variant("mqtt_malformed", "own-mutated", "own", b.broken("mutated", rates=(4, 15, 40))),
    Variant("mqtt_malformed", "own-cut-two", "own", b.broken("cut", "mutated", rates=(6, 20)), 2),
)  # fmt: skip

MORE: tuple[Variant, ...] = FLOODS + RECON + OTHERS
