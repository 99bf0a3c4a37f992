//! Wrong inputs and the messages about them.
//!
//! One file because it is one table.

/// Line of the small file to replace, its text, and all errors: `line:column [path] message | help`.
pub(super) const WRONG: &[(usize, &str, &[&str])] = &[
    (1, "", &[r#"1:1 [] `interfaces` is missing | add for example `interfaces = ["eth0"]`"#]),
    (
        1,
        "interfaces = []",
        &[r#"1:14 [interfaces] no interface is named | write for example `interfaces = ["eth0"]`"#],
    ),
    (
        1,
        r#"interfaces = "eth0""#,
        &[
            r#"1:14 [interfaces] expected an array of interfaces, found a string | write for example `interfaces = ["eth0"]`"#,
        ],
    ),
    (
        1,
        r#"interfaces = ["eth0", "eth 1"]"#,
        &[
            "1:23 [interfaces[1]] `eth 1` cannot be the name of an interface | `ip link` lists the interfaces; a name has 1 to 15 characters, no blank, no `/`, no `:`",
        ],
    ),
    (
        1,
        r#"interfaces = ["a-very-long-name"]"#,
        &[
            "1:15 [interfaces[0]] `a-very-long-name` cannot be the name of an interface | `ip link` lists the interfaces; a name has 1 to 15 characters, no blank, no `/`, no `:`",
        ],
    ),
    (
        1,
        r#"interfaces = ["eth0", "eth0"]"#,
        &["1:23 [interfaces[1]] the interface `eth0` is named twice | remove one of them"],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\nxdp_mode = \"nativ\"",
        &[r#"2:12 [xdp_mode] `nativ` is not a value of `xdp_mode` | did you mean `"native"`?"#],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\ninstance = \"../etc\"",
        &[
            "2:12 [instance] `../etc` is not a name | use at most 64 letters, digits, `-`, `_` and `.`, a letter or digit first",
        ],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\ninstance = \"a\\u0000b\"",
        &[
            "2:12 [instance] `a\\0b` is not a name | use at most 64 letters, digits, `-`, `_` and `.`, a letter or digit first",
        ],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\ncontrol_socket = \"run/x.sock\"",
        &[
            r#"2:18 [control_socket] `run/x.sock` is not an absolute path | write for example `control_socket = "/run/shunt/control.sock"`"#,
        ],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\nrecord = { path = \"a.jsonl\", max_size = \"64MB\", files = 0, keep = 2 }",
        &[
            r#"2:19 [record.path] `a.jsonl` is not an absolute path | write for example `path = "/var/lib/shunt/events.jsonl"`"#,
            r#"2:41 [record.max_size] `64MB` is not a size | write a whole number with `KiB`, `MiB` or `GiB`, for example `"64MiB"`"#,
            "2:57 [record.files] 0 is out of range | write a number from 1 to 100",
            "2:60 [record.keep] unknown key `keep` | did you mean `files`?",
        ],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\ntimeouts = { established = \"25h\", closing = \"0s\", handshake = \"1s\", syn = 5 }",
        &[
            r#"2:28 [timeouts.established] `25h` is too long | write at most `"24h"`"#,
            r#"2:45 [timeouts.closing] `0s` is too short | write at least `"1s"`"#,
            r#"2:63 [timeouts.handshake] `1s` is too short | write at least `"2s"`"#,
            "2:69 [timeouts.syn] unknown key `syn` | did you mean `handshake`?",
        ],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\nrecord = { max_size = \"1KiB\" }",
        &[
            r#"2:10 [record] `path` is missing | add for example `path = "/var/lib/shunt/events.jsonl"`"#,
            r#"2:23 [record.max_size] `1KiB` is too small | write at least `"1MiB"`"#,
        ],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\nmax_flows = 12",
        &["2:13 [max_flows] 12 is out of range | write a number from 1024 to 16777216"],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\nmax_flows = 99999999999999999999",
        &["2:13 [max_flows] 99999999999999999999 is out of range | write a number from 1024 to 16777216"],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\nmax_flows = -1",
        &["2:13 [max_flows] -1 is out of range | write a number from 1024 to 16777216"],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\nmax_source_share = 0\nmin_path_mtu = { ipv4 = 67, ipv6 = 1279 }",
        &[
            "2:20 [max_source_share] 0 is out of range | write a number from 1 to 100",
            "3:25 [min_path_mtu.ipv4] 67 is out of range | write a number from 68 to 1500",
            "3:36 [min_path_mtu.ipv6] 1279 is out of range | write a number from 1280 to 1500",
        ],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\nnat_addresses = [\"127.0.0.1\", \"::1\", \"127.9.9.9\"]",
        &[
            "2:18 [nat_addresses[0]] 127.0.0.1 is the loopback of this node, which no frame reaches | write the address of one host",
            "2:31 [nat_addresses[1]] ::1 is the loopback of this node, which no frame reaches | write the address of one host",
            "2:38 [nat_addresses[2]] 127.9.9.9 is the loopback of this node, which no frame reaches | write the address of one host",
        ],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\nnat_addresses = [\"0.0.0.0\", \"::\", \"fd00::1%eth0\"]",
        &[
            "2:18 [nat_addresses[0]] 0.0.0.0 is not the address of a host | write the address of one host",
            "2:29 [nat_addresses[1]] :: is not the address of a host | write the address of one host",
            "2:35 [nat_addresses[2]] `fd00::1%eth0` names a zone | remove `%eth0`: only link-local addresses have zones, and Shunt takes none",
        ],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\nnat_addresses = [\"224.0.0.1\", \"fe80::1\", \"x\"]",
        &[
            "2:18 [nat_addresses[0]] 224.0.0.1 is a multicast address | write the address of one host",
            "2:31 [nat_addresses[1]] fe80::1 is a link-local address | write the address of one host",
            r#"2:42 [nat_addresses[2]] `x` is not an address | write an address without a port, for example `"10.0.0.2"`"#,
        ],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\nnat_addresses = [\"10.0.0.1\", \"10.0.0.2\", \"::2\", \"10.0.0.3\", \"10.0.0.4\", \"10.0.0.5\", \"10.0.0.6\", \"10.0.0.7\", \"10.0.0.8\", \"10.0.0.9\"]",
        &["2:121 [nat_addresses[9]] more than 8 NAT addresses of one family are not possible | remove some"],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\nlog = \"loud\"",
        &[
            r#"2:7 [log] `loud` is not a value of `log` | write one of `"error"`, `"warn"`, `"info"`, `"debug"`, `"trace"`"#,
        ],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\ninterface = [\"eth0\"]",
        &["2:1 [interface] unknown key `interface` | did you mean `interfaces`?"],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\nzzz = 1",
        &[
            "2:1 [zzz] unknown key `zzz` | known here are `instance`, `interfaces`, `xdp_mode`, `control_socket`, `state_file`, `bpffs`, `nat_addresses`, `nat_ports`, `vlans`, `max_flows`, `max_new_flows_per_second`, `max_source_share`, `min_path_mtu`, `log`, `record`, `timeouts`, `service`",
        ],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\nmetrics_listen = \"127.0.0.1:9\"",
        &["2:1 [metrics_listen] `metrics_listen` is not supported yet | remove it"],
    ),
    (
        1,
        r#"interfaces = ["eth0""#,
        &[
            "2:1 [] missing comma between array elements, expected `,` | separate values by commas and close the array with `]`",
        ],
    ),
    (
        1,
        r#"interfaces = ["eth0]"#,
        &[
            "1:21 [] invalid basic string, expected `\"` | close the string with `\"` on the same line; write `\\\\` for a backslash",
            "2:1 [] missing comma between array elements, expected `,` | separate values by commas and close the array with `]`",
        ],
    ),
    (1, "interfaces = [eth0]", &["1:15 [] `eth0` is not a value | put a string in double quotes"]),
    (1, r#"interfaces ["eth0"]"#, &["1:12 [] key with no value, expected `=` | write `key = value`"]),
    (
        1,
        "interfaces = [\"eth0\"]\ninterfaces = [\"eth1\"]",
        &["2:1 [] `interfaces` is defined twice | remove or rename one of them"],
    ),
    (1, "interfaces = [\"eth0\"]\nlog = ", &["2:7 [] the value is missing | write a value after `=`"]),
    (
        2,
        r#"nat_ports = "32767-1024""#,
        &[r#"2:13 [nat_ports] `32767-1024` runs backwards | did you mean `"1024-32767"`?"#],
    ),
    (
        2,
        r#"nat_ports = "80-90""#,
        &[
            "2:13 [nat_ports] `80-90` takes ports below 1024 | the host's own services use these; start at 1024 or above",
        ],
    ),
    (
        2,
        r#"nat_ports = "1024-70000""#,
        &[
            r#"2:13 [nat_ports] `1024-70000` is not a range of ports | write the first and the last port, for example `nat_ports = "1024-32767"`"#,
        ],
    ),
    (
        2,
        "nat_ports = 1024",
        &[
            r#"2:13 [nat_ports] expected a range of ports, found an integer | write for example `nat_ports = "1024-32767"`"#,
        ],
    ),
    (
        3,
        "[service.\"a/b\"]\nvip=\"203.0.113.9:1\"\nbackends={a=\"10.0.0.1:1\"}\n[service.web]",
        &[
            r#"3:10 [service."a/b"] `a/b` is not a name | use at most 64 letters, digits, `-`, `_` and `.`, a letter or digit first"#,
        ],
    ),
    (3, "[service.web", &["3:13 [] unclosed table, expected `]` | close the header with `]`"]),
    (
        3,
        "service.web.backends.web-1 = \"10.0.0.1:1\"\n[service.web]",
        &[
            "4:10 [] `web` is defined twice | remove or rename one of them",
            "7:14 [] `backends` is defined twice | remove or rename one of them",
            "8:1 [] `web-1` is defined twice | remove or rename one of them",
        ],
    ),
    (4, "", &[r#"3:1 [service.web] `vip` is missing | add for example `vip = "203.0.113.10:80"`"#]),
    (
        4,
        r#"vip = "203.0.113.10""#,
        &[
            r#"4:7 [service.web.vip] `203.0.113.10` has no port | write an address and a port, for example `vip = "203.0.113.10:80"`"#,
        ],
    ),
    (
        4,
        r#"vip = "203.0.113.10:0""#,
        &["4:7 [service.web.vip] port 0 cannot be used | write a port from 1 to 65535"],
    ),
    (
        4,
        r#"vip = "203.0.113.10:99999""#,
        &[
            r#"4:7 [service.web.vip] `99999` is not a port | write an address and a port, for example `vip = "203.0.113.10:80"`"#,
        ],
    ),
    (
        4,
        r#"vip = "example.com:80""#,
        &[
            r#"4:7 [service.web.vip] `example.com` is not an address; names are not resolved | write an address and a port, for example `vip = "203.0.113.10:80"`"#,
        ],
    ),
    (
        4,
        r#"vip = "[2001:db8::1]:80""#,
        &[
            "7:9 [service.web.backends.web-1] the backend is IPv4, the VIP is IPv6 | give the service backends of the VIP's IP version; two services may have the same servers",
            "8:9 [service.web.backends.web-2] the backend is IPv4, the VIP is IPv6 | give the service backends of the VIP's IP version; two services may have the same servers",
        ],
    ),
    (
        4,
        r#"vip = "2001:db8::1""#,
        &[
            r#"4:7 [service.web.vip] `2001:db8::1` has no port | write it in brackets, for example `"[2001:db8::1]:80"`"#,
        ],
    ),
    (
        4,
        r#"vip = "0.0.0.0:80""#,
        &["4:7 [service.web.vip] 0.0.0.0 is not the address of a host | write the address of one host"],
    ),
    (
        4,
        r#"vip = "0.1.2.3:80""#,
        &["4:7 [service.web.vip] 0.1.2.3 is not the address of a host | write the address of one host"],
    ),
    (
        4,
        r#"vip = "239.1.2.3:80""#,
        &["4:7 [service.web.vip] 239.1.2.3 is a multicast address | write the address of one host"],
    ),
    (
        4,
        r#"vip = "[2001:db8::1%2]:80""#,
        &[
            "4:7 [service.web.vip] `[2001:db8::1%2]:80` names a zone | remove `%2`: only link-local addresses have zones, and Shunt takes none",
        ],
    ),
    (
        7,
        "web-1 = \"127.0.0.1:80\"\nweb-3 = \"0.0.0.0:80\"\nweb-4 = \"224.0.0.9:80\"\nweb-5 = { address = \"127.1.2.3:80\" }",
        &[
            "7:9 [service.web.backends.web-1] 127.0.0.1 is the loopback of this node, which no frame reaches | write the address of one host",
            "8:9 [service.web.backends.web-3] 0.0.0.0 is not the address of a host | write the address of one host",
            "9:9 [service.web.backends.web-4] 224.0.0.9 is a multicast address | write the address of one host",
            "10:21 [service.web.backends.web-5.address] 127.1.2.3 is the loopback of this node, which no frame reaches | write the address of one host",
        ],
    ),
    (
        4,
        r#"vip = "255.255.255.255:80""#,
        &["4:7 [service.web.vip] 255.255.255.255 is the broadcast address | write the address of one host"],
    ),
    (
        4,
        "vip = 80",
        &[
            r#"4:7 [service.web.vip] expected an address with a port, found an integer | write for example `vip = "203.0.113.10:80"`"#,
        ],
    ),
    (
        4,
        r#"vip = "10.0.0.12:8080""#,
        &[
            "8:9 [service.web.backends.web-2] the backend 10.0.0.12:8080 is a VIP | name the address of the server itself, not of the service",
        ],
    ),
    (
        4,
        "vip = \"203.0.113.10:80\"\ninstance = \"a\"",
        &[
            "5:1 [service.web.instance] `instance` is a key of the top level | move it above the first `[service.NAME]`",
        ],
    ),
    (
        5,
        r#"mode = "dsr-l2""#,
        &[r#"5:8 [service.web.mode] mode `dsr-l2` is not supported yet | write `mode = "nat"` or `"dnat"`"#],
    ),
    (
        5,
        r#"mode = "snat""#,
        &[r#"5:8 [service.web.mode] `snat` is not a value of `mode` | did you mean `"nat"`?"#],
    ),
    (
        5,
        r#"evidence = "yes""#,
        &[
            "5:12 [service.web.evidence] expected `true` or `false`, found a string | write for example `evidence = true`",
        ],
    ),
    (
        5,
        r#"no_backend = "rest""#,
        &[r#"5:14 [service.web.no_backend] `rest` is not a value of `no_backend` | did you mean `"reset"`?"#],
    ),
    (
        7,
        r#"web-1 = "10.0.0.12:8080""#,
        &[
            "8:9 [service.web.backends.web-2] the address 10.0.0.12:8080 is used twice in this service | remove one of them; `weight` gives a backend a larger share",
        ],
    ),
    (
        5,
        "evidence = false\non_eject = \"reset\"",
        &[
            r#"6:12 [service.web.on_eject] without evidence Shunt does not know where a request begins | write `evidence = true`, or `on_eject = "drain"`: then connections end by `drain_timeout`"#,
        ],
    ),
    (
        5,
        "on_eject = \"rst\"\ndrain_timeout = \"25h\"\nredispatch = 1",
        &[
            r#"5:12 [service.web.on_eject] `rst` is not a value of `on_eject` | did you mean `"reset"`?"#,
            r#"6:17 [service.web.drain_timeout] a drain of 25h is too long | write at most `"24h"`"#,
            "7:14 [service.web.redispatch] expected `true` or `false`, found an integer | write for example `redispatch = true`",
        ],
    ),
    (
        9,
        "[service.web.fallback]\nweb-1 = \"10.0.0.13:80\"\nsorry = \"10.0.0.12:8080\"\n[service.web.probe.http]",
        &[
            "10:1 [service.web.fallback.web-1] the name `web-1` is used twice in this service | give it another name; a backend cannot be in the fallback and outside it",
            "11:9 [service.web.fallback.sorry] the address 10.0.0.12:8080 is used twice in this service | remove one of them; `weight` gives a backend a larger share",
        ],
    ),
    (
        9,
        "[service.web.fallback]\nsorry = \"[2001:db8::1]:80\"\n[service.web.probe.http]",
        &[
            "10:9 [service.web.fallback.sorry] the backend is IPv6, the VIP is IPv4 | give the service backends of the VIP's IP version; two services may have the same servers",
        ],
    ),
    (
        5,
        "fallback = {}",
        &["5:12 [service.web.fallback] the fallback has no backend | add one, or remove the table"],
    ),
    (7, r#"web-2 = "10.0.0.11:8080""#, &["8:1 [] `web-2` is defined twice | remove or rename one of them"]),
    (
        7,
        r#"web-1 = { address = "10.0.0.11:8080", weight = 0 }"#,
        &["7:48 [service.web.backends.web-1.weight] 0 is out of range | write a number from 1 to 65535"],
    ),
    (
        7,
        "web-1 = { weight = 7 }",
        &[
            r#"7:9 [service.web.backends.web-1] `address` is missing | add for example `web-1 = { address = "10.0.0.11:8080", weight = 50 }`"#,
        ],
    ),
    (
        7,
        r#"web-1 = { adress = "10.0.0.11:8080" }"#,
        &["7:11 [service.web.backends.web-1.adress] unknown key `adress` | did you mean `address`?"],
    ),
    (
        7,
        r#""web 1" = "10.0.0.11:8080""#,
        &[
            r#"7:1 [service.web.backends."web 1"] `web 1` is not a name | use at most 64 letters, digits, `-`, `_` and `.`, a letter or digit first"#,
        ],
    ),
    (
        7,
        r#"web-1 = "[fd00::1]:80""#,
        &[
            "7:9 [service.web.backends.web-1] the backend is IPv6, the VIP is IPv4 | give the service backends of the VIP's IP version; two services may have the same servers",
        ],
    ),
    (
        9,
        "[service.web.probe]\ntcp = {}\nhttp = {}\n[service.web.probe.http.headers]",
        &[
            "11:1 [service.web.probe.http] a service has one probe | remove one of `probe.tcp` and `probe.http`",
            "12:20 [] cannot extend value of type inline table with a dotted key | write the table in one place, in braces or under a header of its own",
        ],
    ),
    (
        9,
        "[service.web.probe.htp]",
        &["9:20 [service.web.probe.htp] unknown key `htp` | did you mean `http`?"],
    ),
    (
        9,
        "[service.web.probe.tls]",
        &["9:20 [service.web.probe.tls] unknown key `tls` | did you mean `https`?"],
    ),
    (
        10,
        r#"path = "healthz""#,
        &[
            r#"10:8 [service.web.probe.http.path] `healthz` does not begin with `/` | write only the path, for example `path = "/healthz"`"#,
        ],
    ),
    (
        10,
        r#"path = "/a b""#,
        &[
            "10:8 [service.web.probe.http.path] a path cannot contain ` ` | write it percent-encoded, `%20` for a blank",
        ],
    ),
    (
        10,
        "interval = \"1s\"\ntimeout = \"2s\"",
        &[
            "11:11 [service.web.probe.http.timeout] the timeout is above the interval, 1s | lower `timeout` or raise `interval`: a probe must end before the next one begins",
        ],
    ),
    (
        10,
        "interval = 5",
        &[
            r#"10:12 [service.web.probe.http.interval] expected a duration, found an integer | write for example `interval = "5s"`"#,
        ],
    ),
    (
        10,
        r#"expect = ["200-399", "abc", "600", 99, "399-200"]"#,
        &[
            r#"10:22 [service.web.probe.http.expect[1]] `abc` is not a status | write a status from 100 to 599 or a range of them, `"204"` or `"200-399"`"#,
            r#"10:29 [service.web.probe.http.expect[2]] `600` is not a status | write a status from 100 to 599 or a range of them, `"204"` or `"200-399"`"#,
            "10:36 [service.web.probe.http.expect[3]] 99 is out of range | write a number from 100 to 599",
            r#"10:40 [service.web.probe.http.expect[4]] `399-200` runs backwards | did you mean `"200-399"`?"#,
        ],
    ),
    (
        10,
        r#"expect = "200""#,
        &[
            r#"10:10 [service.web.probe.http.expect] expected an array of statuses, found a string | write for example `expect = ["200-399"]`"#,
        ],
    ),
    (
        10,
        "rise = 0",
        &["10:8 [service.web.probe.http.rise] 0 is out of range | write a number from 1 to 1000"],
    ),
    (
        10,
        r#"method = "get""#,
        &[
            r#"10:10 [service.web.probe.http.method] `get` is not a value of `method` | did you mean `"GET"`?"#,
        ],
    ),
    (
        10,
        r#"host = "a b""#,
        &[
            r#"10:8 [service.web.probe.http.host] `a b` is not a host | write for example `host = "shop.example"`"#,
        ],
    ),
    (
        10,
        r#"headers = { Host = "x", "a b" = "y", ok = "\n", Connection = "close", OK = "x" }"#,
        &[
            r#"10:13 [service.web.probe.http.headers.Host] `host` is a key of its own | write `host = "…"` beside `path`"#,
            r#"10:25 [service.web.probe.http.headers."a b"] `a b` is not the name of a header | use letters, digits and `-`"#,
            r#"10:43 [service.web.probe.http.headers.ok] `\n` cannot be the value of a header | use visible ASCII characters, no blank at the ends"#,
            "10:49 [service.web.probe.http.headers.Connection] the probe itself sets `Connection` | remove it",
            "10:71 [service.web.probe.http.headers.OK] the header `OK` is set twice | remove one of them",
        ],
    ),
    (
        12,
        r#"intervall = "5s""#,
        &["12:1 [service.web.breaker.intervall] unknown key `intervall` | did you mean `interval`?"],
    ),
    (
        12,
        "consecutive5xxErrors = 3",
        &[
            "12:1 [service.web.breaker.consecutive5xxErrors] unknown key `consecutive5xxErrors` | did you mean `consecutive_5xx`?",
        ],
    ),
    (
        12,
        r#"baseEjectionTime = "30s""#,
        &[
            "12:1 [service.web.breaker.baseEjectionTime] unknown key `baseEjectionTime` | did you mean `base_ejection_time`?",
        ],
    ),
    (
        12,
        "error_rate_window = \"99ms\"\nerror_rate_threshold = 101\nsuccess_rate_stdev_factor = -1.0",
        &[
            r#"12:21 [service.web.breaker.error_rate_window] `99ms` is too short | write at least `"100ms"`"#,
            "13:24 [service.web.breaker.error_rate_threshold] 101 is out of range | write a number from 0 to 100",
            "14:29 [service.web.breaker.success_rate_stdev_factor] `-1.0` is not a factor | write at most three decimals and at most 10, for example `1.9`",
        ],
    ),
    (
        12,
        "shadow = [\"sucess_rate\", \"panic\", 1]",
        &[
            r#"12:11 [service.web.breaker.shadow[0]] `sucess_rate` is not a value of `shadow[0]` | did you mean `"success_rate"`?"#,
            r#"12:26 [service.web.breaker.shadow[1]] `panic` is not a value of `shadow[1]` | write one of `"consecutive_gateway_failure"`, `"consecutive_5xx"`, `"consecutive_l4_failure"`, `"error_rate"`, `"slow_rate"`, `"success_rate"`, `"failure_percentage"`, `"success_rate_l4"`, `"failure_percentage_l4"`"#,
            r#"12:35 [service.web.breaker.shadow[2]] expected the name of a detector, found an integer | write for example `shadow = ["success_rate"]`"#,
        ],
    ),
    (
        10,
        "jitter = 51\nfast_interval = \"1ms\"",
        &[
            "10:10 [service.web.probe.http.jitter] 51 is out of range | write a number from 0 to 50",
            r#"11:17 [service.web.probe.http.fast_interval] `1ms` is too short | write at least `"10ms"`"#,
        ],
    ),
    (
        12,
        "max_ejection_percent = 101",
        &[
            "12:24 [service.web.breaker.max_ejection_percent] 101 is out of range | write a number from 0 to 100",
        ],
    ),
    (
        12,
        "base_ejection_time = \"10m\"\nmax_ejection_time = \"5m\"",
        &[
            "13:21 [service.web.breaker.max_ejection_time] the longest ejection is below `base_ejection_time`, 10m | raise `max_ejection_time` or lower `base_ejection_time`",
        ],
    ),
    (
        12,
        "min_serving = 3",
        &[
            "12:15 [service.web.breaker.min_serving] 3 must serve, but the service has 2 backends | write at most 2, or add backends",
        ],
    ),
    (
        12,
        "half_open_successes = 0",
        &[
            "12:23 [service.web.breaker.half_open_successes] a half-open backend would be readmitted without one good response | write at least 1, or turn half-open off by `half_open_trials = 0`",
        ],
    ),
    (
        12,
        "errors = []",
        &[
            r#"12:10 [service.web.breaker.errors] no status is named | write for example `errors = ["500-599"]`"#,
        ],
    ),
    (
        12,
        r#"interval = "0s""#,
        &[r#"12:12 [service.web.breaker.interval] `0s` is too short | write at least `"10ms"`"#],
    ),
    (
        12,
        r#"interval = "1.5s""#,
        &[
            r#"12:12 [service.web.breaker.interval] `1.5s` is not a duration | write whole numbers with `h`, `m`, `s` or `ms`, for example `"5s"`, `"1m30s"`, `"500ms"`"#,
        ],
    ),
    (
        12,
        r#"interval = "1s1s""#,
        &[
            r#"12:12 [service.web.breaker.interval] `1s1s` is not a duration | write whole numbers with `h`, `m`, `s` or `ms`, for example `"5s"`, `"1m30s"`, `"500ms"`"#,
        ],
    ),
    (
        12,
        r#"interval = "5s1m""#,
        &[
            r#"12:12 [service.web.breaker.interval] `5s1m` is not a duration | write whole numbers with `h`, `m`, `s` or `ms`, for example `"5s"`, `"1m30s"`, `"500ms"`"#,
        ],
    ),
    (
        12,
        "connect_timeout = \"31m\"\nresponse_timeout = \"2h\"",
        &[
            r#"12:19 [service.web.breaker.connect_timeout] Shunt cannot wait longer than 30m | write at most `"30m"`, or `"0s"` for no limit"#,
            r#"13:20 [service.web.breaker.response_timeout] Shunt cannot wait longer than 30m | write at most `"30m"`, or `"0s"` for no limit"#,
        ],
    ),
    (
        12,
        r#"interval = "9000h""#,
        &[r#"12:12 [service.web.breaker.interval] `9000h` is too long | write at most one year, `"8760h"`"#],
    ),
    (
        12,
        r#"interval = "99999999999999999999h""#,
        &[
            r#"12:12 [service.web.breaker.interval] `99999999999999999999h` is not a duration | write whole numbers with `h`, `m`, `s` or `ms`, for example `"5s"`, `"1m30s"`, `"500ms"`"#,
        ],
    ),
    (
        12,
        "enforce = 1",
        &[
            "12:11 [service.web.breaker.enforce] expected `true` or `false`, found an integer | write for example `enforce = true`",
        ],
    ),
    (
        12,
        r#"half_open_exit = "never""#,
        &[
            r#"12:18 [service.web.breaker.half_open_exit] `never` is not a value of `half_open_exit` | write one of `"close"`, `"wait"`"#,
        ],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\ninstance = \"control\"",
        &["2:12 [instance] `control` is the socket of the default instance | choose another name"],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\nlog = loud\nbpffs = \"/sys",
        &[
            "2:7 [] `loud` is not a value | put a string in double quotes",
            "3:14 [] invalid basic string, expected `\"` | close the string with `\"` on the same line; write `\\\\` for a backslash",
        ],
    ),
    (
        3,
        "[service.api]\nvip = \"203.0.113.10:80\"\nbackends.a = \"10.0.0.1:1\"\n[service.web]",
        &[
            "7:7 [service.web.vip] the VIP 203.0.113.10:80 is used twice | give each service a VIP address and port of its own",
        ],
    ),
    (
        3,
        "[service.api]\nvip = \"203.0.113.11:80\"\nbackends = {}\n[service.web]",
        &[
            r#"5:12 [service.api.backends] the service has no backend | add one, for example `web-1 = "10.0.0.11:8080"`"#,
        ],
    ),
    (
        3,
        "[service.api]\nvip = \"203.0.113.11:80\"\n[service.web]",
        &[
            r#"3:1 [service.api] `backends` is missing | add for example `backends = { web-1 = "10.0.0.11:8080" }`"#,
        ],
    ),
    (
        3,
        "[service.api]\nbind = \"203.0.113.11:80\"\nbackends.a = \"10.0.0.1:1\"\n[service.web]",
        &["4:1 [service.api.bind] unknown key `bind` | did you mean `vip`?"],
    ),
    (
        1,
        "interfaces = [\"eth0\"]\nservices.web.vip = \"203.0.113.10:80\"",
        &["2:1 [services] unknown key `services` | did you mean `service`?"],
    ),
    (
        1,
        "interfaces = [\"eth0\"] # é\nlog = \"é\" # é\n\"é\" = 1",
        &[
            r#"2:7 [log] `é` is not a value of `log` | write one of `"error"`, `"warn"`, `"info"`, `"debug"`, `"trace"`"#,
            r#"3:1 ["é"] unknown key `é` | known here are `instance`, `interfaces`, `xdp_mode`, `control_socket`, `state_file`, `bpffs`, `nat_addresses`, `nat_ports`, `vlans`, `max_flows`, `max_new_flows_per_second`, `max_source_share`, `min_path_mtu`, `log`, `record`, `timeouts`, `service`"#,
        ],
    ),
    (2, "vlans = [0]", &["2:10 [vlans[0]] 0 is out of range | write a number from 1 to 4094"]),
    (2, "vlans = [4095]", &["2:10 [vlans[0]] 4095 is out of range | write a number from 1 to 4094"]),
    (2, "vlans = [10, 10]", &["2:14 [vlans[1]] the VLAN 10 is named twice | remove one of them"]),
    (2, "vlan = [10]", &["2:1 [vlan] unknown key `vlan` | did you mean `vlans`?"]),
    (
        5,
        r#"allow = "10.0.0.0/8""#,
        &[
            r#"5:9 [service.web.allow] expected an array of prefixes, found a string | write for example `allow = ["10.0.0.0/8"]`"#,
        ],
    ),
    (
        5,
        r#"deny = ["10.0.0.1/8"]"#,
        &[
            r#"5:9 [service.web.deny[0]] `10.0.0.1/8` has bits behind its length | did you mean `"10.0.0.0/8"`?"#,
        ],
    ),
    (
        5,
        r#"deny = ["10.0.0.0/33"]"#,
        &[r#"5:9 [service.web.deny[0]] `10.0.0.0/33` is not a prefix | write 0 to 32 after the `/`"#],
    ),
    (
        5,
        r#"deny = ["office"]"#,
        &[
            r#"5:9 [service.web.deny[0]] `office` is not a prefix | write an address and how many of its bits count, for example `"10.0.0.0/8"`"#,
        ],
    ),
    (
        5,
        r#"deny = ["2001:db8::/32"]"#,
        &[
            "5:9 [service.web.deny[0]] 2001:db8::/32 has another IP version than the VIP: no client comes from there | remove it",
        ],
    ),
    (
        5,
        "allow = [\"10.0.0.0/8\"]\ndeny = [\"10.0.0.0/8\"]",
        &[
            "6:9 [service.web.deny[0]] the prefix 10.0.0.0/8 is named twice | remove one of them; of two that differ, the longer one decides",
        ],
    ),
];
